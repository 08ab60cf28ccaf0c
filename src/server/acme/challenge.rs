//! ACME challenges: proof of control over a domain (tls-alpn-01, RFC 8737).
//!
//! While an order is in progress, a handshake that offers only the protocol `acme-tls/1` is
//! answered with a certificate that contains the SHA-256 of the key authorization, which only the
//! holder of the account's key can compute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

use crate::lock::lock;
use crate::server::acme::error::Error;
use crate::server::tls::alpn;

/// Length of a SHA-256 digest in bytes.
const DIGEST_BYTES: usize = 32;

/// The certificates that answer challenges, by domain in lower case.
#[derive(Default)]
pub(crate) struct Challenges(Mutex<HashMap<String, Arc<CertifiedKey>>>);

impl Challenges {
    /// True if the handshake is a validation by an authority, which offers `acme-tls/1` alone
    /// (RFC 8737 §3); phones offer other protocols.
    pub(super) fn is_challenge(hello: &ClientHello<'_>) -> bool {
        hello.alpn().is_some_and(|mut protocols| {
            protocols.next() == Some(alpn::ACME_TLS_1) && protocols.next().is_none()
        })
    }

    /// The certificate that answers the challenge for this domain; `None` if no order waits for it.
    pub(super) fn answer(&self, domain: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let domain = domain?.to_ascii_lowercase();
        self.all().get(&domain).cloned()
    }

    /// Answers challenges for `domain` until [`Challenges::clear`]. `digest` is the SHA-256 of the
    /// key authorization, 32 bytes.
    pub(super) fn set(&self, domain: &str, digest: &[u8]) -> Result<(), Error> {
        let answer = answer(domain, digest)?;
        self.all().insert(domain.to_owned(), Arc::new(answer));
        Ok(())
    }

    /// Removes all answers.
    pub(super) fn clear(&self) {
        self.all().clear();
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        lock(&self.0)
    }
}

/// A self-signed certificate for this domain alone, with the digest in the critical extension
/// `acmeIdentifier` (RFC 8737 §3).
fn answer(domain: &str, digest: &[u8]) -> Result<CertifiedKey, Error> {
    if digest.len() != DIGEST_BYTES {
        return Err(Error::Unusable("a challenge with no SHA-256"));
    }
    let key = KeyPair::generate().map_err(Error::Certificate)?;
    let mut params = CertificateParams::new([domain.to_owned()]).map_err(Error::Certificate)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).map_err(Error::Certificate)?;
    let private_key = PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|_| Error::Certificate(rcgen::Error::CouldNotParseKeyPair))?;
    let signing = aws_lc_rs::sign::any_supported_type(&private_key)
        .map_err(|_| Error::Certificate(rcgen::Error::CouldNotParseKeyPair))?;
    // `CertifiedKey::from_der` would parse the certificate again and reject the critical extension,
    // which it does not know.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signing))
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    #[test]
    fn the_answer_contains_the_domain_and_the_digest_in_a_critical_extension() {
        let challenges = Challenges::default();
        challenges.set("safe.example.org", &[7; 32]).unwrap();

        let answer = challenges.answer(Some("SAFE.example.org")).unwrap();

        let (_, certificate) = X509Certificate::from_der(&answer.cert[0]).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
        let extension = certificate
            .extensions()
            .iter()
            .find(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
            .unwrap();
        assert!(extension.critical);
        assert_eq!(extension.value, [&[4, 32], &[7; 32][..]].concat());
        for other in [Some("example.org"), None] {
            assert!(challenges.answer(other).is_none());
        }
        challenges.clear();
        assert!(challenges.answer(Some("safe.example.org")).is_none());
    }
}
