//! What requests share: services that no configuration changes, and state that one configuration bounds.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;

use crate::account::Authenticator;
use crate::config::Config;
use crate::server::limits::guess_limiter::Guard;
use crate::server::limits::quotas::Quotas;
use crate::server::limits::upload_memory::UploadMemory;
use crate::server::metrics::Metrics;
use crate::server::metrics::upload_history::Uploads;
use crate::server::net::proxy_detection::Crowd;
use crate::server::net::trusted_proxies::Proxies;
use crate::server::request::pseudonym::Pseudonyms;
use crate::server::status::RunState;
use crate::store::Store;

/// What a server has whatever its configuration says.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) run_state: Arc<RunState>,
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
    /// The permits that `turns` had at first.
    requests: usize,
    /// One permit for each request that may be at work.
    pub(crate) turns: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn new(config: &Config, means: &Means) -> Self {
        Self {
            guard: Arc::new(Guard::new(
                &config.limits.rate_limits,
                Arc::clone(&means.metrics),
            )),
            quotas: Arc::new(Quotas::new(config.quotas, Arc::clone(&means.metrics))),
            proxies: Arc::new(Proxies::new(config)),
            upload_memory: Arc::new(UploadMemory::new(
                config.limits.upload_memory,
                config.max_backup_bytes,
            )),
            requests: config.limits.requests,
            turns: Arc::new(Semaphore::new(config.limits.requests)),
        }
    }

    /// For another configuration. Each part carries its state over where its own settings stay the same.
    pub(crate) fn reconfigured(&self, config: &Config) -> Self {
        let limits = &config.limits;
        let turns = if limits.requests == self.requests {
            Arc::clone(&self.turns)
        } else {
            Arc::new(Semaphore::new(limits.requests))
        };
        Self {
            guard: Arc::new(self.guard.reconfigured(&limits.rate_limits)),
            quotas: self.quotas.reconfigured(config.quotas),
            // They go with `listen` and `tls`, which need a restart.
            proxies: Arc::clone(&self.proxies),
            upload_memory: self
                .upload_memory
                .reconfigured(limits.upload_memory, config.max_backup_bytes),
            requests: limits.requests,
            turns,
        }
    }
}
