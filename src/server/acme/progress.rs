//! State of the ACME orders, for the status.

use std::sync::Mutex;

use crate::lock::lock;
use crate::server::acme::schedule::OrderFailure;
use crate::server::status::{AcmeStatus, Failure};

/// The status, updated by the renewer.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<AcmeStatus>);

impl Progress {
    /// The status now.
    pub(crate) fn status(&self) -> AcmeStatus {
        self.lock().clone()
    }

    /// When the next order may begin.
    pub(super) fn next_order(&self, time: u64) {
        self.lock().next_order = time;
    }

    /// An order has started.
    pub(super) fn started(&self) {
        self.lock().is_ordering = true;
    }

    /// Sets how the last order failed, also one of an earlier run.
    pub(super) fn set_failure(&self, failure: Option<&OrderFailure>) {
        self.lock().failure = failure.map(|failure| Failure {
            times: failure.count,
            last: failure.last,
            reason: failure.text.clone(),
        });
    }

    /// An order has ended.
    pub(super) fn ended(&self, failure: Option<&OrderFailure>) {
        self.set_failure(failure);
        let mut status = self.lock();
        status.is_ordering = false;
        if failure.is_some() {
            status.failed += 1;
        } else {
            status.issued += 1;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, AcmeStatus> {
        lock(&self.0)
    }
}
