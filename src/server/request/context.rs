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
            turns: Arc::new(Semaphore::new(config.limits.requests)),
        }
    }

    /// For another configuration: what its bounds leave as it was is the same.
    pub(crate) fn after(&self, before: &Config, config: &Config, means: &Means) -> Self {
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
