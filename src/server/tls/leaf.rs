//! The leaf certificate, parsed once into the facts that the server, ACME and `check` need.

use std::collections::BTreeSet;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

/// The parsed fields of a leaf certificate. Times are Unix times in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// When its validity begins.
    pub(crate) not_before: u64,
    /// When its validity ends.
    pub(crate) not_after: u64,
    /// Its subject alternative names; DNS names in lower case.
    pub(crate) names: BTreeSet<String>,
    /// True for the certificate of a certificate authority.
    pub(crate) is_ca: bool,
    /// False where the extended key usage excludes server authentication.
    pub(crate) allows_server_auth: bool,
    /// Its public key.
    pub(crate) key: Key,
    /// The OID of the issuer's signature algorithm, in dotted decimal.
    pub(crate) signature_algorithm: String,
}

/// The kind and size of a public key, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// RSA: the size of the modulus.
    Rsa(usize),
    /// ECDSA: the size of the curve.
    EllipticCurve(usize),
    /// A key of another kind, or one that cannot be parsed.
    Other,
}

impl Leaf {
    /// Parses a certificate in DER; `None` where that fails.
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            not_before: unix(validity.not_before.timestamp()),
            not_after: unix(validity.not_after.timestamp()),
            names: names(&certificate),
            is_ca: certificate.is_ca(),
            allows_server_auth: !matches!(
                certificate.extended_key_usage(),
                Ok(Some(usage)) if !(usage.value.server_auth || usage.value.any)
            ),
            key: match certificate.public_key().parsed() {
                Ok(PublicKey::RSA(key)) => Key::Rsa(key.key_size()),
                Ok(PublicKey::EC(key)) => Key::EllipticCurve(key.key_size()),
                _ => Key::Other,
            },
            signature_algorithm: certificate.signature_algorithm.algorithm.to_id_string(),
        })
    }
}

/// The subject alternative names; none where the extension is missing or invalid.
fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let names = names.value.general_names.iter().map(|name| {
        if let GeneralName::DNSName(name) = name {
            name.to_ascii_lowercase()
        } else {
            name.to_string()
        }
    });
    names.collect()
}

/// The timestamp as unsigned seconds; times before 1970 count as 1970.
fn unix(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;

    fn parsed(change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params =
            CertificateParams::new(["A.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 2);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf::parse(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn all_fields_of_a_certificate_are_parsed() {
        let leaf = parsed(|_| ());

        assert_eq!(leaf.not_after - leaf.not_before, crate::time::DAY);
        assert!(
            leaf.names.contains("a.example") && leaf.names.len() == 2,
            "{leaf:?}"
        );
        assert!(!leaf.is_ca && leaf.allows_server_auth);
        assert_eq!(leaf.key, Key::EllipticCurve(256));
        assert_eq!(leaf.signature_algorithm, "1.2.840.10045.4.3.2");
        assert_eq!(Leaf::parse(b"no certificate"), None);
    }

    #[test]
    fn authorities_and_certificates_for_clients_are_recognised() {
        assert!(parsed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).is_ca);
        for (purpose, expected) in [
            (ExtendedKeyUsagePurpose::ClientAuth, false),
            (ExtendedKeyUsagePurpose::ServerAuth, true),
            (ExtendedKeyUsagePurpose::Any, true),
        ] {
            let leaf = parsed(|params| params.extended_key_usages = vec![purpose]);
            assert_eq!(leaf.allows_server_auth, expected);
        }
    }
}
