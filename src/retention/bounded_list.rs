//! What a sweep has found to act on. It looks at everything before it touches anything, and rarely has to look twice.

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::store;

/// So many are kept in mind: more than expire in an hour where there are a million backups, in less than 100 KiB.
pub(super) const MAX_BUFFERED: usize = 1_000;

/// How many files are due, and which, as long as they are few: memory does not depend on their number.
#[derive(Debug)]
pub(super) struct BoundedList<T> {
    count: u64,
    buffered: Vec<T>,
}

impl<T: Send + 'static> BoundedList<T> {
    pub(super) fn new() -> Self {
        Self {
            count: 0,
            buffered: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, item: T) {
        self.count += 1;
        if self.buffered.len() < MAX_BUFFERED {
            self.buffered.push(item);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// All that are due; where they were too many to be kept in mind, what `list` lists, with others among them.
    pub(super) fn buffered_or_relisted(
        self,
        list: impl FnOnce() -> BoxStream<'static, Result<T, store::Error>>,
    ) -> BoxStream<'static, Result<T, store::Error>> {
        if self.count > self.buffered.len() as u64 {
            list()
        } else {
            stream::iter(self.buffered).map(Ok).boxed()
        }
    }
}
