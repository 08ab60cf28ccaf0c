//! Shared context of requests: services independent of the configuration, and state bounded by it.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::account::Authenticator;
use crate::clock::Clock;
use crate::config::Config;
use crate::retention::RecentUploads;
use crate::server::limits::guess_limiter::GuessLimiter;
use crate::server::limits::overwrites::Overwrites;
use crate::server::limits::quotas::Quotas;
use crate::server::limits::upload_memory::UploadMemory;
use crate::server::metrics::Metrics;
use crate::server::metrics::upload_history::Uploads;
use crate::server::net::proxy_detection::ProxyDetector;
use crate::server::net::trusted_proxies::TrustedProxies;
use crate::server::request::pseudonym::Pseudonyms;
use crate::server::status::RunState;
use crate::store::Store;

/// Services that live as long as the server.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) run_state: Arc<RunState>,
    pub(crate) pseudonyms: Arc<Pseudonyms>,
    pub(crate) proxy_detector: Arc<ProxyDetector>,
    pub(crate) clock: Arc<Clock>,
    /// The uploads that no sweep removes.
    pub(crate) recent: Arc<RecentUploads>,
}

/// State that is bounded by the configuration and shared by all requests.
#[derive(Clone)]
pub(crate) struct SharedState {
    pub(crate) guess_limiter: Arc<GuessLimiter>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) overwrites: Arc<Overwrites>,
    pub(crate) proxies: Arc<TrustedProxies>,
    pub(crate) upload_memory: Arc<UploadMemory>,
    /// `limits.requests`.
    requests: usize,
    /// `limits.requests` permits, one for each request that is being carried out.
    pub(crate) request_permits: Arc<Semaphore>,
}

impl SharedState {
    pub(crate) fn new(config: &Config, services: &Services) -> Self {
        Self {
            guess_limiter: Arc::new(GuessLimiter::new(
                &config.limits.rate_limits,
                Arc::clone(&services.metrics),
            )),
            overwrites: Arc::new(Overwrites::new(Arc::clone(&services.metrics))),
            quotas: Arc::new(Quotas::new(config.quotas, Arc::clone(&services.metrics))),
            proxies: Arc::new(TrustedProxies::new(config)),
            upload_memory: Arc::new(UploadMemory::new(
                config.limits.upload_memory,
                config.max_backup_bytes,
            )),
            requests: config.limits.requests,
            request_permits: Arc::new(Semaphore::new(config.limits.requests)),
        }
    }

    /// The state after a reload. Each part keeps its own state if its settings are unchanged.
    pub(crate) fn reconfigured(&self, config: &Config) -> Self {
        let limits = &config.limits;
        let request_permits = if limits.requests == self.requests {
            Arc::clone(&self.request_permits)
        } else {
            Arc::new(Semaphore::new(limits.requests))
        };
        Self {
            guess_limiter: Arc::new(self.guess_limiter.reconfigured(&limits.rate_limits)),
            overwrites: Arc::clone(&self.overwrites),
            quotas: self.quotas.reconfigured(config.quotas),
            // They belong to `listen` and `tls`, which need a restart.
            proxies: Arc::clone(&self.proxies),
            upload_memory: self
                .upload_memory
                .reconfigured(limits.upload_memory, config.max_backup_bytes),
            requests: limits.requests,
            request_permits,
        }
    }
}
