//! The certificate: until when it is valid, how it was read again, and how an authority was asked for it.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::server::metrics::{Number, Outcome};
use crate::server::status::CertificateStatus;

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
    pub(super) fn register(registry: &mut Registry) -> Self {
        let its = Self::default();
        registry.register_with_unit(
            "certificate_begin_time",
            "From when on the certificate in force is valid, in Unix time; 0 where a proxy has it",
            Unit::Seconds,
            its.begins.clone(),
        );
        registry.register_with_unit(
            "certificate_end_time",
            "Until when the certificate in force is valid, in Unix time; 0 where a proxy has it",
            Unit::Seconds,
            its.ends.clone(),
        );
        registry.register(
            "certificate_files_unusable",
            "1 while the certificate's files cannot be used, and what was read before is in force",
            its.unusable.clone(),
        );
        registry.register(
            "certificate_reloads",
            "How often the certificate's files were replaced and read again",
            its.reloads.clone(),
        );
        registry.register(
            "certificate_orders",
            "How often an authority was asked for a certificate",
            its.orders.clone(),
        );
        registry.register(
            "certificate_orders_failing",
            "How many orders for a certificate have failed since the last one that did not",
            its.orders_failing.clone(),
        );
        registry.register_with_unit(
            "certificate_next_order_time",
            "When an authority is next asked for a certificate, in Unix time; 0 where none is asked",
            Unit::Seconds,
            its.next_order.clone(),
        );
        count(&its.reloads, 0, 0);
        count(&its.orders, 0, 0);
        its
    }

    /// `reloads` that succeeded and that failed.
    pub(super) fn set(&self, status: &CertificateStatus, [good, failed]: [u64; 2]) {
        self.begins.set(status.begins);
        self.ends.set(status.ends);
        self.unusable.set(u64::from(status.problem.is_some()));
        count(&self.reloads, good, failed);
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
