//! From PEM files to a TLS configuration that every phone accepts: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1
//! by ALPN.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::TlsFiles;
use crate::private_file::Exposure;
use crate::server::acme;
use crate::server::tls::certificates::Certificates;

/// ALPN name of HTTP/2.
pub(crate) const HTTP_2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1.
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM, or has nothing of what it should hold.
    #[error("{} holds no {expected} in PEM form", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// Others than its owner and its group can read the private key, or others than its owner can change it.
    #[error("{}: {exposure}", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Who may do what.
        exposure: Exposure,
    },
    /// Certificate and key do not go together, or the key is of an unknown kind.
    #[error("the private key cannot be used with the certificate")]
    Mismatch(#[source] rustls::Error),
}

/// Reads the certificate chain, leaf first.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
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
/// When the file cannot be read, is open to others, or holds no private key.
fn load_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    if let Ok(Some(exposure)) = Exposure::of(path) {
        return Err(Error::Exposed {
            path: path.to_owned(),
            exposure,
        });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| from_pem(path, "private key", error))
}

/// Reads both and makes sure that they are a pair.
///
/// # Errors
/// When a file cannot be read, the key is open to others, or they are no pair.
pub fn load(files: &TlsFiles) -> Result<CertifiedKey, Error> {
    let certificates = load_certificates(&files.certificate)?;
    let private_key = load_private_key(&files.private_key)?;
    CertifiedKey::from_der(certificates, private_key, &aws_lc_rs::default_provider())
        .map_err(Error::Mismatch)
}

/// A chain and its key from PEM; `None` where they are none, or no pair.
pub(crate) fn pair(chain: &[u8], private_key: &[u8]) -> Option<CertifiedKey> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let private_key = PrivateKeyDer::from_pem_slice(private_key).ok()?;
    CertifiedKey::from_der(chain.ok()?, private_key, &aws_lc_rs::default_provider()).ok()
}

/// The configuration of the public listener.
///
/// Without session tickets: iOS makes a new session for every operation and Android comes once a day, so
/// that resumption saves nothing, and a ticket is one secret more.
pub(crate) fn server_config(certificates: Arc<Certificates>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1_1.to_vec()];
    if certificates.answers_challenges() {
        config.alpn_protocols.push(acme::ALPN.to_vec());
    }
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn from_pem(path: &Path, expected: &'static str, error: pem::Error) -> Error {
    let path = path.to_owned();
    if let pem::Error::Io(source) = error {
        Error::Read { path, source }
    } else {
        Error::Pem { path, expected }
    }
}
