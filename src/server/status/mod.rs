//! The server's status as plain data, without identities, and the alerts that follow from it.

mod alert;
mod certificate;
mod run_state;

use serde::{Deserialize, Serialize};

use crate::retention::Report;
use crate::state::{DayOfUploads, Scrubbed};

pub use alert::{Alert, Severity};
pub use certificate::{AcmeStatus, CertificateStatus, Failure};
pub(crate) use run_state::RunState;

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

impl Status {
    /// What the last sweep found, if it went through.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.sweep.as_ref()?.report.as_ref()
    }
}
