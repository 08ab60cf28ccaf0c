//! List of the files a sweep will act on, in bounded memory. A sweep scans everything before it
//! changes anything, and rarely has to scan twice.

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::store;

/// The number of entries held in memory: more than expire in an hour with a million backups, in
/// less than 100 KiB.
pub(super) const MAX_BUFFERED: usize = 1_000;

/// A count of entries, and the entries themselves up to [`MAX_BUFFERED`], so that memory does not
/// depend on their number.
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

    /// All entries; or, if they were too many to buffer, everything that `list` lists, from which
    /// the caller has to select again.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn entries_are_listed_again_only_if_they_were_too_many_to_buffer() {
        for (count, is_relisted) in [
            (0, false),
            (1, false),
            (MAX_BUFFERED, false),
            (MAX_BUFFERED + 1, true),
        ] {
            let mut list = BoundedList::new();
            for number in 0..count {
                list.push(number);
            }
            assert_eq!(list.count(), count as u64);
            assert_eq!(list.buffered.len(), count.min(MAX_BUFFERED));

            let again = || stream::iter([Ok(usize::MAX)]).boxed();
            let found: Vec<_> = list
                .buffered_or_relisted(again)
                .map(Result::unwrap)
                .collect()
                .await;

            let expected = if is_relisted {
                vec![usize::MAX]
            } else {
                (0..count).collect()
            };
            assert_eq!(found, expected, "{count}");
        }
    }
}
