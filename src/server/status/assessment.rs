//! Assessment of a running server: the alerts that follow from its [`Status`].

use crate::retention::Report;
use crate::server::status::alert::Renewal;
use crate::server::status::{AcmeStatus, Alert, CertificateStatus, Severity, Status};
use crate::time::HumanSeconds;

impl Status {
    /// True while a load balancer may send clients here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let is_critical = |alert: &Alert| alert.severity == Severity::Critical;
        !self.draining && !self.alerts().iter().any(is_critical)
    }

    /// The warnings and critical alerts, the most severe first.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        let mut alerts = Vec::new();
        if self.draining {
            alerts.push(Alert::warning("the server is shutting down"));
        }
        if let Some(certificate) = &self.certificate {
            alerts.extend(certificate.alerts(self.now));
        }
        self.assess_storage(&mut alerts);
        self.assess_config(&mut alerts);
        self.assess_accounts(&mut alerts);
        self.assess_sweep(&mut alerts);
        if let Some(report) = self.report() {
            assess_report(report, &mut alerts);
        }
        if let Some(scrub) = self.scrub.filter(|scrub| scrub.findings() > 0) {
            alerts.push(Alert::warning(format!(
                "{} backups are damaged ({} too short, {} changed, {} unreadable); run `scrub` to list them",
                scrub.findings(),
                scrub.short,
                scrub.changed,
                scrub.unreadable
            )));
        }
        alerts.retain(|alert| alert.severity > Severity::Good);
        alerts.sort_by_key(|alert| std::cmp::Reverse(alert.severity));
        alerts
    }

    fn assess_storage(&self, alerts: &mut Vec<Alert>) {
        if let Some(problem) = &self.storage.problem {
            alerts.push(Alert::storage_failure(problem));
        }
        let exposed = self.storage.exposed.iter();
        alerts.extend(exposed.map(|exposure| Alert::exposed(exposure)));
        if let Some(free) = self.storage.free_bytes {
            alerts.push(Alert::free_space(free, self.max_backup_bytes));
        }
    }

    fn assess_accounts(&self, alerts: &mut Vec<Alert>) {
        if self.accounts.none {
            alerts.push(Alert::no_accounts());
        }
        if self.accounts.bad {
            alerts.push(Alert::warning(
                "the accounts file cannot be used, so the previous accounts stay in force; a restart would fail; \
                 the log has the reason",
            ));
        }
        if let Some(quota) = &self.quota_used_up {
            alerts.push(Alert::warning(format!(
                "quotas.{quota} is used up: new backups are refused, existing ones are still renewed"
            )));
        }
    }

    fn assess_config(&self, alerts: &mut Vec<Alert>) {
        if let Some(problem) = &self.config_problem {
            alerts.push(Alert::warning(format!(
                "the configuration cannot be used, so the previous one stays in force: {problem}"
            )));
        }
        if !self.waiting_for_restart.is_empty() {
            alerts.push(Alert::warning(format!(
                "configuration changes wait for a restart: {}",
                self.waiting_for_restart.join(", ")
            )));
        }
    }

    fn assess_sweep(&self, alerts: &mut Vec<Alert>) {
        if let Some(stale) = Alert::stale_sweep(self.seconds_without_sweep) {
            alerts.push(stale);
        } else if self.sweep.is_some() && self.report().is_none() {
            alerts.push(Alert::warning(
                "the last sweep was aborted; the log has the reason",
            ));
        }
    }
}

/// What a sweep says of the clock, the state and the number of removals; also one that changed
/// nothing.
pub(crate) fn sweep_alerts(report: &Report) -> Vec<Alert> {
    let mut alerts = Vec::new();
    alerts.extend(report.refused.map(Alert::sweep_refused));
    alerts.extend(report.invalid_state.then(Alert::invalid_state));
    if let Some(burst) = report.trash_held {
        alerts.push(Alert::warning(format!(
            "{} of {} backups were {} within a day, so nothing is erased from the trash; check the MDM \
             settings{}, then run `trash restore` or `trash confirm`",
            burst.removed,
            burst.of,
            burst.what(),
            if burst.overwritten > 0 { " and the accounts" } else { "" }
        )));
    }
    alerts
}

fn assess_report(report: &Report, alerts: &mut Vec<Alert>) {
    alerts.extend(sweep_alerts(report));
    match report.failed {
        0 => {}
        1 => alerts.push(Alert::warning(
            "1 file could not be removed; the log has the reason",
        )),
        many => alerts.push(Alert::warning(format!(
            "{many} files could not be removed; the log has the reason"
        ))),
    }
    match report.sizes.over_80_percent() {
        0 => {}
        large => alerts.push(Alert::warning(format!(
            "{large} backups use more than 80 % of maxBackupBytes; an app whose backup exceeds it stops uploading \
             without telling its user; raise maxBackupBytes"
        ))),
    }
}

impl CertificateStatus {
    fn alerts(&self, now: u64) -> Vec<Alert> {
        let mut alerts = Vec::new();
        let exists = self.acme.is_none() || self.ends > 0;
        if let Some(acme) = &self.acme {
            alerts.extend(acme.alert(exists, now));
        }
        if exists {
            let renewal = match self.acme {
                Some(_) => Renewal::Automatic,
                None => Renewal::Manual,
            };
            let validity = Alert::certificate_validity(self.begins, self.ends, now, renewal);
            alerts.push(validity);
        }
        if let Some(problem) = &self.problem {
            alerts.push(Alert::critical(format!(
                "the certificate's files cannot be used, so the previous certificate stays in force until it \
                 expires: {problem}"
            )));
        }
        alerts
    }
}

impl AcmeStatus {
    fn alert(&self, has_certificate: bool, now: u64) -> Option<Alert> {
        const NO_CERTIFICATE: &str = "there is no certificate yet, so clients cannot connect";
        let problem = match (has_certificate, &self.failure) {
            (true, None) => return None,
            (false, None) => {
                let text = format!("{NO_CERTIFICATE}; an order is in progress");
                return Some(Alert::critical(text));
            }
            (true, Some(failure)) => format!("the certificate was not renewed: {}", failure.reason),
            (false, Some(failure)) => format!("{NO_CERTIFICATE}: {}", failure.reason),
        };
        let next = match self.next_order.saturating_sub(now) {
            0 => "the next order is due now".to_owned(),
            seconds => format!("the next order is due in {}", HumanSeconds(seconds)),
        };
        let text = format!("{problem}; {next}");
        Some(if has_certificate {
            Alert::warning(text)
        } else {
            Alert::critical(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::status::Failure;
    use crate::time::HOUR;

    #[test]
    fn a_certificate_that_is_not_issued_yet_has_not_expired() {
        let status = CertificateStatus {
            begins: 0,
            ends: 0,
            problem: None,
            acme: Some(AcmeStatus::default()),
        };

        let alerts = status.alerts(100);

        assert_eq!(alerts.len(), 1, "{alerts:?}");
        let text = &alerts[0].text;
        assert!(text.starts_with("there is no certificate yet"), "{text}");
        assert!(!status.is_valid(100));
    }

    #[test]
    fn a_certificate_outside_its_validity_is_not_valid() {
        let status = CertificateStatus {
            begins: 100,
            ends: 200,
            problem: Some("why".into()),
            acme: None,
        };
        for (now, expected) in [(99, "not valid yet"), (201, "has expired")] {
            assert!(!status.is_valid(now));
            let alerts = status.alerts(now);
            assert!(alerts[0].text.contains(expected), "{alerts:?}");
            assert!(
                alerts[1].text.ends_with("until it expires: why"),
                "{alerts:?}"
            );
        }
        assert!(status.is_valid(100) && status.is_valid(200));
    }

    #[test]
    fn a_failed_order_is_an_alert_with_the_time_of_the_next() {
        let mut status = AcmeStatus::default();
        assert_eq!(status.alert(true, 0), None);
        let alert = status.alert(false, 0).unwrap();
        assert_eq!(alert.severity, Severity::Critical);
        assert!(alert.text.ends_with("an order is in progress"), "{alert:?}");

        status.failure = Some(Failure {
            times: 2,
            last: 100,
            reason: "why".into(),
        });
        status.next_order = 160;
        assert_eq!(
            status.alert(true, 101),
            Some(Alert::warning(
                "the certificate was not renewed: why; the next order is due in 59 seconds"
            ))
        );
        status.next_order = 100 + 3 * HOUR;
        assert_eq!(
            status.alert(false, 100),
            Some(Alert::critical(
                "there is no certificate yet, so clients cannot connect: why; the next order is due in 3 hours"
            ))
        );
    }
}
