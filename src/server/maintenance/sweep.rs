//! The hourly sweep: applies retention, and counts what the storage contains.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Maintenance;
use crate::retention::{self, Report};
use crate::time::{HOUR, MINUTE, unix};

/// Time between two sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(HOUR);
/// Time between two looks at the clock. A clock that jumps is recorded before a restart could take
/// the time for one in which the server was off.
const CLOCK_INTERVAL: Duration = Duration::from_secs(MINUTE);

impl Maintenance {
    /// Sweeps at once and then every hour.
    pub(crate) async fn sweep_hourly(self) {
        // If the state cannot be read, the sweep reports it.
        if let Ok(saved) = self.state.load().await {
            self.uploads.add(&saved.uploads);
        }
        let mut looks = interval(CLOCK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None::<Instant>;
        loop {
            looks.tick().await;
            let now = Instant::now();
            let is_due = last.is_none_or(|last| now.duration_since(last) >= SWEEP_INTERVAL);
            if is_due || self.clock.has_changed() || self.was_clock_accepted().await {
                last = Some(now);
                self.save_upload_history().await;
                self.sweep().await;
            }
        }
    }

    /// True if an operator has accepted a clock that is in doubt.
    async fn was_clock_accepted(&self) -> bool {
        if !self.clock.is_in_doubt() {
            return false;
        }
        let saved = self.state.load().await;
        saved.is_ok_and(|saved| self.clock.was_accepted(&saved))
    }

    async fn sweep(&self) {
        let now = self.clock.reading().system();
        let started = Instant::now();
        let settings = self.settings.current();
        let swept = retention::sweep_in_run(
            &*self.store,
            &*self.state,
            settings.retention,
            &self.clock,
            &self.recent,
        )
        .await;
        // Recorded before the log line is written, so that metrics and status show the results of a
        // sweep that the log reports.
        let report = swept.as_ref().ok().cloned();
        self.metrics.swept(unix(now), report.as_ref());
        self.run_state.sweep_ended(now, started.elapsed(), report);
        match &swept {
            Ok(report) => {
                log_report(report);
                // The quotas in force now: a reload may have replaced them meanwhile.
                let quotas = Arc::clone(&self.settings.current().shared.quotas);
                quotas.set_usage(report.kept, report.stored_bytes());
                let overwrites = Arc::clone(&self.settings.current().shared.overwrites);
                overwrites.set_usage(report.kept, report.kept_bytes, report.replaced_bytes);
            }
            Err(error) => tracing::error!(error = error as &dyn StdError, "sweep failed"),
        }
    }

    /// Saves the upload history.
    pub(crate) async fn save_upload_history(&self) {
        if let Err(error) = self.uploads.remember(&*self.state, self.clock.now()).await {
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
            overwritten = burst.overwritten,
            "deletion burst: trash is not erased"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::maintenance::fixture::{DAY, clock, maintenance, set_clock, until};
    use crate::state::StateFile;

    #[tokio::test(start_paused = true)]
    async fn a_sweep_runs_at_the_start_and_every_hour() {
        let directory = tempfile::tempdir().unwrap();
        let maintenance = maintenance(directory.path());
        let run_state = Arc::clone(&maintenance.run_state);
        let backups = directory.path().join("backups");
        let add = || {
            let mut number = 0;
            move || {
                number += 1;
                let path = backups.join(format!("{number:064x}"));
                crate::durable::replace(&path, &[7; 41]).unwrap();
                number
            }
        };
        let mut add = add();
        let kept = || {
            let sweep = run_state.facts().sweep?;
            Some(sweep.report?.kept)
        };
        add();

        tokio::spawn(maintenance.sweep_hourly());
        for number in 1..=3 {
            until(Duration::ZERO, || kept() == Some(number)).await;
            add();
            for _ in 0..3 {
                tokio::time::advance(Duration::from_secs(19 * MINUTE)).await;
                until(Duration::ZERO, || true).await;
                assert_eq!(kept(), Some(number), "not before the hour");
            }
            tokio::time::advance(Duration::from_secs(3 * MINUTE)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_is_noticed_within_a_minute_and_so_is_its_acceptance() {
        let directory = tempfile::tempdir().unwrap();
        let maintenance = maintenance(directory.path());
        let run_state = Arc::clone(&maintenance.run_state);
        let state = StateFile::in_directory(directory.path());
        let label = || {
            let report = run_state.facts().sweep?.report?;
            Some(report.refused.map(retention::Refusal::label))
        };
        let minute = Duration::from_secs(1);
        tokio::spawn(maintenance.sweep_hourly());
        until(Duration::ZERO, || label() == Some(None)).await;

        set_clock(clock() + DAY * 30);
        until(minute, || label() == Some(Some("clock_ahead"))).await;
        assert!(state.load().unwrap().clock.jump.is_some());
        let now = clock();
        let accept = move |state: &mut crate::state::State| {
            assert!(crate::clock::accept_by_operator(state, now));
        };
        state.update(accept).unwrap();
        until(minute, || label() == Some(None)).await;
        assert!(run_state.seconds_without_sweep() < HOUR);
    }
}
