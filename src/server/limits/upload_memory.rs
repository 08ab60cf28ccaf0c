//! Memory budget for uploads in flight, in bytes. One client address may hold half of it, or one
//! upload of the maximum size if that is more, so that a client cannot block all others by
//! announcing uploads that it never sends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock::lock;
use crate::server::net::client_address::Prefix;

/// The number of addresses in the table at which those without an upload in flight are removed.
const CLEANUP_THRESHOLD: usize = 1_024;

/// The budget, as semaphores with one permit for each byte.
pub(crate) struct UploadMemory {
    /// The budget in bytes.
    bytes: usize,
    total: Arc<Semaphore>,
    max_per_address: usize,
    /// The semaphores of addresses with uploads in flight.
    addresses: Mutex<HashMap<Prefix, Weak<Semaphore>>>,
}

/// The bytes of one upload; released when it is dropped.
pub(crate) struct MemoryPermit {
    _of_total: OwnedSemaphorePermit,
    _of_address: OwnedSemaphorePermit,
}

impl UploadMemory {
    /// A budget of `bytes`. An upload of `largest` bytes fits in any case.
    pub(crate) fn new(bytes: usize, largest: usize) -> Self {
        Self {
            bytes,
            total: Arc::new(Semaphore::new(bytes)),
            max_per_address: Self::max_per_address(bytes, largest),
            addresses: Mutex::default(),
        }
    }

    /// The budget after a reload: the same one if its size is unchanged.
    pub(crate) fn reconfigured(self: &Arc<Self>, bytes: usize, largest: usize) -> Arc<Self> {
        let size = (bytes, Self::max_per_address(bytes, largest));
        if size == (self.bytes, self.max_per_address) {
            Arc::clone(self)
        } else {
            Arc::new(Self::new(bytes, largest))
        }
    }

    fn max_per_address(bytes: usize, largest: usize) -> usize {
        (bytes / 2).max(largest)
    }

    /// Waits until the budget has room for an upload of `bytes` from `prefix`.
    pub(crate) async fn acquire(&self, prefix: Prefix, bytes: u32) -> MemoryPermit {
        const NEVER_CLOSED: &str = "the semaphores of the upload memory are never closed";
        // The permits of the address first: an upload that waits for them holds none of the total.
        let of_address = self.address(prefix).acquire_many_owned(bytes);
        let of_address = of_address.await.expect(NEVER_CLOSED);
        let of_total = Arc::clone(&self.total).acquire_many_owned(bytes);
        MemoryPermit {
            _of_total: of_total.await.expect(NEVER_CLOSED),
            _of_address: of_address,
        }
    }

    fn address(&self, prefix: Prefix) -> Arc<Semaphore> {
        let mut addresses = lock(&self.addresses);
        if let Some(semaphore) = addresses.get(&prefix).and_then(Weak::upgrade) {
            return semaphore;
        }
        if addresses.len() >= CLEANUP_THRESHOLD {
            addresses.retain(|_, semaphore| semaphore.strong_count() > 0);
        }
        let semaphore = Arc::new(Semaphore::new(self.max_per_address));
        addresses.insert(prefix, Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const OFFICE: Prefix = Prefix::V4([192, 0, 2, 1]);
    const HOME: Prefix = Prefix::V4([192, 0, 2, 2]);

    #[tokio::test]
    async fn one_address_holds_half_and_the_rest_is_left_to_others() {
        let memory = UploadMemory::new(100, 10);
        let held = memory.acquire(OFFICE, 50).now_or_never().unwrap();

        assert!(memory.acquire(OFFICE, 1).now_or_never().is_none());
        let other = memory.acquire(HOME, 50).now_or_never().unwrap();
        assert!(memory.acquire(Prefix::Unknown, 1).now_or_never().is_none());
        drop(held);
        drop(memory.acquire(OFFICE, 50).now_or_never().unwrap());
        drop(other);
    }

    #[tokio::test]
    async fn the_largest_upload_fits_and_addresses_are_removed() {
        let memory = UploadMemory::new(100, 100);
        drop(memory.acquire(OFFICE, 100).now_or_never().unwrap());
        for number in 0..5_000_u16 {
            let [a, b] = number.to_be_bytes();
            drop(memory.acquire(Prefix::V4([10, 0, a, b]), 1).await);
        }
        assert!(memory.addresses.lock().unwrap().len() <= CLEANUP_THRESHOLD);
    }
    #[tokio::test]
    async fn the_table_forgets_all_addresses_but_those_with_an_upload_in_flight() {
        let memory = UploadMemory::new(10_000, 1);
        let mut held = Vec::new();
        for number in 0..2_000_u16 {
            let [a, b] = number.to_be_bytes();
            held.push(memory.acquire(Prefix::V4([10, 0, a, b]), 1).await);
        }
        let office = memory.acquire(OFFICE, 5_000).now_or_never().unwrap();
        drop(held);

        drop(memory.acquire(HOME, 1).await);

        assert_eq!(memory.addresses.lock().unwrap().len(), 2);
        assert!(memory.acquire(OFFICE, 1).now_or_never().is_none());
        drop(office);
    }

    #[tokio::test]
    async fn a_reload_keeps_the_budget_unless_its_size_changes() {
        let memory = Arc::new(UploadMemory::new(100, 10));
        for (bytes, largest, is_kept) in [
            (100, 10, true),
            (100, 50, true),
            (100, 51, false),
            (101, 10, false),
        ] {
            let after = memory.reconfigured(bytes, largest);
            assert_eq!(Arc::ptr_eq(&memory, &after), is_kept, "{bytes} {largest}");
            let whole = u32::try_from(after.max_per_address).unwrap();
            assert_eq!(after.max_per_address, largest.max(bytes / 2));
            assert!(after.acquire(OFFICE, whole).now_or_never().is_some());
        }
    }
}
