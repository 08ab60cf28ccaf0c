//! The certificate in force and the state of its ACME orders, as plain data.

use serde::{Deserialize, Serialize};

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

impl CertificateStatus {
    /// Whether phones accept it at this time.
    #[must_use]
    pub fn is_valid(&self, now: u64) -> bool {
        (self.begins..=self.ends).contains(&now)
    }
}

/// How it stands with the orders for a certificate. Times are Unix times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcmeStatus {
    /// Whether an order is under way.
    pub is_ordering: bool,
    /// When the next order begins: the renewal, or after a failure the next attempt.
    pub next_order: u64,
    /// Orders since the start that brought a certificate.
    pub issued: u64,
    /// Orders since the start that did not.
    pub failed: u64,
    /// How the last order failed, also one of an earlier run; `None` when it did not.
    pub failure: Option<Failure>,
}

/// Orders that failed, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// How many.
    pub times: u32,
    /// When the last one did.
    pub last: u64,
    /// Why, in plain words.
    pub reason: String,
}
