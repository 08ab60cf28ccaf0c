//! What a sweep has found to act on. It looks at everything before it touches anything, and rarely has to look twice.

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::store;

/// So many are kept in mind: more than expire in an hour where there are a million backups, in less than 100 KiB.
pub(super) const KEPT_IN_MIND: usize = 1_000;

/// How many files are due, and which, as long as they are few: memory does not depend on their number.
#[derive(Debug)]
pub(super) struct Due<T> {
    count: u64,
    first: Vec<T>,
}

impl<T: Send + 'static> Due<T> {
    pub(super) fn none() -> Self {
        Self {
            count: 0,
            first: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, item: T) {
        self.count += 1;
        if self.first.len() < KEPT_IN_MIND {
            self.first.push(item);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// All that are due; where they were too many to be kept in mind, what `list` lists, with others among them.
    pub(super) fn or_all(
        self,
        list: impl FnOnce() -> BoxStream<'static, Result<T, store::Error>>,
    ) -> BoxStream<'static, Result<T, store::Error>> {
        if self.count > self.first.len() as u64 {
            list()
        } else {
            stream::iter(self.first).map(Ok).boxed()
        }
    }
}
