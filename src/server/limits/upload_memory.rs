//! Memory for uploads under way, counted in bytes. One address may hold half of it, so that nobody keeps all others
//! from uploading by announcing what never comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::server::net::client_address::Prefix;

/// Beyond so many addresses, those that hold nothing are forgotten.
const MANY: usize = 1_024;

/// All of it, one permit for each byte.
pub(crate) struct UploadMemory {
    all: Arc<Semaphore>,
    of_one: usize,
    shares: Mutex<HashMap<Prefix, Weak<Semaphore>>>,
}

/// The bytes of one upload, until it is dropped.
pub(crate) struct Share {
    _all: OwnedSemaphorePermit,
    _of_one: OwnedSemaphorePermit,
}

impl UploadMemory {
    /// So many bytes; an upload of `largest` finds room in any case.
    pub(crate) fn new(bytes: usize, largest: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(bytes)),
            of_one: (bytes / 2).max(largest),
            shares: Mutex::default(),
        }
    }

    /// Waits for so many bytes, for an upload from there.
    pub(crate) async fn take(&self, prefix: Prefix, bytes: u32) -> Share {
        const OPEN: &str = "the semaphores of memory are never closed";
        // First its own: whoever waits for that takes nothing from others.
        let of_one = self.of_one(prefix).acquire_many_owned(bytes);
        let of_one = of_one.await.expect(OPEN);
        let all = Arc::clone(&self.all).acquire_many_owned(bytes);
        Share {
            _all: all.await.expect(OPEN),
            _of_one: of_one,
        }
    }

    fn of_one(&self, prefix: Prefix) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&prefix).and_then(Weak::upgrade) {
            return share;
        }
        if shares.len() >= MANY {
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(self.of_one));
        shares.insert(prefix, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const OFFICE: Prefix = Prefix::V4([192, 0, 2, 1]);
    const HOME: Prefix = Prefix::V4([192, 0, 2, 2]);

    #[tokio::test]
    async fn one_address_holds_half_and_others_find_room() {
        let memory = UploadMemory::new(100, 10);
        let held = memory.take(OFFICE, 50).now_or_never().unwrap();

        assert!(memory.take(OFFICE, 1).now_or_never().is_none());
        let other = memory.take(HOME, 50).now_or_never().unwrap();
        assert!(memory.take(Prefix::Unknown, 1).now_or_never().is_none());
        drop(held);
        drop(memory.take(OFFICE, 50).now_or_never().unwrap());
        drop(other);
    }

    #[tokio::test]
    async fn the_largest_upload_finds_room_and_addresses_are_forgotten() {
        let memory = UploadMemory::new(100, 100);
        drop(memory.take(OFFICE, 100).now_or_never().unwrap());
        for number in 0..5_000_u16 {
            let [a, b] = number.to_be_bytes();
            drop(memory.take(Prefix::V4([10, 0, a, b]), 1).await);
        }
        assert!(memory.shares.lock().unwrap().len() <= MANY);
    }
}
