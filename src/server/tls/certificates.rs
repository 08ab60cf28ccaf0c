//! Certificate and private key in force, reloaded together when their files are replaced.
//!
//! The two files are replaced one after the other, so that for a moment they do not match: the last
//! matching pair stays in force until they do.

use std::path::Path;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::TlsFiles;
use crate::reloaded::{FileSource, Reloaded};
use crate::server::status::CertificateStatus;
use crate::server::tls::leaf::Leaf;
use crate::server::tls::pem;

/// The certificate in force, and the files that it is reloaded from.
pub(crate) struct Certificates {
    files: Arc<Reloaded<CertificateFiles>>,
}

/// The paths of certificate and private key, as a source of [`Reloaded`].
pub(crate) struct CertificateFiles(TlsFiles);

/// A certificate chain and its private key.
pub(crate) struct Loaded {
    key: Arc<CertifiedKey>,
    validity: Option<Validity>,
}

/// The validity of a certificate, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity {
    begins: u64,
    ends: u64,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// As [`pem::load`].
    pub(crate) fn open(files: &TlsFiles) -> Result<Self, pem::Error> {
        let files = Reloaded::open(CertificateFiles(files.clone()))?;
        Ok(Self {
            files: Arc::new(files),
        })
    }

    /// Reads the files. If they cannot be used, there is no certificate until they can; the next
    /// refresh reports the reason.
    pub(crate) fn open_or_wait(files: &TlsFiles) -> Self {
        Self::open(files).unwrap_or_else(|_| Self {
            files: Arc::new(Reloaded::without_files(
                CertificateFiles(files.clone()),
                None,
            )),
        })
    }

    /// The files, for their refresh: a change is in force only after it.
    pub(crate) fn files(&self) -> &Arc<Reloaded<CertificateFiles>> {
        &self.files
    }

    /// The certificate and private key in force; `None` if none has been read yet.
    pub(crate) fn current(&self) -> Option<Arc<CertifiedKey>> {
        let loaded = self.files.current();
        Some(Arc::clone(&Option::as_ref(&loaded)?.key))
    }

    /// The validity of the certificate in force, and why its files could not be used at the last
    /// check.
    pub(crate) fn status(&self) -> CertificateStatus {
        let loaded = self.files.current();
        let validity = Option::as_ref(&loaded).and_then(|loaded| loaded.validity);
        let validity = validity.unwrap_or(Validity { begins: 0, ends: 0 });
        CertificateStatus {
            begins: validity.begins,
            ends: validity.ends,
            problem: self.files.problem().map(|problem| String::clone(&problem)),
            acme: None,
        }
    }
}

impl FileSource for CertificateFiles {
    type Value = Option<Loaded>;
    type Error = pem::Error;

    fn files(&self) -> Vec<&Path> {
        vec![&self.0.certificate, &self.0.private_key]
    }

    fn read(&self) -> Result<Option<Loaded>, pem::Error> {
        let key = pem::load(&self.0)?;
        Ok(Some(Loaded {
            validity: Validity::of(&key),
            key: Arc::new(key),
        }))
    }

    fn reloaded(&self, _: &Option<Loaded>, _: &Option<Loaded>) {
        tracing::info!("certificate reloaded");
    }

    fn failed(&self, error: &pem::Error) {
        tracing::error!(
            error = error as &dyn std::error::Error,
            "certificate reload failed; previous certificate stays in force"
        );
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

// Without the fields, which contain a private key.
impl std::fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Certificates")
            .finish_non_exhaustive()
    }
}

impl Validity {
    /// Validity of the leaf certificate; that of intermediates may be longer. `None` if the leaf
    /// cannot be parsed, which a handshake does not require.
    fn of(key: &CertifiedKey) -> Option<Self> {
        let leaf = Leaf::parse(key.cert.first()?)?;
        Some(Self {
            begins: leaf.not_before,
            ends: leaf.not_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::durable;
    use crate::server::tls::self_signed::{DevelopmentCertificate, development_certificate};

    fn made() -> DevelopmentCertificate {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        development_certificate(&["localhost".into()], now).unwrap()
    }

    fn files(folder: &Path) -> TlsFiles {
        TlsFiles {
            certificate: folder.join("chain"),
            private_key: folder.join("key"),
        }
    }

    fn leaf(certificates: &Certificates) -> Vec<u8> {
        certificates.current().unwrap().cert[0].to_vec()
    }

    #[tokio::test]
    async fn certificate_and_key_are_replaced_as_a_pair() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let (one, other) = (made(), made());
        durable::replace(&files.certificate, one.chain_pem.as_bytes()).unwrap();
        durable::replace(&files.private_key, one.private_key_pem.as_bytes()).unwrap();
        let certificates = Certificates::open(&files).unwrap();
        let before = leaf(&certificates);

        durable::replace(&files.private_key, other.private_key_pem.as_bytes()).unwrap();
        for _ in 0..3 {
            certificates.files().refresh().await;
            assert_eq!(leaf(&certificates), before);
            assert!(certificates.status().problem.is_some());
            assert_eq!(certificates.files().reloads(), [0, 1]);
        }
        durable::replace(&files.certificate, other.chain_pem.as_bytes()).unwrap();
        certificates.files().refresh().await;

        assert_ne!(leaf(&certificates), before);
        assert_eq!(certificates.status().problem, None);
        assert_eq!(certificates.files().reloads(), [1, 1]);
    }

    #[tokio::test]
    async fn a_missing_certificate_is_no_problem_and_an_unusable_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let certificates = Certificates::open_or_wait(&files);
        certificates.files().refresh().await;
        let status = certificates.status();
        assert_eq!((status.ends, status.problem), (0, None));
        assert!(certificates.current().is_none());

        durable::replace(&files.certificate, b"what is this?").unwrap();
        certificates.files().refresh().await;
        assert!(certificates.status().problem.is_some());
        fs::remove_file(&files.certificate).unwrap();
        let made = made();
        durable::replace(&files.private_key, made.private_key_pem.as_bytes()).unwrap();
        durable::replace(&files.certificate, made.chain_pem.as_bytes()).unwrap();
        certificates.files().refresh().await;

        let status = certificates.status();
        assert!(certificates.current().is_some() && status.ends > 0);
        assert_eq!(status.problem, None);
    }
}
