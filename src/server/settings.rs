//! Settings in force, and how a reload replaces them.
//!
//! Settings are immutable and replaced as a whole: a request finishes under the settings that it
//! started with, and a connection keeps the connection limits that it was accepted under. Counters
//! (guesses, quotas, upload memory) carry over where their own limits stay the same. Keys that need
//! a restart keep their values from the start; a reload returns them. A reload that leaves no
//! client able to authenticate is refused.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;

use crate::config::{Config, Problem};
use crate::retention::Retention;
use crate::server::net::connection_limiter::ConnectionLimiter;
use crate::server::request::context::{Services, SharedState};
use crate::server::request::handler::RequestHandler;
use crate::server::tls::certificates::Certificates;

/// The settings that follow from one configuration.
pub(crate) struct Settings {
    /// Handles the requests of connections.
    pub(crate) handler: Arc<RequestHandler>,
    /// The limiters and counters that requests share.
    pub(crate) shared: SharedState,
    /// The retention periods.
    pub(crate) retention: Retention,
    /// The configuration itself.
    pub(crate) config: Arc<Config>,
}

/// Handle to the settings in force, which a reload replaces.
pub(crate) struct SettingsHandle(ArcSwap<Settings>);

/// Reloads the settings and files of a running server.
#[derive(Clone)]
pub struct Reloader {
    settings: Arc<SettingsHandle>,
    limiter: Arc<ConnectionLimiter>,
    services: Services,
    certificates: Option<Arc<Certificates>>,
    /// The configuration that the server was started with.
    started: Arc<Config>,
}

impl Settings {
    fn new(config: &Config, services: &Services, shared: SharedState) -> Self {
        let config = Arc::new(config.clone());
        let handler = RequestHandler::new(Arc::clone(&config), services, &shared);
        Self {
            handler: Arc::new(handler),
            shared,
            retention: retention_of(&config),
            config,
        }
    }
}

impl SettingsHandle {
    /// Creates the settings of the start.
    pub(crate) fn new(config: &Config, services: &Services) -> Arc<Self> {
        let settings = Settings::new(config, services, SharedState::new(config, services));
        Arc::new(Self(ArcSwap::from_pointee(settings)))
    }

    /// The settings in force.
    pub(crate) fn current(&self) -> Arc<Settings> {
        self.0.load_full()
    }
}

impl Reloader {
    /// Creates the reloader; `started` is the configuration of the start.
    pub(crate) fn new(
        settings: Arc<SettingsHandle>,
        limiter: Arc<ConnectionLimiter>,
        services: Services,
        certificates: Option<Arc<Certificates>>,
        started: &Config,
    ) -> Self {
        Self {
            settings,
            limiter,
            services,
            certificates,
            started: Arc::new(started.clone()),
        }
    }

    /// Puts another configuration in force, as far as that is possible without a restart. Returns
    /// the changed keys that need a restart; their values from the start stay in force. Blocks,
    /// because it reads the accounts file.
    ///
    /// # Errors
    /// When the accounts file contains no accounts and the configuration turns anonymous access
    /// off, so that no client could authenticate. Then nothing has changed.
    pub fn reload(&self, config: &Config) -> Result<Vec<&'static str>, Problem> {
        self.services.authenticator.file().reload_if_replaced();
        if self.services.authenticator.is_empty() && !config.allow_anonymous {
            return Err(Problem {
                place: "allowAnonymous".into(),
                text:
                    "must be true while there are no accounts; run `account add NAME`, then reload"
                        .into(),
            });
        }
        let waiting = self.started.differs_in(config);
        let before = self.settings.current();
        let shared = before.shared.reconfigured(config);
        let settings = Settings::new(config, &self.services, shared);
        self.limiter.set_limits(config.limits);
        self.settings.0.store(Arc::new(settings));
        self.services.metrics.config_reloaded("done");
        self.services.run_state.config_reloaded(&waiting);
        Ok(waiting)
    }

    /// Reads accounts and certificate again, whether their files were replaced or not. Blocks.
    pub fn reread_files(&self) {
        self.services.authenticator.file().reread();
        if let Some(certificates) = &self.certificates {
            certificates.files().reread();
        }
    }

    /// Spawns the tasks that reload accounts and certificate when their files are replaced.
    pub(crate) fn keep_files_fresh(&self, tasks: &mut JoinSet<()>) {
        tasks.spawn(Arc::clone(self.services.authenticator.file()).keep_fresh());
        if let Some(certificates) = &self.certificates {
            tasks.spawn(Arc::clone(certificates.files()).keep_fresh());
        }
    }

    /// True once a graceful shutdown has started.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.services.run_state.is_draining()
    }

    /// Records why a configuration could not be used; the previous one stays in force.
    pub fn failed(&self, problem: String) {
        self.services.metrics.config_reloaded("failed");
        self.services.run_state.config_failed(problem);
    }
}

/// The retention periods of a configuration.
#[must_use]
pub fn retention_of(config: &Config) -> Retention {
    Retention::of_days(
        config.retention_days,
        config.retention_margin_days,
        config.trash_days,
    )
    .for_backups_of(config.max_backup_bytes)
}
