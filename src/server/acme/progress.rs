//! How it stands with the certificate that an authority is asked for.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::schedule::Failed;

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

/// The status as it changes.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<AcmeStatus>);

impl Progress {
    pub(in crate::server) fn status(&self) -> AcmeStatus {
        self.known().clone()
    }

    /// When the next order may begin.
    pub(super) fn next_order(&self, time: u64) {
        self.known().next_order = time;
    }

    pub(super) fn begins(&self) {
        self.known().is_ordering = true;
    }

    /// How the last order of an earlier run failed.
    pub(super) fn remember(&self, failed: Option<&Failed>) {
        self.known().failure = failed.map(|failed| Failure {
            times: failed.count,
            last: failed.last,
            reason: failed.text.clone(),
        });
    }

    pub(super) fn ended(&self, failed: Option<&Failed>) {
        self.remember(failed);
        let mut known = self.known();
        known.is_ordering = false;
        if failed.is_some() {
            known.failed += 1;
        } else {
            known.issued += 1;
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, AcmeStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AcmeStatus {
    /// What needs a person, in plain words.
    pub(in crate::server) fn attention(&self, has_certificate: bool, now: u64) -> Option<String> {
        let problem = match (has_certificate, &self.failure) {
            (true, None) => return None,
            (false, None) => {
                return Some(
                    "there is no certificate yet, so no phone connects; the authority is being asked for one"
                        .to_owned(),
                );
            }
            (true, Some(failure)) => format!("the certificate was not renewed: {}", failure.reason),
            (false, Some(failure)) => format!(
                "there is no certificate yet, so no phone connects: {}",
                failure.reason
            ),
        };
        let minutes = self.next_order.saturating_sub(now).div_ceil(60);
        let again = match minutes {
            0 => "the authority is asked again now".to_owned(),
            1 => "the authority is asked again in 1 minute".to_owned(),
            2..120 => format!("the authority is asked again in {minutes} minutes"),
            _ => format!("the authority is asked again in {} hours", minutes / 60),
        };
        Some(format!("{problem}; {again}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_in_plain_words() {
        let mut status = AcmeStatus::default();
        assert_eq!(status.attention(true, 0), None);
        let text = status.attention(false, 0).unwrap();
        assert!(text.starts_with("there is no certificate yet"), "{text}");

        status.failure = Some(Failure {
            times: 2,
            last: 100,
            reason: "why".into(),
        });
        status.next_order = 160;
        assert_eq!(
            status.attention(true, 101).as_deref(),
            Some("the certificate was not renewed: why; the authority is asked again in 1 minute")
        );
        status.next_order = 100 + 3 * 3_600;
        let text = status.attention(false, 100).unwrap();
        assert!(text.ends_with("no phone connects: why; the authority is asked again in 3 hours"));
    }
}
