//! Certificate status: the certificate in force and the state of its ACME orders, as plain data.

use serde::{Deserialize, Serialize};

/// The certificate in force. Times are Unix times in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// When its validity begins.
    pub begins: u64,
    /// When its validity ends; 0 if there is no certificate yet.
    pub ends: u64,
    /// Why the current files cannot be used; the previously read certificate stays in force.
    pub problem: Option<String>,
    /// The ACME orders; `None` if the operator renews the files.
    #[serde(default)]
    pub acme: Option<AcmeStatus>,
}

impl CertificateStatus {
    /// True if `now`, a Unix time in seconds, is within the validity.
    #[must_use]
    pub fn is_valid(&self, now: u64) -> bool {
        (self.begins..=self.ends).contains(&now)
    }
}

/// Orders for a certificate (ACME). Times are Unix times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcmeStatus {
    /// True while an order is in progress.
    pub is_ordering: bool,
    /// When the next order is due: the renewal, or the next attempt after a failure.
    pub next_order: u64,
    /// Orders since the start that succeeded.
    pub issued: u64,
    /// Orders since the start that failed.
    pub failed: u64,
    /// How the last order failed, also in an earlier run; `None` when it succeeded.
    pub failure: Option<Failure>,
}

/// Consecutive failed orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The number of consecutive failures.
    pub times: u32,
    /// When the last one failed.
    pub last: u64,
    /// Why the last one failed.
    pub reason: String,
}
