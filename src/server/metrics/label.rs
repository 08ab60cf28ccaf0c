//! Shared types of the metrics: integer gauges and label sets.
//!
//! Label values are constants of this program, never text from a client, so that the number of
//! series is bounded.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::gauge::Gauge;

/// An integer gauge.
pub(super) type Number = Gauge<u64, AtomicU64>;

/// The outcome of an operation: `done` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Outcome {
    pub(super) outcome: &'static str,
}

/// A kind of event, hash, damage or failure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Kind {
    pub(super) kind: &'static str,
}

/// A limit that refused a client ([`super::limit::Limit::label`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LimitName {
    pub(super) limit: &'static str,
}

/// A resource and a method.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Endpoint {
    pub(super) route: &'static str,
    pub(super) method: &'static str,
}

/// A resource, a method and the class of the response's status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResponseClass {
    pub(super) route: &'static str,
    pub(super) method: &'static str,
    pub(super) class: &'static str,
}

/// Why sweeps remove nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Reason {
    pub(super) reason: &'static str,
}

/// An operation of the storage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Operation {
    pub(super) operation: &'static str,
}

/// The upper bound of a bucket of ages in days; `+Inf` for the last.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct YoungerThan {
    pub(super) younger_than_days: String,
}

/// The upper bound of a bucket of sizes in percent of `maxBackupBytes`; `+Inf` for the last.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct UpTo {
    pub(super) up_to_percent: String,
}

/// A period in days.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Within {
    pub(super) within_days: u32,
}
