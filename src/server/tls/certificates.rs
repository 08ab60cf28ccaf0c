//! The certificate that handshakes use: read again when its files were replaced, always together with its key.
//!
//! Files change one after the other, so that for a moment they are no pair: until they are one that can be used, the
//! last good pair stays in force. Where an authority is asked for the certificate (`acme/`), it comes by the same way, and
//! may not be there yet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::TlsFiles;
use crate::error_chain::with_causes;
use crate::file_version::FileVersion;
use crate::server::acme::{Challenges, Progress};
use crate::server::status::CertificateStatus;
use crate::server::tls::leaf::Leaf;
use crate::server::tls::pem as tls;

/// The certificate in force, and what was found wrong with the next one.
pub(crate) struct Certificates {
    files: TlsFiles,
    /// There always is one but where it is still asked for.
    current: ArcSwapOption<Loaded>,
    /// One reload at a time. Holds what is wrong with the files as they are, so that it is found once.
    bad: Mutex<Option<Bad>>,
    reloads: AtomicU64,
    failures: AtomicU64,
    issuing: Option<Issuing>,
}

/// How an authority is asked for it.
struct Issuing {
    challenges: Arc<Challenges>,
    progress: Arc<Progress>,
    /// Whether it was said that a client came before there was a certificate.
    is_told: AtomicBool,
}

/// The certificate and its key, in one state of their files.
type Versions = [Option<FileVersion>; 2];

struct Loaded {
    versions: Versions,
    key: Arc<CertifiedKey>,
    validity: Option<Validity>,
}

struct Bad {
    versions: Versions,
    problem: String,
}

/// From when to when a certificate is valid, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity {
    begins: u64,
    ends: u64,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// As [`tls::load`].
    pub(crate) fn open(files: &TlsFiles) -> Result<Self, tls::Error> {
        let loaded = Loaded::read(files, versions(files))?;
        Ok(Self::with(files.clone(), Some(loaded), None))
    }

    /// Reads the files that an authority's certificate is kept in, if it is there already.
    pub(crate) fn issued(
        files: TlsFiles,
        challenges: Arc<Challenges>,
        progress: Arc<Progress>,
    ) -> Self {
        let issuing = Issuing {
            challenges,
            progress,
            is_told: AtomicBool::new(false),
        };
        // One that cannot be used is found, and told, at the first handshake.
        let loaded = Loaded::read(&files, versions(&files)).ok();
        Self::with(files, loaded, Some(issuing))
    }

    fn with(files: TlsFiles, loaded: Option<Loaded>, issuing: Option<Issuing>) -> Self {
        Self {
            files,
            current: ArcSwapOption::from_pointee(loaded),
            bad: Mutex::new(None),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            issuing,
        }
    }

    /// Whether authorities are answered that ask whether a domain leads here.
    pub(crate) fn answers_challenges(&self) -> bool {
        self.issuing.is_some()
    }

    /// The certificate and key in force now. Reads the files again first if they were replaced.
    fn current(&self) -> Option<Arc<Loaded>> {
        let loaded = self.current.load_full();
        let versions = versions(&self.files);
        let is_current = |loaded: &Option<Arc<Loaded>>| match loaded {
            Some(loaded) => loaded.versions == versions,
            None => versions == [None, None],
        };
        if is_current(&loaded) {
            // Of what was found to be bad, nothing is left.
            return loaded;
        }
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have read them while this thread waited.
        let loaded = self.current.load_full();
        let is_known = bad.as_ref().is_some_and(|bad| bad.versions == versions);
        if is_current(&loaded) || is_known {
            return loaded;
        }
        match Loaded::read(&self.files, versions) {
            Ok(read) => {
                tracing::info!("certificate and private key were read again");
                self.reloads.fetch_add(1, Ordering::Relaxed);
                *bad = None;
                self.current.store(Some(Arc::new(read)));
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "certificate and private key cannot be used; those read before stay in force"
                );
                self.failures.fetch_add(1, Ordering::Relaxed);
                let problem = with_causes(&error);
                *bad = Some(Bad { versions, problem });
            }
        }
        self.current.load_full()
    }

    /// How the certificate is now. Reads the files again first if they were replaced.
    pub(crate) fn status(&self) -> CertificateStatus {
        let loaded = self.current();
        let bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        let now_bad = bad
            .as_ref()
            .filter(|bad| bad.versions == versions(&self.files));
        let validity = loaded.and_then(|loaded| loaded.validity);
        let validity = validity.unwrap_or(Validity { begins: 0, ends: 0 });
        CertificateStatus {
            begins: validity.begins,
            ends: validity.ends,
            problem: now_bad.map(|bad| bad.problem.clone()),
            acme: self.issuing.as_ref().map(|its| its.progress.status()),
        }
    }

    /// How often the files were read again since the start: with success, and without.
    pub(crate) fn reloads(&self) -> [u64; 2] {
        [&self.reloads, &self.failures].map(|count| count.load(Ordering::Relaxed))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(issuing) = &self.issuing
            && Challenges::is_asked(&client_hello)
        {
            return issuing.challenges.answer(client_hello.server_name());
        }
        let current = self.current();
        if let (None, Some(issuing)) = (&current, &self.issuing)
            && !issuing.is_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("a client came and was turned away: there is no certificate yet");
        }
        current.map(|loaded| Arc::clone(&loaded.key))
    }
}

// What is in it is secret.
impl std::fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Certificates")
            .finish_non_exhaustive()
    }
}

impl Loaded {
    fn read(files: &TlsFiles, versions: Versions) -> Result<Self, tls::Error> {
        let key = tls::load(files)?;
        Ok(Self {
            versions,
            validity: Validity::of(&key),
            key: Arc::new(key),
        })
    }
}

impl Validity {
    /// Of the leaf: what else stands in the file may be older, and is not what phones look at. `None` where it cannot
    /// be read, which no handshake minds.
    fn of(key: &CertifiedKey) -> Option<Self> {
        let leaf = Leaf::parse(key.cert.first()?)?;
        Some(Self {
            begins: leaf.not_before,
            ends: leaf.not_after,
        })
    }
}

fn versions(files: &TlsFiles) -> Versions {
    [&files.certificate, &files.private_key].map(|path| FileVersion::of(path))
}
