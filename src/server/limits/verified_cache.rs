//! Cache of verified passwords, as hashes of credentials and client address.
//!
//! Memory is bounded: when the cache is full, the entries that were not used for longest are
//! evicted, and their passwords are verified again.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, MutexGuard};

use crate::lock::lock;

/// The maximum number of keys. About 1 MiB.
pub(super) const MAX_KEYS: usize = 65_536;

/// Keys in two generations: when the newer one is full, the older one is dropped.
pub(super) struct VerifiedCache {
    max_newer: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    newer: HashSet<u64>,
    older: HashSet<u64>,
}

impl VerifiedCache {
    pub(super) fn new(max_keys: usize) -> Self {
        Self {
            max_newer: max_keys / 2,
            generations: Mutex::default(),
        }
    }

    /// Whether the key is in the cache; if so, it counts as used.
    pub(super) fn contains(&self, key: u64) -> bool {
        let mut generations = self.lock();
        if generations.newer.contains(&key) {
            return true;
        }
        let is_older = generations.older.contains(&key);
        if is_older {
            self.add(&mut generations, key);
        }
        is_older
    }

    pub(super) fn insert(&self, key: u64) {
        let mut generations = self.lock();
        self.add(&mut generations, key);
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        lock(&self.generations)
    }

    fn add(&self, generations: &mut Generations, key: u64) {
        if generations.newer.len() >= self.max_newer {
            generations.older = mem::take(&mut generations.newer);
        }
        generations.newer.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_keys_in_use_are_not_evicted() {
        let cache = VerifiedCache::new(100);
        cache.insert(0);

        for key in 1..10_000 {
            cache.insert(key);
            assert!(cache.contains(key) && cache.contains(0));
            let generations = cache.generations.lock().unwrap();
            assert!(generations.newer.len() + generations.older.len() <= 100);
        }

        assert!(cache.contains(9_960));
        assert!(!cache.contains(1));
        assert!(!cache.contains(10_000));
    }
}
