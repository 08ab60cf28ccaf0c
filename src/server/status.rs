//! How the server is: what the status and the metrics tell whoever runs it. No identity is in it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::certificates::{CertificateStatus, Certificates};
use super::limit::{Limit, Refusals};
use super::metrics::{Metrics, Requests, Traffic};
use super::uploads::Uploads;
use crate::account::HashCounts;
use crate::retention::Report;
use crate::state::{DayOfUploads, Scrubbed, unix};

/// Less free space wants a look.
const LITTLE_SPACE: u64 = 1 << 30;
/// There is a sweep every hour; so many without one, and something is wrong.
const STALE_HOURS: u64 = 3;

/// How a server is, at one time. Times are Unix times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// How long ago a sweep last went through, or the server was started. Not by the clock, which may jump.
    pub seconds_without_sweep: u64,
    /// When a sweep of this run last went through.
    pub last_sweep: Option<u64>,
    /// The last scrub, also of an earlier run.
    pub scrub: Option<Scrubbed>,
    /// The certificate; `None` where a proxy has it.
    pub certificate: Option<CertificateStatus>,
    /// How the storage is.
    pub storage: StorageStatus,
    /// How accounts are.
    pub accounts: AccountsStatus,
    /// The quota that is used up, so that no new backup is taken.
    pub quota_used_up: Option<String>,
    /// Uploads of the last thirty days, the oldest first, today's last.
    pub uploads: Vec<DayOfUploads>,
    /// The size that is allowed for one backup.
    pub max_backup_bytes: u64,
    /// Whether the server was told to stop.
    pub draining: bool,
    /// Why the configuration as it is now cannot be used; the one read before is in force.
    pub config_problem: Option<String>,
    /// Keys whose change waits for a restart.
    pub waiting_for_restart: Vec<String>,
}

/// How a sweep ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sweep {
    /// When it began.
    pub began: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What it found and did; `None` when it broke off.
    pub report: Option<Report>,
}

/// What was found when the storage was tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// How many bytes more can be stored; `None` where the storage does not know.
    pub free_bytes: Option<u64>,
    /// Why nothing can be written.
    pub problem: Option<String>,
}

/// Who could come in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountsStatus {
    /// Nobody: there is no account.
    pub none: bool,
    /// The accounts file cannot be used, and the accounts that were read before are in force.
    pub bad: bool,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Somebody should look; phones are served.
    Warning,
    /// Phones are not served, or soon will not be.
    Critical,
}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attention {
    /// How bad it is.
    pub severity: Severity,
    /// What it is and what to do, in plain words.
    pub text: String,
}

impl Attention {
    pub(super) fn warning(text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            text: text.into(),
        }
    }

    pub(super) fn critical(text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Critical,
            text: text.into(),
        }
    }
}

impl Status {
    /// What the last sweep found, if it went through.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.sweep.as_ref()?.report.as_ref()
    }

    /// Whether phones can be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let is_critical = |line: &Attention| line.severity == Severity::Critical;
        !self.draining && !self.attention().iter().any(is_critical)
    }

    /// What needs a person, the worst first.
    #[must_use]
    pub fn attention(&self) -> Vec<Attention> {
        let mut lines = Vec::new();
        if self.draining {
            lines.push(Attention::warning("the server was told to stop"));
        }
        if let Some(certificate) = &self.certificate {
            lines.extend(certificate.attention(self.now));
        }
        self.look_at_storage(&mut lines);
        self.look_at_config(&mut lines);
        self.look_at_accounts(&mut lines);
        self.look_at_sweep(&mut lines);
        if let Some(report) = self.report() {
            look_at_report(report, &mut lines);
        }
        if let Some(scrub) = self.scrub.filter(|scrub| scrub.findings() > 0) {
            lines.push(Attention::warning(format!(
                "{} backups are damaged ({} too short, {} changed, {} unreadable); `scrub` says which",
                scrub.findings(),
                scrub.short,
                scrub.changed,
                scrub.unreadable
            )));
        }
        lines.sort_by_key(|line| std::cmp::Reverse(line.severity));
        lines
    }

    fn look_at_storage(&self, lines: &mut Vec<Attention>) {
        if let Some(problem) = &self.storage.problem {
            lines.push(Attention::critical(format!(
                "the storage cannot be written to, so no backup is stored: {problem}"
            )));
        }
        let Some(free) = self.storage.free_bytes else {
            return;
        };
        // One upload, and what it replaces.
        let enough = self.max_backup_bytes.saturating_mul(2);
        if free < enough {
            lines.push(Attention::critical(
                "the disk is full: no backup is stored; make room",
            ));
        } else if free < LITTLE_SPACE {
            lines.push(Attention::warning(format!(
                "the disk is nearly full: {} MiB are left",
                free >> 20
            )));
        }
    }

    fn look_at_accounts(&self, lines: &mut Vec<Attention>) {
        if self.accounts.none {
            lines.push(Attention::critical(
                "there is no account, so no phone comes in; `account add NAME` adds one",
            ));
        }
        if self.accounts.bad {
            lines.push(Attention::warning(
                "the accounts file cannot be used, so those read before stay in force until a restart, which would fail; \
                 the log says why",
            ));
        }
        if let Some(quota) = &self.quota_used_up {
            lines.push(Attention::warning(format!(
                "quotas.{quota} is used up: new phones are refused, the others renew their backups"
            )));
        }
    }

    fn look_at_config(&self, lines: &mut Vec<Attention>) {
        if let Some(problem) = &self.config_problem {
            lines.push(Attention::warning(format!(
                "the configuration cannot be used, so the one read before stays in force: {problem}"
            )));
        }
        if !self.waiting_for_restart.is_empty() {
            lines.push(Attention::warning(format!(
                "changes of the configuration wait for a restart: {}",
                self.waiting_for_restart.join(", ")
            )));
        }
    }

    fn look_at_sweep(&self, lines: &mut Vec<Attention>) {
        let hours = self.seconds_without_sweep / 3_600;
        if hours >= STALE_HOURS {
            lines.push(Attention::critical(format!(
                "no sweep has gone through for {hours} hours: nothing expires, and nothing is counted; the log says why"
            )));
        } else if self.sweep.is_some() && self.report().is_none() {
            lines.push(Attention::warning(
                "the last sweep broke off; the log says why",
            ));
        }
    }
}

fn look_at_report(report: &Report, lines: &mut Vec<Attention>) {
    if let Some(reason) = report.refused {
        lines.push(Attention::warning(format!(
            "nothing was removed: {reason}; if this is right, `prune --force` removes it"
        )));
    }
    if let Some(burst) = report.trash_held {
        lines.push(Attention::warning(format!(
            "{} of {} backups were deleted within a day, so nothing is erased from the trash: look whether a setting \
             in the MDM is wrong, then `trash restore` or `trash confirm`",
            burst.removed, burst.of
        )));
    }
    match report.failed {
        0 => {}
        1 => lines.push(Attention::warning(
            "1 file could not be removed; the log says why",
        )),
        many => lines.push(Attention::warning(format!(
            "{many} files could not be removed; the log says why"
        ))),
    }
    match report.sizes.over_80_percent() {
        0 => {}
        large => lines.push(Attention::warning(format!(
            "{large} backups use more than 80 % of maxBackupBytes: an app whose backup grows beyond it uploads no more, \
             and tells nobody; raise it"
        ))),
    }
}

/// What a running server knows of itself.
pub(crate) struct Vitals {
    started: SystemTime,
    begun: Instant,
    known: Mutex<Known>,
    certificates: Option<Arc<Certificates>>,
    uploads: Uploads,
    max_backup_bytes: AtomicU64,
    draining: AtomicBool,
    metrics: Metrics,
}

#[derive(Default)]
struct Known {
    sweep: Option<Sweep>,
    last_sweep: Option<u64>,
    swept: Option<Instant>,
    scrub: Option<Scrubbed>,
    config_problem: Option<String>,
    waiting_for_restart: Vec<String>,
}

impl Vitals {
    pub(crate) fn new(started: SystemTime) -> Self {
        Self {
            started,
            begun: Instant::now(),
            known: Mutex::default(),
            certificates: None,
            uploads: Uploads::default(),
            max_backup_bytes: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            metrics: Metrics::new(unix(started)),
        }
    }

    /// Knows of the certificates that handshakes use, and of the size that is allowed for one backup.
    pub(crate) fn with(
        self,
        certificates: Option<Arc<Certificates>>,
        max_backup_bytes: usize,
    ) -> Self {
        Self {
            certificates,
            max_backup_bytes: AtomicU64::new(max_backup_bytes as u64),
            ..self
        }
    }

    /// One backup may have so many bytes from now on.
    pub(crate) fn allow(&self, max_backup_bytes: usize) {
        self.max_backup_bytes
            .store(max_backup_bytes as u64, Ordering::Relaxed);
    }

    /// Another configuration is in force, but for these keys.
    pub(crate) fn reloaded(&self, waiting: &[&str]) {
        self.metrics.config_reloaded("done");
        let mut known = self.known();
        known.config_problem = None;
        known.waiting_for_restart = waiting.iter().map(|&key| key.to_owned()).collect();
    }

    /// The configuration could not be read again.
    pub(crate) fn not_reloaded(&self, problem: String) {
        self.metrics.config_reloaded("failed");
        self.known().config_problem = Some(problem);
    }

    /// The server was told to stop.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts uploads.
    pub(crate) fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// A sweep ended; without a report it broke off.
    pub(crate) fn swept(&self, began: SystemTime, took: Duration, report: Option<Report>) {
        self.metrics.swept(unix(began), report.as_ref());
        let mut known = self.known();
        if report.is_some() {
            known.last_sweep = Some(unix(began));
            known.swept = Some(Instant::now());
        }
        known.sweep = Some(Sweep {
            began: unix(began),
            seconds: took.as_secs_f64(),
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
    pub(crate) fn hashed(&self, hashed: HashCounts) {
        self.metrics.hashed(hashed);
    }

    /// How the server is; of the storage, only who tries it knows.
    pub(crate) fn status(&self, now: SystemTime) -> Status {
        let known = self.known();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: unix(self.started),
            now: unix(now),
            sweep: known.sweep.clone(),
            last_sweep: known.last_sweep,
            storage: StorageStatus::default(),
            accounts: AccountsStatus::default(),
            quota_used_up: None,
            seconds_without_sweep: known.swept.unwrap_or(self.begun).elapsed().as_secs(),
            uploads: self.uploads.last_days(now),
            max_backup_bytes: self.max_backup_bytes.load(Ordering::Relaxed),
            draining: self.is_draining(),
            config_problem: known.config_problem.clone(),
            waiting_for_restart: known.waiting_for_restart.clone(),
            scrub: known.scrub,
            certificate: self.certificates.as_ref().map(|its| its.status()),
        }
    }

    /// Counts who is refused, for whoever refuses.
    pub(crate) fn refusals(&self) -> Refusals {
        self.metrics.refusals()
    }

    /// Counts requests, for whoever answers them.
    pub(crate) fn requests(&self) -> &Requests {
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

    /// The metrics in Prometheus' text, of a server that is like this.
    pub(crate) fn metrics_of(&self, status: &Status) -> String {
        self.metrics.health(status);
        self.metrics()
    }

    /// The metrics in Prometheus' text, but for how the server is.
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
