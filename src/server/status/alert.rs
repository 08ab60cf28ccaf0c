//! Alerts and their severity, with the thresholds and texts that all reports of the server's health
//! share.
//!
//! `status`, `/readyz`, the metrics and the status page assess a running server
//! ([`super::assessment`]); `check` assesses a configuration. Assessments that both make are here,
//! so that the two cannot differ.

use indicatif::BinaryBytes;
use serde::{Deserialize, Serialize};

use crate::retention::Refusal;
use crate::time::{DAY, HOUR, HumanSeconds};

/// Free space below this number of bytes is a warning.
const LOW_FREE_SPACE: u64 = 1 << 30;
/// Remaining validity below this number of seconds is a warning; for short-lived certificates,
/// below a quarter of their lifetime.
const EXPIRES_SOON: u64 = 21 * DAY;
/// Seconds without a completed sweep that are critical. Sweeps run every hour.
const STALE_SWEEP: u64 = 3 * HOUR;

/// The severity of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// No action is needed.
    Good,
    /// An operator should act; clients are served.
    Warning,
    /// Clients are not served, or soon will not be.
    Critical,
}

impl Severity {
    /// The severity in one word, as in JSON.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A state and its severity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// The severity.
    pub severity: Severity,
    /// What was found, and the remedy.
    pub text: String,
}

/// An alert about one key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The key, such as `tls.certificateFile`.
    pub key: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub alert: Alert,
}

/// How a certificate is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// By the server itself (ACME).
    Automatic,
    /// By the operator, who replaces the files.
    Manual,
}

impl Alert {
    /// An alert that needs no action.
    pub(super) fn good(text: impl Into<String>) -> Self {
        Self::new(Severity::Good, text)
    }

    /// A warning.
    pub(super) fn warning(text: impl Into<String>) -> Self {
        Self::new(Severity::Warning, text)
    }

    /// A critical alert.
    pub(super) fn critical(text: impl Into<String>) -> Self {
        Self::new(Severity::Critical, text)
    }

    /// An alert of this severity.
    pub(crate) fn new(severity: Severity, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { severity, text }
    }

    /// Assesses the validity of a certificate. `begins`, `ends` and `now` are Unix times in
    /// seconds.
    pub(crate) fn certificate_validity(begins: u64, ends: u64, now: u64, renewal: Renewal) -> Self {
        // With ACME, failed orders have an alert of their own.
        let remedy = match renewal {
            Renewal::Automatic => "",
            Renewal::Manual => "; renew it",
        };
        let left = ends.saturating_sub(now);
        if now > ends {
            Self::critical(format!(
                "the certificate has expired, so clients reject it{remedy}"
            ))
        } else if now < begins {
            Self::critical(
                "the certificate is not valid yet, so clients reject it; check the system clock",
            )
        } else if left < EXPIRES_SOON.min(ends.saturating_sub(begins) / 4) {
            let left = HumanSeconds(left);
            Self::warning(format!("the certificate expires in {left}{remedy}"))
        } else {
            let left = HumanSeconds(left);
            Self::good(format!("the certificate is valid for another {left}"))
        }
    }

    /// Assesses the free space of the storage.
    pub(crate) fn free_space(free_bytes: u64, max_backup_bytes: u64) -> Self {
        // Space for an upload and for the backup that it replaces.
        let least = max_backup_bytes.saturating_mul(2);
        let free = BinaryBytes(free_bytes);
        if free_bytes < least {
            Self::critical(format!(
                "the disk is full ({free} left), so uploads fail; free some space"
            ))
        } else if free_bytes < LOW_FREE_SPACE {
            Self::warning(format!(
                "the disk is nearly full: {free} left; free some space"
            ))
        } else {
            Self::good(format!("{free} free"))
        }
    }

    /// The storage cannot be written to.
    pub(crate) fn storage_failure(problem: &str) -> Self {
        Self::critical(format!(
            "the storage is not writable, so uploads fail: {problem}"
        ))
    }

    /// Other users of the machine may access a part of the storage.
    pub(crate) fn exposed(exposure: &str) -> Self {
        Self::warning(exposure)
    }

    /// The accounts file is empty, and anonymous access is off.
    pub(crate) fn no_accounts() -> Self {
        Self::critical(
            "the accounts file contains no accounts, so every client is rejected; run `account add NAME`",
        )
    }

    /// Why sweeps remove nothing.
    pub(crate) fn sweep_refused(reason: Refusal) -> Self {
        let remedy = reason.remedy();
        Self::warning(format!("the sweep removed nothing: {reason}; {remedy}"))
    }

    /// The state was not valid, and was or will be replaced.
    pub(crate) fn invalid_state() -> Self {
        Self::warning(
            "the state was not valid, so earlier times and a longer earlier retention are not known; it is kept \
             aside as state.json.invalid",
        )
    }

    /// Assesses the seconds since a sweep last completed; `None` if they need no action.
    pub(super) fn stale_sweep(seconds_without: u64) -> Option<Self> {
        let since = HumanSeconds(seconds_without);
        let text = format!(
            "no sweep has completed for {since}, so nothing expires and the figures are old; the log has the reason"
        );
        (seconds_without >= STALE_SWEEP).then(|| Self::critical(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validity(days_valid: u64, seconds_left: u64) -> Alert {
        let (begins, ends) = (100, 100 + days_valid * DAY);
        Alert::certificate_validity(begins, ends, ends - seconds_left, Renewal::Manual)
    }

    #[test]
    fn a_certificate_that_expires_soon_is_a_warning() {
        assert_eq!(
            validity(90, 21 * DAY),
            Alert::good("the certificate is valid for another 21 days")
        );
        assert_eq!(
            validity(90, 21 * DAY - 1),
            Alert::warning("the certificate expires in 20 days; renew it")
        );
        assert_eq!(validity(6, 36 * HOUR).severity, Severity::Good);
        assert_eq!(
            validity(6, 36 * HOUR - 1),
            Alert::warning("the certificate expires in 35 hours; renew it")
        );
        assert_eq!(
            Alert::certificate_validity(0, 90 * DAY, 80 * DAY, Renewal::Automatic).text,
            "the certificate expires in 10 days"
        );
    }

    #[test]
    fn a_certificate_outside_its_validity_is_critical() {
        for (now, severity, text) in [
            (99, Severity::Critical, "not valid yet"),
            (100, Severity::Good, "valid for another"),
            (200, Severity::Warning, "expires in 0 seconds"),
            (201, Severity::Critical, "has expired"),
        ] {
            let alert = Alert::certificate_validity(100, 200, now, Renewal::Manual);
            assert_eq!(alert.severity, severity, "{alert:?}");
            assert!(alert.text.contains(text), "{alert:?}");
        }
    }

    #[test]
    fn free_space_is_critical_if_an_upload_does_not_fit() {
        for (free, max, severity, text) in [
            (1 << 30, 512 << 10, Severity::Good, "1.00 GiB free"),
            (
                (1 << 30) - (1 << 20),
                512 << 10,
                Severity::Warning,
                "1023.00 MiB left",
            ),
            (1 << 20, 512 << 10, Severity::Warning, "1.00 MiB left"),
            (
                (1 << 20) - 1,
                512 << 10,
                Severity::Critical,
                "the disk is full",
            ),
            (u64::MAX, u64::MAX, Severity::Good, "free"),
        ] {
            let alert = Alert::free_space(free, max);
            assert_eq!(alert.severity, severity, "{alert:?}");
            assert!(alert.text.contains(text), "{alert:?}");
        }
    }

    #[test]
    fn a_severity_is_the_same_word_everywhere() {
        for severity in [Severity::Good, Severity::Warning, Severity::Critical] {
            assert_eq!(serde_json::json!(severity), severity.label());
        }
    }
}
