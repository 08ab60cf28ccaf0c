//! Health metrics: the server's state at the time of the scrape.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::server::metrics::label::Number;
use crate::server::status::Status;

/// The gauges that a [`Status`] sets.
#[derive(Default)]
pub(super) struct Health {
    ready: Number,
    storage_writable: Number,
    storage_free: Number,
    sweep_duration: Gauge<f64, AtomicU64>,
}

impl Health {
    /// Creates the metrics and registers them.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let health = Self::default();
        registry.register(
            "ready",
            "1 while the server is ready for clients, as /readyz says",
            health.ready.clone(),
        );
        registry.register(
            "storage_writable",
            "1 while the storage is writable",
            health.storage_writable.clone(),
        );
        registry.register_with_unit(
            "storage_free",
            "Free space of the storage; 0 where the storage does not report it",
            Unit::Bytes,
            health.storage_free.clone(),
        );
        registry.register_with_unit(
            "sweep_duration",
            "Duration of the last sweep",
            Unit::Seconds,
            health.sweep_duration.clone(),
        );
        health
    }

    /// Sets the gauges.
    pub(super) fn set(&self, status: &Status) {
        self.ready.set(u64::from(status.is_ready()));
        let is_writable = status.storage.problem.is_none();
        self.storage_writable.set(u64::from(is_writable));
        self.storage_free
            .set(status.storage.free_bytes.unwrap_or_default());
        if let Some(sweep) = &status.sweep {
            self.sweep_duration.set(sweep.seconds);
        }
    }
}
