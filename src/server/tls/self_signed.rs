//! Development certificates: a new certificate authority and a leaf certificate that it issues,
//! because TLS clients reject a self-signed certificate that is both CA and server certificate.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use crate::time::DAY;

/// Validity after the creation: less than the 398 days that Apple allows.
const VALID: Duration = Duration::from_secs(365 * DAY);
/// Validity before the creation, for clocks that are behind.
const VALID_BEFORE: Duration = Duration::from_secs(DAY);

/// A certificate, its key, and the certificate authority that clients must trust. The keys are
/// ECDSA P-256.
pub struct DevelopmentCertificate {
    /// The authority's certificate, PEM.
    pub authority_pem: String,
    /// The server's certificate and the authority's, leaf first, PEM.
    pub chain_pem: String,
    /// The server's private key, PEM. The authority's key is discarded.
    pub private_key_pem: String,
}

/// Creates a certificate for these DNS names and IP addresses, valid for a year from `now`.
///
/// # Errors
/// When a name is not valid in a certificate.
pub fn development_certificate(
    names: &[String],
    now: SystemTime,
) -> Result<DevelopmentCertificate, rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name = common_name("threema-safe-server development authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.not_before = (now - VALID_BEFORE).into();
    authority.not_after = (now + VALID).into();
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name = common_name("threema-safe-server development");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    leaf.not_before = (now - VALID_BEFORE).into();
    leaf.not_after = (now + VALID).into();
    let leaf_pem = leaf.signed_by(&key, &issuer)?.pem();

    Ok(DevelopmentCertificate {
        chain_pem: format!("{leaf_pem}{authority_pem}"),
        authority_pem,
        private_key_pem: key.serialize_pem(),
    })
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
