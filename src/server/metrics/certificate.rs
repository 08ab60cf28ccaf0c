//! Certificate metrics: validity, reloads of the files, and ACME orders.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::server::metrics::label::{Number, Outcome};
use crate::server::status::CertificateStatus;

/// The metrics of the certificate.
#[derive(Default)]
pub(super) struct Certificate {
    begins: Number,
    ends: Number,
    unusable: Number,
    reloads: Family<Outcome, Counter>,
    orders: Family<Outcome, Counter>,
    orders_failing: Number,
    next_order: Number,
}

impl Certificate {
    /// Creates the metrics and registers them.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register_with_unit(
            "certificate_begin_time",
            "When the validity of the certificate in force begins, in Unix time; 0 where a proxy terminates TLS",
            Unit::Seconds,
            metrics.begins.clone(),
        );
        registry.register_with_unit(
            "certificate_end_time",
            "When the validity of the certificate in force ends, in Unix time; 0 where a proxy terminates TLS",
            Unit::Seconds,
            metrics.ends.clone(),
        );
        registry.register(
            "certificate_files_unusable",
            "1 while the certificate's files cannot be used, and the previous certificate is in force",
            metrics.unusable.clone(),
        );
        registry.register(
            "certificate_reloads",
            "Reloads of the certificate's files, by outcome",
            metrics.reloads.clone(),
        );
        registry.register(
            "certificate_orders",
            "Orders for a certificate (ACME), by outcome",
            metrics.orders.clone(),
        );
        registry.register(
            "certificate_orders_failing",
            "Orders for a certificate that failed since the last successful one",
            metrics.orders_failing.clone(),
        );
        registry.register_with_unit(
            "certificate_next_order_time",
            "When the next order for a certificate is due, in Unix time; 0 without ACME",
            Unit::Seconds,
            metrics.next_order.clone(),
        );
        count(&metrics.reloads, 0, 0);
        count(&metrics.orders, 0, 0);
        metrics
    }

    /// Sets the metrics; the reloads since the start are the successful and the failed ones.
    pub(super) fn set(&self, status: &CertificateStatus, [done, failed]: [u64; 2]) {
        self.begins.set(status.begins);
        self.ends.set(status.ends);
        self.unusable.set(u64::from(status.problem.is_some()));
        count(&self.reloads, done, failed);
        if let Some(acme) = &status.acme {
            count(&self.orders, acme.issued, acme.failed);
            let failing = acme.failure.as_ref().map_or(0, |failure| failure.times);
            self.orders_failing.set(failing.into());
            self.next_order.set(acme.next_order);
        }
    }
}

fn count(family: &Family<Outcome, Counter>, done: u64, failed: u64) {
    for (outcome, number) in [("done", done), ("failed", failed)] {
        let counter = family.get_or_create(&Outcome { outcome });
        counter.inner().fetch_max(number, Ordering::Relaxed);
    }
}
