//! Metrics for Prometheus. Their labels have few values, and none that tells a person or a phone.
//!
//! Each is explained in docs/OPERATIONS.md; `tests/it/docs/operations.rs` compares.

mod certificate;
mod health;
mod requests;
mod storage;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::certificates::{CertificateStatus, Reloads};
use super::limit::Refusals;
use super::status::Status;
use crate::account::Hashed;
use crate::retention::Report;
use crate::state::Scrubbed;

use self::certificate::Certificate;
use self::health::Health;
use self::storage::Storage;

pub(super) use requests::{Begun, Requests};
pub(super) use traffic::Traffic;

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

pub(super) struct Metrics {
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
    pub(super) fn new(started: u64) -> Self {
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
        self.hashed(Hashed { fast: 0, slow: 0 });
    }

    /// How the server is.
    pub(super) fn health(&self, status: &Status) {
        self.health.set(status);
    }

    /// The configuration was read again, with this outcome.
    pub(super) fn config_reloaded(&self, outcome: &'static str) {
        self.config_reloads
            .get_or_create(&Outcome { outcome })
            .inc();
    }

    /// How the certificate is.
    pub(super) fn certificate(&self, certificate: &CertificateStatus, reloads: Reloads) {
        self.certificate.set(certificate, reloads);
    }

    pub(super) fn password_delayed(&self) {
        self.passwords_delayed.inc();
    }

    pub(super) fn hashed(&self, hashed: Hashed) {
        for (kind, number) in [("fast", hashed.fast), ("slow", hashed.slow)] {
            let counter = self.passwords_hashed.get_or_create(&Kind { kind });
            counter.inner().fetch_max(number, Ordering::Relaxed);
        }
    }

    pub(super) fn swept(&self, began: u64, report: Option<&Report>) {
        self.storage.swept(began, report);
    }

    pub(super) fn scrubbed(&self, scrubbed: Scrubbed) {
        self.storage.scrubbed(scrubbed);
    }

    /// The storage failed at what it was to do for a request.
    pub(super) fn storage_failed(&self, operation: &'static str) {
        self.storage.failed(operation, 1);
    }

    /// For whoever refuses.
    pub(super) fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// For whoever answers requests.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// For whoever serves connections.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Counts what the panic hook sees.
    pub(super) fn panics(&self) -> Counter {
        self.panics.clone()
    }

    pub(super) fn text(&self) -> String {
        let mut all = String::new();
        text::encode(&mut all, &self.registry).expect("a string takes all that is written");
        all
    }
}
