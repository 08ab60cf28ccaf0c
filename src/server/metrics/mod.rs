//! Metrics for Prometheus. Their labels have few values, and none that tells a person or a phone.
//!
//! Each is explained in docs/OPERATIONS.md; `tests/it/operations.rs` compares.

mod certificate;
mod health;
pub(crate) mod limit;
mod panics;
mod requests;
mod storage;
mod traffic;
pub(crate) mod upload_history;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::account::HashCounts;
use crate::retention::Report;
use crate::server::metrics::limit::Refusals;
use crate::server::status::{CertificateStatus, Status};
use crate::state::Scrubbed;

use crate::server::metrics::certificate::Certificate;
use crate::server::metrics::health::Health;
use crate::server::metrics::storage::Storage;

pub(crate) use requests::{RequestInFlight, Requests};
pub(crate) use traffic::Traffic;

/// A whole number that goes up and down.
type Number = Gauge<u64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

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
    /// `started` is a Unix time in seconds.
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
            "Errors in the program that ended a piece of work; the log says where",
            self.panics.clone(),
        );
        registry.register(
            "config_reloads",
            "How often the configuration was read again",
            self.config_reloads.clone(),
        );
        for outcome in ["done", "failed"] {
            drop(self.config_reloads.get_or_create(&Outcome { outcome }));
        }
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The program", Info::new(Vec::from(version)));
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
            "Checks of passwords that had to wait because many wrong ones came before",
            self.passwords_delayed.clone(),
        );
        registry.register(
            "passwords_hashed",
            "Passwords that were hashed to check them",
            self.passwords_hashed.clone(),
        );
        self.hashed(HashCounts { fast: 0, slow: 0 });
    }

    /// How the server is.
    pub(crate) fn health(&self, status: &Status) {
        self.health.set(status);
    }

    /// The configuration was read again, with this outcome.
    pub(crate) fn config_reloaded(&self, outcome: &'static str) {
        self.config_reloads
            .get_or_create(&Outcome { outcome })
            .inc();
    }

    /// How the certificate is.
    pub(crate) fn certificate(&self, certificate: &CertificateStatus, reloads: [u64; 2]) {
        self.certificate.set(certificate, reloads);
    }

    pub(crate) fn password_delayed(&self) {
        self.passwords_delayed.inc();
    }

    pub(crate) fn hashed(&self, hashed: HashCounts) {
        for (kind, number) in [("fast", hashed.fast), ("slow", hashed.slow)] {
            let counter = self.passwords_hashed.get_or_create(&Kind { kind });
            counter.inner().fetch_max(number, Ordering::Relaxed);
        }
    }

    pub(crate) fn swept(&self, began: u64, report: Option<&Report>) {
        self.storage.swept(began, report);
    }

    pub(crate) fn scrubbed(&self, scrubbed: Scrubbed) {
        self.storage.scrubbed(scrubbed);
    }

    /// The storage failed at what it was to do for a request.
    pub(crate) fn storage_failed(&self, operation: &'static str) {
        self.storage.failed(operation, 1);
    }

    /// For whoever refuses.
    pub(crate) fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// For whoever answers requests.
    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// For whoever serves connections.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Logs and counts every panic of the process.
    pub(crate) fn panic_hook(&self) -> panics::Hook {
        panics::hook(self.panics.clone())
    }

    pub(crate) fn text(&self) -> String {
        let mut all = String::new();
        text::encode(&mut all, &self.registry).expect("a string takes all that is written");
        all
    }
}
