//! Trusted root certificates: those of the system, and optionally those in a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The root certificates that a client trusts.
#[derive(Debug, Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
}

/// Why the trusted certificates or the HTTP client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file with the certificate authority cannot be read.
    #[error("{}: cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// The file contains no usable certificate in PEM format.
    #[error("{}: contains no usable certificate in PEM format", .0.display())]
    Authority(PathBuf),
    /// The system has no trusted certificates, and no file was given.
    #[error("this system has no trusted certificates; set a certificate authority with --ca FILE")]
    NoRoots,
    /// The HTTP client cannot be set up.
    #[error("TLS cannot be set up")]
    Setup(#[source] reqwest::Error),
}

impl Trust {
    /// The system's trusted certificates and those in the PEM file `authority`.
    ///
    /// # Errors
    /// When `authority` cannot be read or contains no usable certificate, or when there are no
    /// trusted certificates at all.
    pub fn system_and(authority: Option<&Path>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = authority {
            let unusable = || TrustError::Authority(path.to_owned());
            let pem = std::fs::read(path)
                .map_err(|error| TrustError::Unreadable(path.to_owned(), error))?;
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            let certificates = certificates.map_err(|_| unusable())?;
            let (added, _) = roots.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(unusable());
            }
        }
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TrustError::NoRoots);
        }
        Ok(Self {
            roots: Arc::new(roots),
        })
    }

    pub(super) fn client_config(&self) -> ClientConfig {
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider has the suites of TLS 1.2 and 1.3")
                .with_root_certificates(Arc::clone(&self.roots))
                .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}
