//! The certificate that handshakes use: read again when its files were replaced, always together with its key.
//!
//! Files change one after the other, so that for a moment they are no pair: until they are one that can be used, the
//! last good pair stays in force. Where an authority is asked for the certificate (`acme/`), it comes by the same way, and
//! may not be there yet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::acme::{AcmeStatus, Challenges, Progress};
use super::status::Attention;
use super::{tls, with_causes};
use crate::config::TlsFiles;
use crate::file_version::FileVersion;

/// A certificate that ends earlier wants a look.
const SOON: Duration = Duration::from_secs(21 * 24 * 60 * 60);

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

/// How the certificate is. Times are Unix times in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// From when on it is valid.
    pub begins: u64,
    /// Until when it is, or an intermediate of it that ends earlier; 0 where there is none yet.
    pub ends: u64,
    /// Why the files as they are now cannot be used; the certificate that was read before is in force.
    pub problem: Option<String>,
    /// How it stands with the authority; `None` where somebody else renews the files.
    #[serde(default)]
    pub acme: Option<AcmeStatus>,
}

/// How often the files were read again since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reloads {
    pub(crate) good: u64,
    pub(crate) failed: u64,
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

    pub(crate) fn reloads(&self) -> Reloads {
        Reloads {
            good: self.reloads.load(Ordering::Relaxed),
            failed: self.failures.load(Ordering::Relaxed),
        }
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
        let (_, leaf) = X509Certificate::from_der(key.cert.first()?).ok()?;
        let validity = leaf.validity();
        Some(Self {
            begins: u64::try_from(validity.not_before.timestamp()).unwrap_or_default(),
            ends: u64::try_from(validity.not_after.timestamp()).unwrap_or_default(),
        })
    }
}

impl CertificateStatus {
    /// Whether phones accept it at this time.
    #[must_use]
    pub fn is_valid(&self, now: u64) -> bool {
        (self.begins..=self.ends).contains(&now)
    }

    /// What needs a person, in plain words.
    pub(super) fn attention(&self, now: u64) -> Vec<Attention> {
        let mut lines = Vec::new();
        let has_one = self.acme.is_none() || self.ends > 0;
        if let Some(text) = self
            .acme
            .as_ref()
            .and_then(|acme| acme.attention(has_one, now))
        {
            lines.push(if has_one {
                Attention::warning(text)
            } else {
                Attention::critical(text)
            });
        }
        if has_one {
            lines.extend(self.attention_to_time(now));
        }
        if let Some(problem) = &self.problem {
            lines.push(Attention::critical(format!(
                "the certificate's files cannot be used, so the one read before stays in force until it ends: {problem}"
            )));
        }
        lines
    }

    fn attention_to_time(&self, now: u64) -> Option<Attention> {
        let left = self.ends.saturating_sub(now);
        // Certificates that live for a few days are renewed when a third of that is left.
        let soon = SOON
            .as_secs()
            .min(self.ends.saturating_sub(self.begins) / 4);
        if now > self.ends {
            Some(Attention::critical(
                "the certificate has expired: no phone connects",
            ))
        } else if now < self.begins {
            Some(Attention::critical(
                "the certificate is not valid yet: no phone connects",
            ))
        } else if left < soon {
            let hours = left / 3_600;
            let left = if hours < 48 {
                format!("{hours} hours")
            } else {
                format!("{} days", hours / 24)
            };
            // Where an authority is asked for it, it should have been renewed long ago.
            let remedy = if self.acme.is_none() {
                "; renew it"
            } else {
                ""
            };
            let text = format!("the certificate ends in {left}{remedy}");
            Some(Attention::warning(text))
        } else {
            None
        }
    }
}

fn versions(files: &TlsFiles) -> Versions {
    [&files.certificate, &files.private_key].map(|path| FileVersion::of(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn texts(status: &CertificateStatus, now: u64) -> Vec<String> {
        let lines = status.attention(now).into_iter();
        lines.map(|line| line.text).collect()
    }

    fn lines(days_valid: u64, seconds_left: u64) -> Vec<String> {
        let status = CertificateStatus {
            begins: 100,
            ends: 100 + days_valid * DAY,
            problem: None,
            acme: None,
        };
        texts(&status, status.ends - seconds_left)
    }

    #[test]
    fn a_certificate_that_ends_soon_wants_a_look() {
        assert!(lines(90, 21 * DAY).is_empty());
        assert_eq!(
            lines(90, 21 * DAY - 1),
            ["the certificate ends in 20 days; renew it"]
        );
        assert!(lines(6, 36 * 3_600).is_empty());
        assert_eq!(
            lines(6, 36 * 3_600 - 1),
            ["the certificate ends in 35 hours; renew it"]
        );
    }

    #[test]
    fn a_certificate_that_is_still_asked_for_has_not_expired() {
        let status = CertificateStatus {
            begins: 0,
            ends: 0,
            problem: None,
            acme: Some(AcmeStatus::default()),
        };

        let lines = texts(&status, 100);

        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("there is no certificate yet"),
            "{lines:?}"
        );
        assert!(!status.is_valid(100));
    }

    #[test]
    fn outside_its_time_no_phone_connects() {
        let status = CertificateStatus {
            begins: 100,
            ends: 200,
            problem: Some("why".into()),
            acme: None,
        };
        for (now, expected) in [(99, "not valid yet"), (201, "has expired")] {
            assert!(!status.is_valid(now));
            let lines = texts(&status, now);
            assert!(lines[0].contains(expected), "{lines:?}");
            assert!(lines[1].ends_with("until it ends: why"), "{lines:?}");
        }
        assert!(status.is_valid(100) && status.is_valid(200));
    }
}
