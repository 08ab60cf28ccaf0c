//! What a configuration decides about a running server, and how another one takes its place.
//!
//! Settings are replaced as a whole and never change: a request that has begun ends under those it began with. What was
//! counted meanwhile (guesses, quotas, memory for uploads) goes on being counted where its bound stays the same.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::crowd::Crowd;
use super::guard::{Guard, Quotas};
use super::http::App;
use super::places::Places;
use super::proxies::Proxies;
use super::pseudonym::Pseudonyms;
use super::retention_of;
use super::status::Vitals;
use super::upload_memory::UploadMemory;
use crate::account::Authenticator;
use crate::config::{Config, Problem};
use crate::retention::Retention;
use crate::store::Store;

/// What a server has whatever its configuration says.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) pseudonyms: Arc<Pseudonyms>,
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) clock: fn() -> SystemTime,
}

/// What requests share and count.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) guard: Arc<Guard>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) upload_memory: Arc<UploadMemory>,
    /// One permit for each request that may be at work.
    pub(crate) turns: Arc<Semaphore>,
}

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

impl Shared {
    fn new(config: &Config, means: &Means) -> Self {
        Self {
            guard: Arc::new(Guard::new(
                &config.limits.rate_limits,
                Arc::clone(&means.vitals),
            )),
            quotas: Arc::new(Quotas::new(config.quotas, Arc::clone(&means.vitals))),
            proxies: Arc::new(Proxies::new(config)),
            upload_memory: Arc::new(UploadMemory::new(
                config.limits.upload_memory,
                config.max_backup_bytes,
            )),
            turns: Arc::new(Semaphore::new(config.limits.requests)),
        }
    }

    /// For another configuration: what its bounds leave as it was is the same.
    fn after(&self, before: &Config, config: &Config, means: &Means) -> Self {
        let new = Self::new(config, means);
        let (old_limits, limits) = (&before.limits, &config.limits);
        let has_same_memory = limits.upload_memory == old_limits.upload_memory
            && config.max_backup_bytes == before.max_backup_bytes;
        new.quotas.know_what(&self.quotas);
        Self {
            guard: Arc::new(Guard::after(
                &self.guard,
                &old_limits.rate_limits,
                &limits.rate_limits,
            )),
            quotas: if config.quotas == before.quotas {
                Arc::clone(&self.quotas)
            } else {
                new.quotas
            },
            // They go with `listen` and `tls`, which wait for a restart.
            proxies: Arc::clone(&self.proxies),
            upload_memory: if has_same_memory {
                Arc::clone(&self.upload_memory)
            } else {
                new.upload_memory
            },
            turns: if limits.requests == old_limits.requests {
                Arc::clone(&self.turns)
            } else {
                new.turns
            },
        }
    }
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
        self.means.vitals.allow(config.max_backup_bytes);
        self.live.0.store(Arc::new(settings));
        self.means.vitals.reloaded(&waiting);
        Ok(waiting)
    }

    pub(crate) fn authenticator(&self) -> Arc<Authenticator> {
        Arc::clone(&self.means.authenticator)
    }

    /// Whether the server was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.means.vitals.is_draining()
    }

    /// Notes why a configuration could not be read; the one before stays in force.
    pub fn failed(&self, problem: String) {
        self.means.vitals.not_reloaded(problem);
    }
}
