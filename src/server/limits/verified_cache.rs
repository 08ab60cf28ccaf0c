//! Who is known at which address. Memory is bounded: where there is no place, those who were not seen for longest are
//! forgotten, and are looked at once more.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};

/// The most keys that are remembered. About 1 MiB.
pub(super) const MOST: usize = 65_536;

/// Keys in two halves: when one is full, the other is forgotten.
pub(super) struct Known {
    half: usize,
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    newer: HashSet<u64>,
    older: HashSet<u64>,
}

impl Known {
    pub(super) fn new(most: usize) -> Self {
        Self {
            half: most / 2,
            halves: Mutex::default(),
        }
    }

    pub(super) fn contains(&self, key: u64) -> bool {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if halves.newer.contains(&key) {
            return true;
        }
        let is_known = halves.older.contains(&key);
        if is_known {
            self.add(&mut halves, key);
        }
        is_known
    }

    pub(super) fn insert(&self, key: u64) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        self.add(&mut halves, key);
    }

    fn add(&self, halves: &mut Halves, key: u64) {
        if halves.newer.len() >= self.half {
            halves.older = mem::take(&mut halves.newer);
        }
        halves.newer.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_who_comes_often_is_not_forgotten() {
        let known = Known::new(100);
        known.insert(0);

        for key in 1..10_000 {
            known.insert(key);
            assert!(known.contains(key) && known.contains(0));
            let halves = known.halves.lock().unwrap();
            assert!(halves.newer.len() + halves.older.len() <= 100);
        }

        assert!(known.contains(9_960));
        assert!(!known.contains(1));
        assert!(!known.contains(10_000));
    }
}
