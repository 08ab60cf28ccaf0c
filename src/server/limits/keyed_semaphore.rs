//! Semaphores by key. A key without holders and waiters takes no memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock::lock;

/// One semaphore of the same size for each key.
pub(super) struct KeyedSemaphore {
    permits: usize,
    entries: Mutex<HashMap<u64, Entry>>,
}

/// The semaphore of one key.
struct Entry {
    semaphore: Arc<Semaphore>,
    /// Callers that hold a permit or wait for one.
    waiters: usize,
}

/// A permit; released when it is dropped.
pub(super) struct KeyedPermit<'a> {
    // Dropped before the waiter, which may remove the semaphore.
    _permit: OwnedSemaphorePermit,
    _waiter: Waiter<'a>,
}

/// Keeps the entry of a key while a caller waits for a permit or holds one, also when it is
/// cancelled.
struct Waiter<'a> {
    semaphore: &'a KeyedSemaphore,
    key: u64,
}

impl KeyedSemaphore {
    pub(super) fn new(permits: usize) -> Self {
        Self {
            permits,
            entries: Mutex::default(),
        }
    }

    /// Waits for a permit, first come, first served.
    pub(super) async fn acquire(&self, key: u64) -> KeyedPermit<'_> {
        let (semaphore, waiter) = self.wait(key);
        let permit = semaphore
            .acquire_owned()
            .await
            .expect("the semaphores of keys are never closed");
        KeyedPermit {
            _permit: permit,
            _waiter: waiter,
        }
    }

    fn wait(&self, key: u64) -> (Arc<Semaphore>, Waiter<'_>) {
        let mut entries = self.lock();
        let entry = entries.entry(key).or_insert_with(|| Entry {
            semaphore: Arc::new(Semaphore::new(self.permits)),
            waiters: 0,
        });
        entry.waiters += 1;
        let waiter = Waiter {
            semaphore: self,
            key,
        };
        (Arc::clone(&entry.semaphore), waiter)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        lock(&self.entries)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut entries = self.semaphore.lock();
        if let Some(entry) = entries.get_mut(&self.key) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                entries.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn waiters_of_a_key_are_served_in_order_and_a_cancelled_one_leaves_nothing() {
        let semaphore = KeyedSemaphore::new(1);
        let first = semaphore.acquire(1).await;
        let mut second = Box::pin(semaphore.acquire(1));
        assert!((&mut second).now_or_never().is_none());

        assert!(semaphore.acquire(2).now_or_never().is_some(), "another key");
        assert!(semaphore.acquire(1).now_or_never().is_none(), "cancelled");
        drop(first);
        let second = second.now_or_never().unwrap();

        assert_eq!(semaphore.entries.lock().unwrap().len(), 1);
        drop(second);
        assert!(semaphore.entries.lock().unwrap().is_empty());
    }
}
