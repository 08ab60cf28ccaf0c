//! HTTPS client for the authority, with timeouts and a size limit; keeps its `Retry-After`.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
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
use crate::lock::lock;
use crate::server::acme::error::{Error, NoResponse};
use crate::server::tls::alpn;

/// Time limit for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for one request and its response.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Largest response body in bytes: a certificate chain has a few kilobytes.
const RESPONSE_LIMIT: usize = 1 << 20;
/// Media type of a problem document (RFC 7807).
const PROBLEM: &str = "application/problem+json";

/// Value of the header `Retry-After` (RFC 9110 §10.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryAfter {
    /// This number of seconds after the response.
    Seconds(u64),
    /// At this Unix time, in seconds.
    At(u64),
}

/// HTTPS client for one order.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    retry_after: Arc<Mutex<Option<RetryAfter>>>,
}

impl Http {
    /// Creates a client that trusts the system's roots and the certificates in `authority_file`.
    ///
    /// # Errors
    /// When the file cannot be used, or there are no trusted roots.
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
        tls.alpn_protocols = vec![alpn::HTTP_2.to_vec(), alpn::HTTP_1_1.to_vec()];
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

    /// `Retry-After` of the last refusal that had one.
    pub(super) fn retry_after(&self) -> Option<RetryAfter> {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<RetryAfter>> {
        lock(&self.retry_after)
    }

    async fn send(
        self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Result<BytesResponse, NoResponse> {
        let (parts, body) = request.into_parts();
        let is_read = parts.method != http::Method::POST;
        let Ok(body) = body.collect().await;
        let request = http::Request::from_parts(parts, body.to_bytes());
        let request = request.try_into().map_err(no_response)?;
        let mut response = self.client.execute(request).await.map_err(no_response)?;
        let status = response.status();
        let is_refusal = status.is_client_error() || status.is_server_error();
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|text| text.to_str().ok())
        };
        if is_refusal {
            if let Some(retry_after) = header(RETRY_AFTER).and_then(RetryAfter::parse) {
                *self.lock() = Some(retry_after);
            }
            // Without a problem document, the response comes from a proxy or from another server;
            // and a refused GET or HEAD has changed nothing, whatever it contains.
            let is_acme = header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with(PROBLEM));
            if !is_acme || is_read {
                return Err(NoResponse(format!(
                    "it answers with status {}",
                    status.as_u16()
                )));
            }
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(no_response)? {
            if bytes.len() + chunk.len() > RESPONSE_LIMIT {
                return Err(NoResponse("the answer is too large".to_owned()));
            }
            bytes.extend_from_slice(&chunk);
        }
        let mut limited = http::Response::new(Full::new(bytes.freeze()));
        *limited.status_mut() = status;
        *limited.headers_mut() = std::mem::take(response.headers_mut());
        Ok(BytesResponse::from(limited))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let response = self.clone().send(request);
        Box::pin(async {
            response
                .await
                .map_err(|error| instant_acme::Error::Other(error.into()))
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

/// Converts an error without its URL, which may be that of an account.
fn no_response(error: reqwest::Error) -> NoResponse {
    let error = error.without_url();
    // The innermost cause says what happened; the outer ones only that a request failed.
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() {
        return NoResponse("it does not answer in time".to_owned());
    }
    NoResponse(cause.to_string())
}

/// Reads the root certificates in a PEM file.
///
/// # Errors
/// When the file cannot be read, or contains no certificate that can be trusted.
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
    fn retry_after_is_seconds_or_a_date() {
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
