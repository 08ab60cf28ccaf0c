//! Preflight check of the certificate: the requirements of App Transport Security (Apple,
//! "Preventing insecure network connections"), and whether a client that trusts this system's
//! authorities would accept the chain.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};

use crate::config::{Config, TlsFiles};
use crate::error_chain::with_causes;
use crate::server::preflight::findings::{Findings, check_private, public_host};
use crate::server::status::{Alert, Renewal, Severity};
use crate::server::tls::leaf::{Key, Leaf};
use crate::server::tls::pem;
use crate::time::{DAY, unix};

/// Longest validity that Apple accepts of a private authority, in seconds
/// (support.apple.com/103769).
const LONGEST_VALIDITY: u64 = 825 * DAY;

/// OIDs of signature algorithms that clients refuse: sha1WithRSAEncryption, md5WithRSAEncryption
/// (RFC 8017 appendix C), ecdsa-with-SHA1 (RFC 3279 §2.2.3).
const WEAK_SIGNATURES: [&str; 3] = [
    "1.2.840.113549.1.1.5",
    "1.2.840.113549.1.1.4",
    "1.2.840.10045.4.1",
];

/// Checks the certificate files; findings about the certificate are reported for `key`.
pub(super) fn check(
    findings: &mut Findings,
    config: &Config,
    files: &TlsFiles,
    (key, renewal): (&'static str, Renewal),
    now: SystemTime,
) {
    let pair = match pem::load(files) {
        Ok(pair) => pair,
        Err(error) => return findings.add(Severity::Critical, "tls", with_causes(&error)),
    };
    findings.add(
        Severity::Good,
        "tls",
        "certificate and private key are a pair",
    );
    check_private(findings, "tls.privateKeyFile", &files.private_key);
    let Some((certificate, intermediates)) = pair.cert.split_first() else {
        return;
    };
    match Leaf::parse(certificate) {
        Some(leaf) => {
            let (begins, ends) = (leaf.not_before, leaf.not_after);
            let validity = Alert::certificate_validity(begins, ends, unix(now), renewal);
            findings.push(key, validity);
            for text in refusals(&leaf) {
                findings.add(Severity::Critical, key, text);
            }
        }
        None => {
            let text = "the first certificate of the file cannot be parsed";
            findings.add(Severity::Critical, key, text);
        }
    }
    check_chain(findings, config, key, (certificate, intermediates), now);
}

/// The reasons for which apps refuse a certificate regardless of the time.
fn refusals(leaf: &Leaf) -> impl Iterator<Item = &'static str> {
    let has_strong_key = match leaf.key {
        Key::Rsa(bits) => bits >= 2048,
        Key::EllipticCurve(bits) => bits >= 256,
        Key::Other => false,
    };
    let reasons = [
        (
            leaf.not_after.saturating_sub(leaf.not_before) > LONGEST_VALIDITY,
            "the certificate is valid for more than 825 days, so iPhones refuse it; use a shorter validity",
        ),
        (
            leaf.is_ca,
            "the first certificate of the file is an authority's; put the server's certificate first",
        ),
        (
            leaf.names.is_empty(),
            "the certificate has no subject alternative name, so clients refuse it; have it issued with one",
        ),
        (
            !leaf.allows_server_auth,
            "the certificate's extended key usage excludes servers, so clients refuse it; have it issued for \
             serverAuth",
        ),
        (
            !has_strong_key,
            "the key is weaker than RSA 2048 or ECDSA P-256, so iPhones refuse it; use a stronger key",
        ),
        (
            WEAK_SIGNATURES.contains(&&*leaf.signature_algorithm),
            "the certificate is signed with SHA-1 or MD5, so clients refuse it; have it issued with SHA-256",
        ),
    ];
    reasons
        .into_iter()
        .filter_map(|(is_refused, text)| is_refused.then_some(text))
}

/// Verifies the chain for the public name against the authorities that this system trusts.
fn check_chain(
    findings: &mut Findings,
    config: &Config,
    key: &'static str,
    (leaf, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
    now: SystemTime,
) {
    let host = public_host(config);
    let Some(Ok(name)) = host.map(ServerName::try_from) else {
        let text = "is not set, so the certificate's names cannot be checked";
        return findings.add(Severity::Warning, "publicUrl", text);
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let Ok(verifier) =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()
    else {
        let text = "this system trusts no authority, so the chain cannot be checked";
        return findings.add(Severity::Warning, key, text);
    };
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    match verifier.verify_server_cert(leaf, intermediates, &name, &[], now) {
        Ok(_) => findings.add(
            Severity::Good,
            key,
            "the chain is complete, trusted by this system and covers publicUrl",
        ),
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            let text = "the certificate was issued by no authority that this system trusts, or an intermediate is \
                        missing from the file; phones connect only if that authority is installed on them";
            findings.add(Severity::Warning, key, text);
        }
        Err(error) => findings.add(
            Severity::Critical,
            key,
            format!("clients refuse the certificate: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> Leaf {
        Leaf {
            not_before: 0,
            not_after: LONGEST_VALIDITY,
            names: ["a.example".to_owned()].into(),
            is_ca: false,
            allows_server_auth: true,
            key: Key::Rsa(2048),
            signature_algorithm: "1.2.840.113549.1.1.11".into(),
        }
    }

    #[test]
    fn a_certificate_is_refused_for_each_reason_alone() {
        assert_eq!(refusals(&accepted()).count(), 0);
        let refused = |expected: &str, change: fn(&mut Leaf)| {
            let mut leaf = accepted();
            change(&mut leaf);
            let found: Vec<_> = refusals(&leaf).collect();
            assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
        };

        refused("825 days", |leaf| leaf.not_after += 1);
        refused("an authority's", |leaf| leaf.is_ca = true);
        refused("alternative name", |leaf| leaf.names.clear());
        refused("extended key usage", |leaf| leaf.allows_server_auth = false);
        refused("the key is weaker", |leaf| leaf.key = Key::Rsa(2047));
        refused("the key is weaker", |leaf| {
            leaf.key = Key::EllipticCurve(224);
        });
        refused("the key is weaker", |leaf| leaf.key = Key::Other);
        refused("SHA-1 or MD5", |leaf| {
            "1.2.840.10045.4.1".clone_into(&mut leaf.signature_algorithm);
        });
    }
}
