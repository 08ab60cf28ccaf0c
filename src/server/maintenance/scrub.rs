//! The weekly scrub: reads every backup, and reports damaged ones.

use std::error::Error as StdError;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Maintenance;
use crate::scrub::{self, ReadRate};
use crate::state::{Scrubbed, State};
use crate::time::{DAY, HOUR, unix};

/// Time between the end of a scrub and the next one.
const SCRUB_INTERVAL: Duration = Duration::from_secs(7 * DAY);
/// Time between two checks whether a scrub is due.
const CHECK_INTERVAL: Duration = Duration::from_secs(HOUR);

impl Maintenance {
    /// Scrubs a week after the last scrub, also after one of an earlier run.
    pub(crate) async fn scrub_weekly(self) {
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            checks.tick().await;
            let now = self.clock.now();
            let last = match self.state.load().await {
                Ok(saved) => saved.scrub,
                // Without a readable state, the scrubs of this run are still known.
                Err(_) => self.run_state.facts().scrub,
            };
            if let Some(last) = last {
                self.record(last);
                // A scrub that ended in the future ended under a wrong clock.
                let passed = unix(now).checked_sub(last.finished);
                if passed.is_some_and(|passed| passed < SCRUB_INTERVAL.as_secs()) {
                    continue;
                }
            }
            self.scrub().await;
        }
    }

    async fn scrub(&self) {
        match scrub::scrub(&*self.store, Some(ReadRate::BACKGROUND), |_, _| ()).await {
            Ok(scrubbed) => {
                let scrubbed = Scrubbed {
                    finished: unix(self.clock.now()),
                    ..scrubbed
                };
                let change = move |state: &mut State| state.scrub = Some(scrubbed);
                let saved = self.state.update(change).await;
                self.record(scrubbed);
                log_result(scrubbed);
                if let Err(error) = saved {
                    tracing::error!(
                        error = &error as &dyn StdError,
                        "scrub result could not be saved"
                    );
                }
            }
            Err(error) => tracing::error!(error = &error as &dyn StdError, "scrub failed"),
        }
    }

    /// Passes the result of a scrub to the metrics and the status.
    fn record(&self, scrubbed: Scrubbed) {
        self.metrics.scrubbed(scrubbed);
        self.run_state.scrub_ended(scrubbed);
    }
}

fn log_result(scrubbed: Scrubbed) {
    tracing::info!(sound = scrubbed.sound, "scrub finished");
    if scrubbed.findings() > 0 {
        tracing::error!(
            short = scrubbed.short,
            changed = scrubbed.changed,
            unreadable = scrubbed.unreadable,
            "damaged backups found"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::server::maintenance::fixture::{clock, maintenance, until};
    use crate::state::StateFile;
    use crate::store::Upload;

    #[tokio::test(start_paused = true)]
    async fn a_scrub_is_reported_and_the_next_one_runs_after_a_week() {
        let directory = tempfile::tempdir().unwrap();
        let maintenance = maintenance(directory.path());
        let id = "a".repeat(64).parse().unwrap();
        maintenance
            .store
            .put(id, Upload::new(vec![7; 40].into(), clock()))
            .await
            .unwrap();
        let state = StateFile::in_directory(directory.path());
        let run_state = Arc::clone(&maintenance.run_state);
        let metrics = Arc::clone(&maintenance.metrics);
        let finished = |time: SystemTime| {
            state
                .update(|state| {
                    state.scrub = Some(Scrubbed {
                        finished: unix(time),
                        sound: 99,
                        ..Scrubbed::default()
                    });
                })
                .unwrap();
        };
        let saved = || state.load().unwrap().scrub.unwrap();
        let second = Duration::from_secs(1);
        finished(clock() - SCRUB_INTERVAL + second);

        tokio::spawn(maintenance.scrub_weekly());
        until(Duration::ZERO, || run_state.facts().scrub.is_some()).await;
        assert_eq!(saved().sound, 99, "a week has not passed");

        let reported = || run_state.facts().scrub.unwrap();
        for long_ago_or_under_a_wrong_clock in [clock() - SCRUB_INTERVAL, clock() + second] {
            finished(long_ago_or_under_a_wrong_clock);
            until(second, || saved().sound == 0).await;
            // The run state is updated last.
            until(second, || reported() == saved()).await;
            assert_eq!((saved().finished, saved().short), (unix(clock()), 1));
        }
        let metric = "safe_damaged_backups{kind=\"short\"} 1";
        assert!(metrics.text().contains(metric), "{}", metrics.text());
    }
}
