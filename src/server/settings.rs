//! What a configuration decides about a running server, and how another one takes its place.
//!
//! Settings are replaced as a whole and never change: a request that has begun ends under those it began with. What was
//! counted meanwhile (guesses, quotas, memory for uploads) goes on being counted where its bound stays the same.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{Config, Problem};
use crate::retention::Retention;
use crate::server::net::connection_limiter::Places;
use crate::server::request::context::{Means, Shared};
use crate::server::request::handler::App;

/// What one configuration decides.
pub(crate) struct Settings {
    pub(crate) app: Arc<App>,
    pub(crate) shared: Shared,
    pub(crate) retention: Retention,
    pub(crate) config: Config,
}

/// The settings in force.
pub(crate) struct Live(ArcSwap<Settings>);

/// Changes the settings of a running server.
#[derive(Clone)]
pub struct Reloader {
    live: Arc<Live>,
    places: Arc<Places>,
    means: Means,
    /// What the server was started with.
    started: Arc<Config>,
}

impl Settings {
    fn new(config: &Config, means: &Means, shared: Shared) -> Self {
        Self {
            app: Arc::new(App::new(config, means, &shared)),
            shared,
            retention: retention_of(config),
            config: config.clone(),
        }
    }
}

impl Live {
    pub(crate) fn new(config: &Config, means: &Means) -> Arc<Self> {
        let settings = Settings::new(config, means, Shared::new(config, means));
        Arc::new(Self(ArcSwap::from_pointee(settings)))
    }

    /// The settings in force now.
    pub(crate) fn now(&self) -> Arc<Settings> {
        self.0.load_full()
    }
}

impl Reloader {
    pub(crate) fn new(
        live: Arc<Live>,
        places: Arc<Places>,
        means: Means,
        started: &Config,
    ) -> Self {
        Self {
            live,
            places,
            means,
            started: Arc::new(started.clone()),
        }
    }

    /// Puts another configuration in force, as far as that is possible without a restart. Gives the keys that wait for
    /// one: of these, what the server was started with stays in force.
    ///
    /// # Errors
    /// When nobody could come in any more. Then nothing has changed.
    pub fn reload(&self, config: &Config) -> Result<Vec<&'static str>, Problem> {
        if self.means.authenticator.is_empty() && !config.allow_anonymous {
            return Err(Problem {
                place: "allowAnonymous".into(),
                text: "is off and there is no account: nobody could come in".into(),
            });
        }
        let waiting = self.started.differs_in(config);
        let before = self.live.now();
        let shared = before.shared.after(&before.config, config, &self.means);
        let settings = Settings::new(config, &self.means, shared);
        self.places.set_limits(config.limits);
        self.live.0.store(Arc::new(settings));
        self.means.metrics.config_reloaded("done");
        self.means.run_state.config_reloaded(&waiting);
        Ok(waiting)
    }

    /// Whether the server was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.means.run_state.is_draining()
    }

    /// Notes why a configuration could not be read; the one before stays in force.
    pub fn failed(&self, problem: String) {
        self.means.metrics.config_reloaded("failed");
        self.means.run_state.config_failed(problem);
    }
}

/// How long the configuration says things are kept.
#[must_use]
pub fn retention_of(config: &Config) -> Retention {
    Retention::of_days(
        config.retention_days,
        config.retention_margin_days,
        config.trash_days,
    )
    .for_backups_of(config.max_backup_bytes)
}
