//! How the authority is spoken to: HTTPS with bounds, and an ear for when it wants to be asked again.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use reqwest::{Client, redirect};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::error_chain::with_causes;
use crate::server::acme::error::Error;

/// For a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// For one request and its answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer: chains of certificates have a few kilobytes.
const ANSWER_LIMIT: usize = 1 << 20;
/// What a problem comes as.
const PROBLEM: &str = "application/problem+json";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failed(String);

/// When an authority wants to be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryAfter {
    /// So many seconds after its answer.
    Seconds(u64),
    /// At this Unix time.
    At(u64),
}

/// A client for one order.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    retry_after: Arc<Mutex<Option<RetryAfter>>>,
}

impl Http {
    /// One that trusts what this system trusts, and the certificates in `authority_file`.
    pub(super) fn new(authority_file: Option<&Path>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = authority_file {
            roots.add_parsable_certificates(authorities(path)?);
        }
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Error::NoRoots);
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| Error::Unreachable(with_causes(&error)))?;
        Ok(Self {
            client,
            retry_after: Arc::default(),
        })
    }

    /// When the authority wants to be asked again, if it said so with a refusal.
    pub(super) fn retry_after(&self) -> Option<RetryAfter> {
        *self.said()
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Option<RetryAfter>> {
        self.retry_after
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(
        self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, Failed> {
        let (parts, body) = request.into_parts();
        let is_look = parts.method != http::Method::POST;
        let Ok(body) = body.collect().await;
        let request = http::Request::from_parts(parts, body.to_bytes());
        let request = request.try_into().map_err(failed)?;
        let mut response = self.client.execute(request).await.map_err(failed)?;
        let status = response.status();
        let is_refusal = status.is_client_error() || status.is_server_error();
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|text| text.to_str().ok())
        };
        if is_refusal {
            if let Some(said) = header(RETRY_AFTER).and_then(RetryAfter::parse) {
                *self.said() = Some(said);
            }
            // What stands in front of the authority, or is not one at all, does not speak ACME; and what was only to be
            // looked at is nothing else, whatever it says.
            let speaks = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with(PROBLEM));
            if !speaks || is_look {
                return Err(Failed(format!("it answers {}", status.as_u16())));
            }
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > ANSWER_LIMIT {
                return Err(Failed("it answers too much".to_owned()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let mut answer = http::Response::new(Full::new(bytes.freeze()));
        *answer.status_mut() = status;
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(BytesResponse::from(answer))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let asked = self.clone().ask(request);
        Box::pin(async {
            asked
                .await
                .map_err(|failed| instant_acme::Error::Other(failed.into()))
        })
    }
}

impl RetryAfter {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Self::Seconds(seconds));
        }
        let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
        u64::try_from(date.unix_timestamp()).ok().map(Self::At)
    }
}

/// What went wrong, without the address: an account's stands in some.
fn failed(error: reqwest::Error) -> Failed {
    let error = error.without_url();
    // The innermost cause says what happened; those around it, that a request failed.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() {
        return Failed("it does not answer in time".to_owned());
    }
    Failed(cause.to_string())
}

/// The certificates of a file with authorities.
pub(crate) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.unwrap_or_default();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if added == 0 {
        return Err(Error::Authority(path.to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_say_in_two_ways_when_they_want_to_be_asked_again() {
        for (text, expected) in [
            ("120", Some(RetryAfter::Seconds(120))),
            (" 0 ", Some(RetryAfter::Seconds(0))),
            (
                "Fri, 31 Dec 1999 23:59:59 GMT",
                Some(RetryAfter::At(946_684_799)),
            ),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(RetryAfter::parse(text), expected, "{text}");
        }
    }
}
