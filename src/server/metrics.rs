//! Metrics for Prometheus. Their labels have few values, and none that tells a person or a phone.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::certificates::{CertificateStatus, Reloads};
use super::limit::Refusals;
use crate::account::Hashed;
use crate::retention::{Refusal, Report};
use crate::state::Scrubbed;

/// A whole number that goes up and down.
type Number = Gauge<u64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct YoungerThan {
    younger_than_days: String,
}

pub(super) struct Metrics {
    registry: Registry,
    backups: Family<YoungerThan, Number>,
    sweep_time: Number,
    sweeps_failed: Counter,
    sweep_refused: Family<Reason, Number>,
    removed: Counter,
    trash: Number,
    trash_erased: Counter,
    trash_held: Number,
    scrub_time: Number,
    damaged: Family<Kind, Number>,
    refusals: Refusals,
    panics: Counter,
    stored_bytes: Family<Kind, Number>,
    certificate_ends: Number,
    certificate_unusable: Number,
    certificate_reloads: Family<Outcome, Counter>,
    certificate_orders: Family<Outcome, Counter>,
    certificate_orders_failing: Number,
    certificate_next_order: Number,
    passwords_delayed: Counter,
    passwords_hashed: Family<Kind, Counter>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("safe"),
            backups: Family::default(),
            sweep_time: Gauge::default(),
            sweeps_failed: Counter::default(),
            sweep_refused: Family::default(),
            removed: Counter::default(),
            trash: Gauge::default(),
            trash_erased: Counter::default(),
            trash_held: Gauge::default(),
            scrub_time: Gauge::default(),
            damaged: Family::default(),
            refusals: Refusals::default(),
            panics: Counter::default(),
            stored_bytes: Family::default(),
            certificate_ends: Gauge::default(),
            certificate_unusable: Gauge::default(),
            certificate_reloads: Family::default(),
            certificate_orders: Family::default(),
            certificate_orders_failing: Gauge::default(),
            certificate_next_order: Gauge::default(),
            passwords_delayed: Counter::default(),
            passwords_hashed: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "backups",
            "Backups by age, as the last sweep found them; each is counted once",
            metrics.backups.clone(),
        );
        registry.register_with_unit(
            "sweep_last_time",
            "When a sweep last went through, in Unix time",
            Unit::Seconds,
            metrics.sweep_time.clone(),
        );
        registry.register(
            "sweeps_failed",
            "Sweeps that broke off",
            metrics.sweeps_failed.clone(),
        );
        registry.register(
            "sweep_refused",
            "1 while sweeps do nothing for this reason",
            metrics.sweep_refused.clone(),
        );
        registry.register(
            "backups_removed",
            "Backups that expired and went into the trash",
            metrics.removed.clone(),
        );
        registry.register(
            "trash_backups",
            "Backups in the trash",
            metrics.trash.clone(),
        );
        registry.register(
            "trash_erased",
            "Backups that were erased from the trash",
            metrics.trash_erased.clone(),
        );
        registry.register(
            "trash_held",
            "1 while nothing is erased from the trash, because many backups were deleted within a day",
            metrics.trash_held.clone(),
        );
        registry.register_with_unit(
            "scrub_last_time",
            "When a scrub last ended, in Unix time",
            Unit::Seconds,
            metrics.scrub_time.clone(),
        );
        registry.register(
            "damaged_backups",
            "Backups that the last scrub found damaged, by kind",
            metrics.damaged.clone(),
        );
        metrics.register_limits();
        metrics.register_certificate();
        for reason in Refusal::WORDS {
            metrics
                .sweep_refused
                .get_or_create(&Reason { reason })
                .set(0);
        }
        metrics
    }

    fn register_certificate(&mut self) {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "certificate_end_time",
            "Until when the certificate in force is valid, in Unix time; 0 where a proxy has it",
            Unit::Seconds,
            self.certificate_ends.clone(),
        );
        registry.register(
            "certificate_files_unusable",
            "1 while the certificate's files cannot be used, and what was read before is in force",
            self.certificate_unusable.clone(),
        );
        registry.register(
            "certificate_reloads",
            "How often the certificate's files were replaced and read again",
            self.certificate_reloads.clone(),
        );
        registry.register(
            "certificate_orders",
            "How often an authority was asked for a certificate",
            self.certificate_orders.clone(),
        );
        registry.register(
            "certificate_orders_failing",
            "How many orders for a certificate have failed since the last one that did not",
            self.certificate_orders_failing.clone(),
        );
        registry.register_with_unit(
            "certificate_next_order_time",
            "When an authority is next asked for a certificate, in Unix time; 0 where none is asked",
            Unit::Seconds,
            self.certificate_next_order.clone(),
        );
    }

    /// How the certificate is.
    pub(super) fn certificate(&self, certificate: &CertificateStatus, reloads: Reloads) {
        self.certificate_ends.set(certificate.ends);
        let is_unusable = certificate.problem.is_some();
        self.certificate_unusable.set(u64::from(is_unusable));
        for (outcome, number) in [("done", reloads.good), ("failed", reloads.failed)] {
            let counter = self.certificate_reloads.get_or_create(&Outcome { outcome });
            counter.inner().fetch_max(number, Ordering::Relaxed);
        }
        let Some(acme) = &certificate.acme else {
            return;
        };
        for (outcome, number) in [("done", acme.issued), ("failed", acme.failed)] {
            let counter = self.certificate_orders.get_or_create(&Outcome { outcome });
            counter.inner().fetch_max(number, Ordering::Relaxed);
        }
        let failing = acme.failure.as_ref().map_or(0, |failure| failure.times);
        self.certificate_orders_failing.set(failing.into());
        self.certificate_next_order.set(acme.next_order);
    }

    fn register_limits(&mut self) {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "stored",
            "What the backups and the trash take, as the last sweep found them",
            Unit::Bytes,
            self.stored_bytes.clone(),
        );
        self.refusals.register(registry);
        registry.register(
            "panics",
            "Errors in the program that ended a piece of work; the log says where",
            self.panics.clone(),
        );
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
        let Some(report) = report else {
            self.sweeps_failed.inc();
            return;
        };
        let refused = report.refused.map(Refusal::word);
        for reason in Refusal::WORDS {
            let is_it = u64::from(refused == Some(reason));
            self.sweep_refused
                .get_or_create(&Reason { reason })
                .set(is_it);
        }
        if refused.is_none() {
            self.sweep_time.set(began);
        }
        for class in report.ages.classes() {
            let younger_than_days = class
                .younger_than_days
                .map_or_else(|| "+Inf".to_owned(), |days| days.to_string());
            self.backups
                .get_or_create(&YoungerThan { younger_than_days })
                .set(class.backups);
        }
        self.removed.inc_by(report.removed);
        for (kind, bytes) in [
            ("backups", report.kept_bytes),
            ("trash", report.trash_bytes),
        ] {
            self.stored_bytes.get_or_create(&Kind { kind }).set(bytes);
        }
        self.trash.set(report.trash_kept);
        self.trash_erased.inc_by(report.trash_erased);
        self.trash_held.set(u64::from(report.trash_held.is_some()));
    }

    pub(super) fn scrubbed(&self, scrubbed: Scrubbed) {
        self.scrub_time.set(scrubbed.finished);
        for (kind, backups) in [
            ("short", scrubbed.short),
            ("changed", scrubbed.changed),
            ("unreadable", scrubbed.unreadable),
        ] {
            self.damaged.get_or_create(&Kind { kind }).set(backups);
        }
    }

    /// For whoever refuses.
    pub(super) fn refusals(&self) -> Refusals {
        self.refusals.clone()
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
