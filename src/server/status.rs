//! How the server is: what the status and the metrics tell whoever runs it. No identity is in it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};

use super::certificates::{CertificateStatus, Certificates};
use super::limit::{Limit, Refusals};
use super::metrics::{Metrics, Requests, Traffic};
use crate::account::Hashed;
use crate::retention::Report;
use crate::state::{Scrubbed, unix};

/// How a server is, at one time. Times are Unix times in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// When it was started.
    pub started: u64,
    /// When this was said.
    pub now: u64,
    /// The last sweep of this run.
    pub sweep: Option<Sweep>,
    /// The last scrub, also of an earlier run.
    pub scrub: Option<Scrubbed>,
    /// The certificate; `None` where a proxy has it.
    pub certificate: Option<CertificateStatus>,
}

/// How a sweep ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sweep {
    /// When it began.
    pub began: u64,
    /// What it found and did; `None` when it broke off.
    pub report: Option<Report>,
}

impl Status {
    /// What needs a person, in plain words.
    #[must_use]
    pub fn attention(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(certificate) = &self.certificate {
            lines.extend(certificate.attention(self.now));
        }
        match self.sweep.as_ref().map(|sweep| &sweep.report) {
            Some(None) => {
                lines.push("the last sweep broke off; the log says why".to_owned());
            }
            Some(Some(report)) => {
                if let Some(reason) = report.refused {
                    lines.push(format!(
                        "nothing was removed: {reason}; if this is right, `prune --force` removes it"
                    ));
                }
                if let Some(burst) = report.trash_held {
                    lines.push(format!(
                        "{} of {} backups were deleted within a day, so nothing is erased from the trash: look whether \
                         a setting in the MDM is wrong, then `trash restore` or `trash confirm`",
                        burst.removed, burst.of
                    ));
                }
                if report.failed > 0 {
                    lines.push(format!(
                        "{} files could not be removed; the log says why",
                        report.failed
                    ));
                }
            }
            None => {}
        }
        if let Some(scrub) = self.scrub.filter(|scrub| scrub.findings() > 0) {
            lines.push(format!(
                "{} backups are damaged ({} too short, {} changed, {} unreadable); `scrub` says which",
                scrub.findings(),
                scrub.short,
                scrub.changed,
                scrub.unreadable
            ));
        }
        lines
    }
}

/// What a running server knows of itself.
pub(crate) struct Vitals {
    started: SystemTime,
    known: Mutex<Known>,
    certificates: Option<Arc<Certificates>>,
    metrics: Metrics,
}

#[derive(Default)]
struct Known {
    sweep: Option<Sweep>,
    scrub: Option<Scrubbed>,
}

impl Vitals {
    pub(crate) fn new(started: SystemTime) -> Self {
        Self {
            started,
            known: Mutex::default(),
            certificates: None,
            metrics: Metrics::new(unix(started)),
        }
    }

    /// Knows of the certificates that handshakes use.
    pub(crate) fn with(self, certificates: Option<Arc<Certificates>>) -> Self {
        Self {
            certificates,
            ..self
        }
    }

    /// A sweep ended; without a report it broke off.
    pub(crate) fn swept(&self, began: SystemTime, report: Option<Report>) {
        self.metrics.swept(unix(began), report.as_ref());
        self.known().sweep = Some(Sweep {
            began: unix(began),
            report,
        });
    }

    /// A scrub ended, now or in an earlier run.
    pub(crate) fn scrubbed(&self, scrubbed: Scrubbed) {
        self.metrics.scrubbed(scrubbed);
        self.known().scrub = Some(scrubbed);
    }

    /// A request was refused because of a limit.
    pub(super) fn refused(&self, limit: Limit) {
        self.metrics.refusals().count(limit);
    }

    /// A check of a password had to wait.
    pub(crate) fn password_delayed(&self) {
        self.metrics.password_delayed();
    }

    /// So many passwords were hashed since the start.
    pub(crate) fn hashed(&self, hashed: Hashed) {
        self.metrics.hashed(hashed);
    }

    pub(crate) fn status(&self, now: SystemTime) -> Status {
        let known = self.known();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: unix(self.started),
            now: unix(now),
            sweep: known.sweep.clone(),
            scrub: known.scrub,
            certificate: self.certificates.as_ref().map(|its| its.status()),
        }
    }

    /// Counts who is refused, for whoever refuses.
    pub(crate) fn refusals(&self) -> Refusals {
        self.metrics.refusals()
    }

    /// Counts requests, for whoever answers them.
    pub(crate) fn requests(&self) -> Arc<Requests> {
        self.metrics.requests()
    }

    /// Counts connections, for whoever serves them.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        self.metrics.traffic()
    }

    /// The storage failed at what it was to do for a request.
    pub(crate) fn storage_failed(&self, operation: &'static str) {
        self.metrics.storage_failed(operation);
    }

    /// Counts panics.
    pub(super) fn panics(&self) -> Counter {
        self.metrics.panics()
    }

    /// The metrics in Prometheus' text.
    pub(crate) fn metrics(&self) -> String {
        if let Some(certificates) = &self.certificates {
            self.metrics
                .certificate(&certificates.status(), certificates.reloads());
        }
        self.metrics.text()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Whoever panicked while holding it left whole values.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
