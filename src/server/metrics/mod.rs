//! Metrics for Prometheus. Their labels have few values, none of which identifies a person or a
//! client.
//!
//! docs/MONITORING.md explains each metric; `tests/it/docs/operations.rs` compares the two.

mod certificate;
mod health;
mod label;
pub(crate) mod limit;
mod panics;
mod requests;
mod storage;
mod traffic;
pub(crate) mod upload_history;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::certificate::Certificate;
use self::health::Health;
use self::label::{Kind, Number, Outcome};
use self::limit::Refusals;
use self::storage::Storage;
use crate::account::HashCounts;
use crate::retention::Report;
use crate::server::status::{CertificateStatus, Status};
use crate::state::Scrubbed;

pub(crate) use requests::{InFlightRequest, Requests};
pub(crate) use traffic::Traffic;

/// All metrics of one server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Requests,
    traffic: Arc<Traffic>,
    storage: Storage,
    health: Health,
    refusals: Refusals,
    panics: Counter,
    certificate: Certificate,
    config_reloads: Family<Outcome, Counter>,
    passwords_delayed: Counter,
    passwords_hashed: Family<Kind, Counter>,
}

impl Metrics {
    /// Registers all metrics. `started` is the Unix time of the start in seconds.
    pub(crate) fn new(started: u64) -> Self {
        let mut registry = Registry::with_prefix("safe");
        let metrics = Self {
            requests: Requests::register(&mut registry),
            traffic: Arc::new(Traffic::register(&mut registry)),
            storage: Storage::register(&mut registry),
            health: Health::register(&mut registry),
            refusals: Refusals::default(),
            panics: Counter::default(),
            certificate: Certificate::register(&mut registry),
            config_reloads: Family::default(),
            passwords_delayed: Counter::default(),
            passwords_hashed: Family::default(),
            registry: Registry::default(),
        };
        metrics.refusals.register(&mut registry);
        metrics.register_passwords(&mut registry);
        metrics.register_process(&mut registry, started);
        Self {
            registry,
            ..metrics
        }
    }

    fn register_process(&self, registry: &mut Registry, started: u64) {
        registry.register(
            "panics",
            "Panics of the program; the log has their locations",
            self.panics.clone(),
        );
        registry.register(
            "config_reloads",
            "Reloads of the configuration, by outcome",
            self.config_reloads.clone(),
        );
        for outcome in ["done", "failed"] {
            drop(self.config_reloads.get_or_create(&Outcome { outcome }));
        }
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register(
            "build",
            "The version of the program",
            Info::new(Vec::from(version)),
        );
        let start = Number::default();
        start.set(started);
        registry.register_with_unit(
            "start_time",
            "When the server was started, in Unix time",
            Unit::Seconds,
            start,
        );
    }

    fn register_passwords(&self, registry: &mut Registry) {
        registry.register(
            "passwords_delayed",
            "Checks of passwords that were delayed after too many wrong ones",
            self.passwords_delayed.clone(),
        );
        registry.register(
            "passwords_hashed",
            "Passwords that were hashed for a check, by kind of hash",
            self.passwords_hashed.clone(),
        );
        self.hashed(HashCounts { fast: 0, slow: 0 });
    }

    /// Sets the gauges of a status.
    pub(crate) fn health(&self, status: &Status) {
        self.health.set(status);
    }

    /// Counts a reload of the configuration.
    pub(crate) fn config_reloaded(&self, outcome: &'static str) {
        self.config_reloads
            .get_or_create(&Outcome { outcome })
            .inc();
    }

    /// Sets the gauges of the certificate; `reloads` are the successful and the failed ones.
    pub(crate) fn certificate(&self, certificate: &CertificateStatus, reloads: [u64; 2]) {
        self.certificate.set(certificate, reloads);
    }

    /// Counts a check of a password that was delayed.
    pub(crate) fn password_delayed(&self) {
        self.passwords_delayed.inc();
    }

    /// Sets how many passwords were hashed since the start.
    pub(crate) fn hashed(&self, hashed: HashCounts) {
        for (kind, number) in [("fast", hashed.fast), ("slow", hashed.slow)] {
            let counter = self.passwords_hashed.get_or_create(&Kind { kind });
            counter.inner().fetch_max(number, Ordering::Relaxed);
        }
    }

    /// Records a sweep that started at the Unix time `began`; without a report it was aborted.
    pub(crate) fn swept(&self, began: u64, report: Option<&Report>) {
        self.storage.swept(began, report);
    }

    /// Sets the gauges of a completed scrub.
    pub(crate) fn scrubbed(&self, scrubbed: Scrubbed) {
        self.storage.scrubbed(scrubbed);
    }

    /// Counts an operation of the storage that failed for a request.
    pub(crate) fn storage_failed(&self, operation: &'static str) {
        self.storage.failed(operation, 1);
    }

    /// Counts an upload that looked wrong; `kept` says whether the version before is in the trash.
    pub(crate) fn overwritten_suspiciously(&self, kept: bool) {
        self.storage.overwritten(kept);
    }

    /// The counters of refusals.
    pub(crate) fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// The metrics of requests.
    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The metrics of connections.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// The panic hook of the process, which logs and counts panics.
    pub(crate) fn panic_hook(&self) -> panics::Hook {
        panics::hook(self.panics.clone())
    }

    /// All metrics as OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut all = String::new();
        text::encode(&mut all, &self.registry).expect("writing to a string does not fail");
        all
    }
}
