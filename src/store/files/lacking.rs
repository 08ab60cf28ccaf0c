//! What a data directory's file system has turned out to lack.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::file_system::{Call, Replaced};

/// The calls on which the operations on backups rely.
const CALLS: [Call; 5] = [
    Call::Lock,
    Call::RenameToNew,
    Call::Link,
    Call::SyncDirectory,
    Call::SetTime,
];

/// The calls that were replaced so far.
#[derive(Debug, Default)]
pub(super) struct Lacking([AtomicBool; CALLS.len()]);

impl Lacking {
    /// Notes the call that was replaced.
    pub(super) fn note(&self, replaced: Replaced) {
        let Some(replaced) = replaced else {
            return;
        };
        for (call, is_lacking) in CALLS.iter().zip(&self.0) {
            if *call == replaced {
                is_lacking.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The calls that the file system lacks.
    pub(super) fn calls(&self) -> Vec<Call> {
        let all = CALLS.into_iter().zip(&self.0);
        all.filter_map(|(call, is_lacking)| is_lacking.load(Ordering::Relaxed).then_some(call))
            .collect()
    }

    /// Logs what the file system lacks. Once for each server, not for each request.
    pub(super) fn log(&self) {
        for call in self.calls() {
            tracing::warn!(lacking = call.consequence(), "file system lacks a call");
        }
    }
}
