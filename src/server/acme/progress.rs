//! State of the ACME orders, for the server's status.

use std::sync::Mutex;

use crate::lock::lock;
use crate::server::acme::schedule::OrderFailure;
use crate::server::status::{AcmeStatus, Failure};

/// The state of the orders, updated by the renewer.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<AcmeStatus>);

impl Progress {
    /// A copy of the state.
    pub(crate) fn status(&self) -> AcmeStatus {
        self.lock().clone()
    }

    /// Sets when the next order may start, as Unix time in seconds.
    pub(super) fn next_order(&self, time: u64) {
        self.lock().next_order = time;
    }

    /// Records that an order has started.
    pub(super) fn started(&self) {
        self.lock().is_ordering = true;
    }

    /// Sets how the last order failed, in this run or an earlier one; `None` if it succeeded.
    pub(super) fn set_failure(&self, failure: Option<&OrderFailure>) {
        self.lock().failure = failure.map(|failure| Failure {
            times: failure.count,
            last: failure.last,
            reason: failure.text.clone(),
        });
    }

    /// Records that an order has ended; `None` for success.
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
