//! How it stands with the certificate that an authority is asked for.

use std::sync::{Mutex, PoisonError};

use crate::server::acme::schedule::Failed;
use crate::server::status::{AcmeStatus, Failure};

/// The status as it changes.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<AcmeStatus>);

impl Progress {
    pub(crate) fn status(&self) -> AcmeStatus {
        self.known().clone()
    }

    /// When the next order may begin.
    pub(super) fn next_order(&self, time: u64) {
        self.known().next_order = time;
    }

    pub(super) fn begins(&self) {
        self.known().is_ordering = true;
    }

    /// How the last order of an earlier run failed.
    pub(super) fn remember(&self, failed: Option<&Failed>) {
        self.known().failure = failed.map(|failed| Failure {
            times: failed.count,
            last: failed.last,
            reason: failed.text.clone(),
        });
    }

    pub(super) fn ended(&self, failed: Option<&Failed>) {
        self.remember(failed);
        let mut known = self.known();
        known.is_ordering = false;
        if failed.is_some() {
            known.failed += 1;
        } else {
            known.issued += 1;
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, AcmeStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
