//! PEM files with certificates and private keys (RFC 7468).

use std::io;
use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::TlsFiles;
use crate::private_file::Exposure;

/// Why certificate and private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM, or does not contain what is expected.
    #[error("{} holds no {expected} in PEM form", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is expected in the file: `certificate` or `private key`.
        expected: &'static str,
    },
    /// The private key can be read by others than its owner and group, or changed by others than
    /// its owner.
    #[error("{}: {exposure}", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// The permissions that are too wide.
        exposure: Exposure,
    },
    /// Certificate and key do not match, or the key is of an unknown kind.
    #[error("the private key cannot be used with the certificate")]
    Mismatch(#[source] rustls::Error),
}

/// Reads the certificate chain, leaf first.
///
/// # Errors
/// When the file cannot be read or contains no certificate.
pub fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let expected = "certificate";
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| from_pem(path, expected, error))?;
    if certificates.is_empty() {
        return Err(Error::Pem {
            path: path.to_owned(),
            expected,
        });
    }
    Ok(certificates)
}

/// Reads the private key.
///
/// # Errors
/// When the file cannot be read, other users can access it, or it contains no private key.
fn load_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    if let Ok(Some(exposure)) = Exposure::of(path) {
        return Err(Error::Exposed {
            path: path.to_owned(),
            exposure,
        });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| from_pem(path, "private key", error))
}

/// Reads certificate chain and private key, and checks that they match.
///
/// # Errors
/// When a file cannot be read, other users can access the key, or certificate and key do not match.
pub fn load(files: &TlsFiles) -> Result<CertifiedKey, Error> {
    let certificates = load_certificates(&files.certificate)?;
    let private_key = load_private_key(&files.private_key)?;
    CertifiedKey::from_der(certificates, private_key, &aws_lc_rs::default_provider())
        .map_err(Error::Mismatch)
}

/// Parses a certificate chain and its private key from PEM; `None` if they cannot be parsed or do
/// not match.
pub(crate) fn pair(chain: &[u8], private_key: &[u8]) -> Option<CertifiedKey> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let private_key = PrivateKeyDer::from_pem_slice(private_key).ok()?;
    CertifiedKey::from_der(chain.ok()?, private_key, &aws_lc_rs::default_provider()).ok()
}

fn from_pem(path: &Path, expected: &'static str, error: pem::Error) -> Error {
    let path = path.to_owned();
    if let pem::Error::Io(source) = error {
        Error::Read { path, source }
    } else {
        Error::Pem { path, expected }
    }
}
