//! Status of the server as plain data, without account names or backup ids, and the alerts that
//! follow from it.

mod alert;
mod assessment;
mod certificate;
mod run_state;

use serde::{Deserialize, Serialize};

use crate::retention::Report;
use crate::state::{DayOfUploads, Scrubbed};

pub(crate) use alert::Renewal;
pub use alert::{Alert, Finding, Severity};
pub(crate) use assessment::sweep_alerts;
pub use certificate::{AcmeStatus, CertificateStatus, Failure};
pub(crate) use run_state::RunState;

/// The state of a server at one time. Times are Unix times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// When the server was started.
    pub started: u64,
    /// The time of this status.
    pub now: u64,
    /// The last sweep of this run.
    pub sweep: Option<Sweep>,
    /// Seconds since a sweep last completed, or since the start, on the monotonic clock.
    pub seconds_without_sweep: u64,
    /// When a sweep of this run last completed.
    pub last_sweep: Option<u64>,
    /// The last scrub, also of an earlier run.
    pub scrub: Option<Scrubbed>,
    /// The certificate; `None` if a proxy terminates TLS.
    pub certificate: Option<CertificateStatus>,
    /// The state of the storage.
    pub storage: StorageStatus,
    /// The state of the accounts.
    pub accounts: AccountsStatus,
    /// The key of the quota that is used up, so that new backups are refused.
    pub quota_used_up: Option<String>,
    /// Uploads of each of the last thirty days, the oldest first.
    pub uploads: Vec<DayOfUploads>,
    /// The largest allowed backup, in bytes.
    pub max_backup_bytes: u64,
    /// True during a graceful shutdown.
    pub draining: bool,
    /// Why the current configuration file cannot be used; the previous configuration is in force.
    pub config_problem: Option<String>,
    /// Changed keys of the configuration that wait for a restart.
    pub waiting_for_restart: Vec<String>,
}

/// A sweep that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sweep {
    /// When it started.
    pub began: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What it found and did; `None` when it was aborted.
    pub report: Option<Report>,
}

/// The result of a trial write to the storage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// Free space in bytes; `None` where the storage does not report it.
    pub free_bytes: Option<u64>,
    /// Why the storage is not writable.
    pub problem: Option<String>,
    /// What other users of the machine may access, each with its remedy.
    #[serde(default)]
    pub exposed: Vec<String>,
}

/// The state of the accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountsStatus {
    /// True when there is no account, and anonymous access is off.
    pub none: bool,
    /// True when the accounts file cannot be used, and the previous accounts are in force.
    pub bad: bool,
}

impl Status {
    /// The report of the last sweep, if it completed.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.sweep.as_ref()?.report.as_ref()
    }
}
