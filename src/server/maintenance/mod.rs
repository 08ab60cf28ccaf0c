//! Maintenance of the storage: an hourly sweep and a weekly scrub.

mod scrub;
mod sweep;

use std::sync::Arc;

use crate::clock::Clock;
use crate::retention::RecentUploads;
use crate::server::metrics::Metrics;
use crate::server::metrics::upload_history::Uploads;
use crate::server::settings::SettingsHandle;
use crate::server::status::RunState;
use crate::state::StateStore;
use crate::store::Store;

/// The maintenance tasks of a server.
#[derive(Clone)]
pub(crate) struct Maintenance {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) state: Arc<dyn StateStore>,
    pub(crate) settings: Arc<SettingsHandle>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) run_state: Arc<RunState>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) recent: Arc<RecentUploads>,
}

#[cfg(test)]
mod fixture {
    use std::cell::{Cell, OnceCell};
    use std::path::Path;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use tokio::time::Instant;

    use super::*;
    use crate::account::Authenticator;
    use crate::config::Config;
    use crate::server::request::context::Services;
    use crate::state::StateFile;
    use crate::store::FileStore;

    pub(super) const DAY: Duration = Duration::from_secs(crate::time::DAY);

    thread_local! {
        static NOW: Cell<SystemTime> = const { Cell::new(SystemTime::UNIX_EPOCH) };
        static STARTED: OnceCell<Instant> = const { OnceCell::new() };
    }

    /// What the system clock shows, unless a test has set it.
    pub(super) fn clock() -> SystemTime {
        match NOW.get() {
            UNIX_EPOCH => UNIX_EPOCH + DAY * 20_000,
            set => set,
        }
    }

    /// Sets the system clock of this test.
    pub(super) fn set_clock(time: SystemTime) {
        NOW.set(time);
    }

    /// The time that really passes in this test.
    fn elapsed() -> Duration {
        STARTED.with(|started| started.get_or_init(Instant::now).elapsed())
    }

    pub(super) fn maintenance(directory: &Path) -> Maintenance {
        let metrics = Arc::new(Metrics::new(0));
        let run_state = Arc::new(RunState::new(clock()));
        let clock = Arc::new(Clock::new(clock, elapsed));
        let recent = Arc::new(RecentUploads::default());
        let store = Arc::new(FileStore::open(directory).unwrap()) as Arc<dyn Store>;
        let config = Config::from_json(b"{}", &directory.join("config.json")).unwrap();
        let services = Services {
            authenticator: Arc::new(
                Authenticator::without_accounts(&config.accounts_file).unwrap(),
            ),
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            uploads: Arc::default(),
            run_state: Arc::clone(&run_state),
            pseudonyms: Arc::default(),
            proxy_detector: Arc::default(),
            clock: Arc::clone(&clock),
            recent: Arc::clone(&recent),
        };
        Maintenance {
            store,
            state: Arc::new(StateFile::in_directory(directory)),
            settings: SettingsHandle::new(&config, &services),
            metrics,
            uploads: Arc::default(),
            run_state,
            clock,
            recent,
        }
    }

    /// Advances the time in steps until the condition holds.
    pub(super) async fn until(step: Duration, mut condition: impl FnMut() -> bool) {
        for _ in 0..1_000_000 {
            if condition() {
                return;
            }
            tokio::time::advance(step).await;
        }
        panic!("the condition never holds");
    }
}
