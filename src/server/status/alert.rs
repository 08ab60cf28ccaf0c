//! The one judgement of the server's health: severities, thresholds and texts.
//!
//! `status`, `/readyz`, the metrics, the status page and `check` all take them from here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AcmeStatus, CertificateStatus, Status};
use crate::retention::Report;

/// Less free space wants a look.
const LITTLE_SPACE: u64 = 1 << 30;
/// There is a sweep every hour; so many without one, and something is wrong.
const STALE_HOURS: u64 = 3;
/// A certificate that ends earlier wants a look.
const SOON: Duration = Duration::from_secs(21 * 24 * 60 * 60);

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
pub struct Alert {
    /// How bad it is.
    pub severity: Severity,
    /// What it is and what to do, in plain words.
    pub text: String,
}

impl Alert {
    pub(crate) fn warning(text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            text: text.into(),
        }
    }

    pub(crate) fn critical(text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Critical,
            text: text.into(),
        }
    }
}

impl Status {
    /// Whether phones can be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let is_critical = |line: &Alert| line.severity == Severity::Critical;
        !self.draining && !self.alerts().iter().any(is_critical)
    }

    /// What needs a person, the worst first.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        let mut lines = Vec::new();
        if self.draining {
            lines.push(Alert::warning("the server was told to stop"));
        }
        if let Some(certificate) = &self.certificate {
            lines.extend(certificate.alerts(self.now));
        }
        self.look_at_storage(&mut lines);
        self.look_at_config(&mut lines);
        self.look_at_accounts(&mut lines);
        self.look_at_sweep(&mut lines);
        if let Some(report) = self.report() {
            look_at_report(report, &mut lines);
        }
        if let Some(scrub) = self.scrub.filter(|scrub| scrub.findings() > 0) {
            lines.push(Alert::warning(format!(
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

    fn look_at_storage(&self, lines: &mut Vec<Alert>) {
        if let Some(problem) = &self.storage.problem {
            lines.push(Alert::critical(format!(
                "the storage cannot be written to, so no backup is stored: {problem}"
            )));
        }
        let Some(free) = self.storage.free_bytes else {
            return;
        };
        // One upload, and what it replaces.
        let enough = self.max_backup_bytes.saturating_mul(2);
        if free < enough {
            lines.push(Alert::critical(
                "the disk is full: no backup is stored; make room",
            ));
        } else if free < LITTLE_SPACE {
            lines.push(Alert::warning(format!(
                "the disk is nearly full: {} MiB are left",
                free >> 20
            )));
        }
    }

    fn look_at_accounts(&self, lines: &mut Vec<Alert>) {
        if self.accounts.none {
            lines.push(Alert::critical(
                "there is no account, so no phone comes in; `account add NAME` adds one",
            ));
        }
        if self.accounts.bad {
            lines.push(Alert::warning(
                "the accounts file cannot be used, so those read before stay in force until a restart, which would fail; \
                 the log says why",
            ));
        }
        if let Some(quota) = &self.quota_used_up {
            lines.push(Alert::warning(format!(
                "quotas.{quota} is used up: new phones are refused, the others renew their backups"
            )));
        }
    }

    fn look_at_config(&self, lines: &mut Vec<Alert>) {
        if let Some(problem) = &self.config_problem {
            lines.push(Alert::warning(format!(
                "the configuration cannot be used, so the one read before stays in force: {problem}"
            )));
        }
        if !self.waiting_for_restart.is_empty() {
            lines.push(Alert::warning(format!(
                "changes of the configuration wait for a restart: {}",
                self.waiting_for_restart.join(", ")
            )));
        }
    }

    fn look_at_sweep(&self, lines: &mut Vec<Alert>) {
        let hours = self.seconds_without_sweep / 3_600;
        if hours >= STALE_HOURS {
            lines.push(Alert::critical(format!(
                "no sweep has gone through for {hours} hours: nothing expires, and nothing is counted; the log says why"
            )));
        } else if self.sweep.is_some() && self.report().is_none() {
            lines.push(Alert::warning("the last sweep broke off; the log says why"));
        }
    }
}

fn look_at_report(report: &Report, lines: &mut Vec<Alert>) {
    if let Some(reason) = report.refused {
        lines.push(Alert::warning(format!(
            "nothing was removed: {reason}; if this is right, `prune --force` removes it"
        )));
    }
    if let Some(burst) = report.trash_held {
        lines.push(Alert::warning(format!(
            "{} of {} backups were deleted within a day, so nothing is erased from the trash: look whether a setting \
             in the MDM is wrong, then `trash restore` or `trash confirm`",
            burst.removed, burst.of
        )));
    }
    match report.failed {
        0 => {}
        1 => lines.push(Alert::warning(
            "1 file could not be removed; the log says why",
        )),
        many => lines.push(Alert::warning(format!(
            "{many} files could not be removed; the log says why"
        ))),
    }
    match report.sizes.over_80_percent() {
        0 => {}
        large => lines.push(Alert::warning(format!(
            "{large} backups use more than 80 % of maxBackupBytes: an app whose backup grows beyond it uploads no more, \
             and tells nobody; raise it"
        ))),
    }
}

impl CertificateStatus {
    /// What needs a person, in plain words.
    fn alerts(&self, now: u64) -> Vec<Alert> {
        let mut lines = Vec::new();
        let has_one = self.acme.is_none() || self.ends > 0;
        if let Some(text) = self
            .acme
            .as_ref()
            .and_then(|acme| acme.alert_text(has_one, now))
        {
            lines.push(if has_one {
                Alert::warning(text)
            } else {
                Alert::critical(text)
            });
        }
        if has_one {
            lines.extend(self.time_alert(now));
        }
        if let Some(problem) = &self.problem {
            lines.push(Alert::critical(format!(
                "the certificate's files cannot be used, so the one read before stays in force until it ends: {problem}"
            )));
        }
        lines
    }

    fn time_alert(&self, now: u64) -> Option<Alert> {
        let left = self.ends.saturating_sub(now);
        // Certificates that live for a few days are renewed when a third of that is left.
        let soon = SOON
            .as_secs()
            .min(self.ends.saturating_sub(self.begins) / 4);
        if now > self.ends {
            Some(Alert::critical(
                "the certificate has expired: no phone connects",
            ))
        } else if now < self.begins {
            Some(Alert::critical(
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
            Some(Alert::warning(text))
        } else {
            None
        }
    }
}

impl AcmeStatus {
    /// What needs a person, in plain words.
    fn alert_text(&self, has_certificate: bool, now: u64) -> Option<String> {
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
    use crate::server::status::Failure;

    const DAY: u64 = 24 * 60 * 60;

    fn texts(status: &CertificateStatus, now: u64) -> Vec<String> {
        let lines = status.alerts(now).into_iter();
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

    #[test]
    fn what_failed_is_told_in_plain_words() {
        let mut status = AcmeStatus::default();
        assert_eq!(status.alert_text(true, 0), None);
        let text = status.alert_text(false, 0).unwrap();
        assert!(text.starts_with("there is no certificate yet"), "{text}");

        status.failure = Some(Failure {
            times: 2,
            last: 100,
            reason: "why".into(),
        });
        status.next_order = 160;
        assert_eq!(
            status.alert_text(true, 101).as_deref(),
            Some("the certificate was not renewed: why; the authority is asked again in 1 minute")
        );
        status.next_order = 100 + 3 * 3_600;
        let text = status.alert_text(false, 100).unwrap();
        assert!(text.ends_with("no phone connects: why; the authority is asked again in 3 hours"));
    }
}
