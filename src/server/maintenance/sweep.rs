//! The hourly sweep: applies retention, and counts what the storage contains.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Maintenance;
use crate::retention::{self, Mode, Report};
use crate::time::{HOUR, unix};

/// Time between two sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(HOUR);

impl Maintenance {
    /// Sweeps at once and then every hour.
    pub(crate) async fn sweep_hourly(self) {
        // If the state cannot be read, the sweep reports it.
        if let Ok(saved) = self.state.load().await {
            self.uploads.add(&saved.uploads);
        }
        let mut hours = interval(SWEEP_INTERVAL);
        hours.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            hours.tick().await;
            self.save_upload_history().await;
            let now = (self.clock)();
            let started = Instant::now();
            let settings = self.settings.current();
            let swept = retention::sweep(
                &*self.store,
                &*self.state,
                settings.retention,
                now,
                Mode::Serve,
            )
            .await;
            // Recorded before the log line is written, so that metrics and status show the results
            // of a sweep that the log reports.
            let report = swept.as_ref().ok().cloned();
            self.metrics.swept(unix(now), report.as_ref());
            self.run_state.sweep_ended(now, started.elapsed(), report);
            match &swept {
                Ok(report) => {
                    log_report(report);
                    // The quotas in force now: a reload may have replaced them meanwhile.
                    let quotas = Arc::clone(&self.settings.current().shared.quotas);
                    quotas.set_usage(report.kept, report.stored_bytes());
                }
                Err(error) => tracing::error!(error = error as &dyn StdError, "sweep failed"),
            }
        }
    }

    /// Saves the upload history.
    pub(crate) async fn save_upload_history(&self) {
        if let Err(error) = self.uploads.remember(&*self.state, (self.clock)()).await {
            tracing::warn!(
                error = &error as &dyn StdError,
                "upload history could not be saved"
            );
        }
    }
}

fn log_report(report: &Report) {
    tracing::info!(
        kept = report.kept,
        removed = report.removed,
        trash_kept = report.trash_kept,
        trash_erased = report.trash_erased,
        failed = report.failed,
        "sweep finished"
    );
    if let Some(reason) = report.refused {
        tracing::error!(%reason, "sweep refused: nothing was removed");
    }
    if let Some(burst) = report.trash_held {
        tracing::error!(
            removed = burst.removed,
            of = burst.of,
            "deletion burst: trash is not erased"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::maintenance::fixture::{DAY, clock, maintenance, until};

    #[tokio::test(start_paused = true)]
    async fn a_sweep_runs_at_the_start_and_every_hour() {
        let directory = tempfile::tempdir().unwrap();
        let maintenance = maintenance(directory.path());
        let backups = directory.path().join("backups");
        let expired = backups.join("a".repeat(64));
        let add_expired = || {
            let file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(&expired)
                .unwrap();
            file.set_modified(clock() - DAY * 188).unwrap();
        };
        add_expired();

        tokio::spawn(maintenance.sweep_hourly());
        for _ in 0..3 {
            until(Duration::ZERO, || {
                std::fs::read_dir(&backups).unwrap().next().is_none()
            })
            .await;
            add_expired();
            tokio::time::advance(SWEEP_INTERVAL).await;
        }
    }
}
