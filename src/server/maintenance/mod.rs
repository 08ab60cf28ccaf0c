//! What a server does by itself: sweep every hour, scrub every week.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::retention;
use crate::retention::{Mode, Report};
use crate::scrub;
use crate::scrub::ReadRate;
use crate::server::metrics::Metrics;
use crate::server::metrics::upload_history::Uploads;
use crate::server::settings::Live;
use crate::server::status::RunState;
use crate::state::{Scrubbed, State, StateStore};
use crate::store::Store;
use crate::time::{DAY, HOUR, unix};

/// Time between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(HOUR);
/// Time between the end of a scrub and the next one.
const SCRUB_EVERY: Duration = Duration::from_secs(7 * DAY);
/// How often it is looked whether that time is over.
const SCRUB_LOOK: Duration = Duration::from_secs(HOUR);

/// What the work in the background needs.
#[derive(Clone)]
pub(crate) struct Background {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) live: Arc<Live>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) run_state: Arc<RunState>,
    pub(crate) clock: fn() -> SystemTime,
}

impl Background {
    /// Sweeps at once and then every hour.
    pub(crate) async fn sweep_hourly(self) {
        // Where nothing can be read, the sweep says so.
        if let Ok(remembered) = self.state.load().await {
            self.uploads.add(&remembered.uploads);
        }
        let mut hours = interval(SWEEP_EVERY);
        hours.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            hours.tick().await;
            self.remember_uploads().await;
            let now = (self.clock)();
            let began = Instant::now();
            let settings = self.live.now();
            let swept = retention::sweep(
                &*self.store,
                &*self.state,
                settings.retention,
                now,
                Mode::Serve,
            )
            .await;
            // Before the log: whoever reads there that a sweep has ended finds it here.
            let report = swept.as_ref().ok().cloned();
            self.metrics.swept(unix(now), report.as_ref());
            self.run_state.sweep_ended(now, began.elapsed(), report);
            match &swept {
                Ok(report) => {
                    tell(report);
                    let bytes = report.kept_bytes.saturating_add(report.trash_bytes);
                    // Those in force now: they may have changed meanwhile.
                    let quotas = Arc::clone(&self.live.now().shared.quotas);
                    quotas.counted(report.kept, bytes);
                }
                Err(error) => tracing::error!(
                    error = error as &dyn StdError,
                    "the sweep broke off; the next one is in an hour"
                ),
            }
        }
    }

    /// Writes down how many uploads there were.
    pub(crate) async fn remember_uploads(&self) {
        if let Err(error) = self.uploads.remember(&*self.state, (self.clock)()).await {
            tracing::warn!(
                error = &error as &dyn StdError,
                "how many uploads there were could not be written down"
            );
        }
    }

    /// Scrubs when the last scrub is a week ago, also one of an earlier run.
    pub(crate) async fn scrub_weekly(self) {
        let mut looks = interval(SCRUB_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let now = (self.clock)();
            let last = match self.state.load().await {
                Ok(remembered) => remembered.scrub,
                // Where nothing can be remembered, this run at least knows what it has done.
                Err(_) => self.run_state.facts().scrub,
            };
            if let Some(last) = last {
                self.scrub_ended(last);
                // One that ended in the future ended under a wrong clock.
                let passed = unix(now).checked_sub(last.finished);
                if passed.is_some_and(|passed| passed < SCRUB_EVERY.as_secs()) {
                    continue;
                }
            }
            self.scrub().await;
        }
    }

    fn scrub_ended(&self, scrubbed: Scrubbed) {
        self.metrics.scrubbed(scrubbed);
        self.run_state.scrub_ended(scrubbed);
    }

    async fn scrub(&self) {
        match scrub::scrub(&*self.store, Some(ReadRate::BACKGROUND), |_, _| ()).await {
            Ok(scrubbed) => {
                let scrubbed = Scrubbed {
                    finished: unix((self.clock)()),
                    ..scrubbed
                };
                let change = move |state: &mut State| state.scrub = Some(scrubbed);
                let written = self.state.update(change).await;
                self.scrub_ended(scrubbed);
                tell_scrubbed(scrubbed);
                if let Err(error) = written {
                    tracing::error!(
                        error = &error as &dyn StdError,
                        "how the scrub ended could not be written down"
                    );
                }
            }
            Err(error) => tracing::error!(
                error = &error as &dyn StdError,
                "the scrub broke off; the next one begins within an hour"
            ),
        }
    }
}

fn tell(report: &Report) {
    tracing::info!(
        kept = report.kept,
        removed = report.removed,
        trash_kept = report.trash_kept,
        trash_erased = report.trash_erased,
        failed = report.failed,
        "swept"
    );
    if let Some(reason) = report.refused {
        tracing::error!(
            %reason,
            "nothing was removed; if this is right, `prune --force` removes it"
        );
    }
    if let Some(burst) = report.trash_held {
        tracing::error!(
            removed = burst.removed,
            of = burst.of,
            "many backups were deleted within a day, so nothing is erased from the trash; look whether a \
             setting in the MDM is wrong, then `trash restore` or `trash confirm`"
        );
    }
}

fn tell_scrubbed(scrubbed: Scrubbed) {
    tracing::info!(sound = scrubbed.sound, "scrubbed");
    if scrubbed.findings() > 0 {
        tracing::error!(
            short = scrubbed.short,
            changed = scrubbed.changed,
            unreadable = scrubbed.unreadable,
            "some backups are damaged; `scrub` says which"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::account::Authenticator;
    use crate::config::Config;
    use crate::server::request::context::Means;
    use crate::state::StateFile;
    use crate::store::FileStore;

    const DAY: Duration = Duration::from_secs(crate::time::DAY);

    fn clock() -> SystemTime {
        UNIX_EPOCH + DAY * 20_000
    }

    fn background(directory: &Path) -> Background {
        let metrics = Arc::new(Metrics::new(0));
        let run_state = Arc::new(RunState::new(clock()));
        let store = Arc::new(FileStore::open(directory).unwrap()) as Arc<dyn Store>;
        let config = Config::from_json(b"{}", &directory.join("config.json")).unwrap();
        let means = Means {
            authenticator: Arc::new(
                Authenticator::without_accounts(&config.accounts_file).unwrap(),
            ),
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            uploads: Arc::default(),
            run_state: Arc::clone(&run_state),
            pseudonyms: Arc::default(),
            crowd: Arc::default(),
            clock,
        };
        Background {
            store,
            state: Arc::new(StateFile::in_directory(directory)),
            live: Live::new(&config, &means),
            metrics,
            uploads: Arc::default(),
            run_state,
            clock,
        }
    }

    /// Lets time pass, if any, until it is done.
    async fn until(step: Duration, mut done: impl FnMut() -> bool) {
        for _ in 0..1_000_000 {
            if done() {
                return;
            }
            tokio::time::advance(step).await;
        }
        panic!("it does not happen");
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_sweeps_at_once_and_after_every_hour() {
        let directory = tempfile::tempdir().unwrap();
        let background = background(directory.path());
        let backups = directory.path().join("backups");
        let expired = backups.join("a".repeat(64));
        let place = || {
            let file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(&expired)
                .unwrap();
            file.set_modified(clock() - DAY * 188).unwrap();
        };
        place();

        tokio::spawn(background.sweep_hourly());
        for _ in 0..3 {
            until(Duration::ZERO, || {
                std::fs::read_dir(&backups).unwrap().next().is_none()
            })
            .await;
            place();
            tokio::time::advance(SWEEP_EVERY).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scrub_is_reported_and_the_next_one_comes_when_a_week_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let background = background(directory.path());
        let id = "a".repeat(64).parse().unwrap();
        background.store.put(id, vec![7; 40].into()).await.unwrap();
        let state = StateFile::in_directory(directory.path());
        let run_state = Arc::clone(&background.run_state);
        let metrics = Arc::clone(&background.metrics);
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
        let remembered = || state.load().unwrap().scrub.unwrap();
        let second = Duration::from_secs(1);
        finished(clock() - SCRUB_EVERY + second);

        tokio::spawn(background.scrub_weekly());
        until(Duration::ZERO, || run_state.facts().scrub.is_some()).await;
        assert_eq!(remembered().sound, 99, "it is not a week yet");

        let told = || run_state.facts().scrub.unwrap();
        for long_ago_or_under_a_wrong_clock in [clock() - SCRUB_EVERY, clock() + second] {
            finished(long_ago_or_under_a_wrong_clock);
            until(second, || remembered().sound == 0).await;
            // The run state hears of it last.
            until(second, || told() == remembered()).await;
            assert_eq!(
                (remembered().finished, remembered().short),
                (unix(clock()), 1)
            );
        }
        let metric = "safe_damaged_backups{kind=\"short\"} 1";
        assert!(metrics.text().contains(metric), "{}", metrics.text());
    }
}
