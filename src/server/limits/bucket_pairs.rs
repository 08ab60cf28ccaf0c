//! Pairs of token buckets, a narrow one (such as for one account at one address) and a wide one
//! (such as for one network). Each guess takes a token of both, or none.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::token_buckets::TokenBuckets;
use crate::lock::lock;

/// The buckets of all pairs.
pub(super) struct BucketPairs(Mutex<(TokenBuckets, TokenBuckets)>);

/// The keys of one pair in [`BucketPairs`].
#[derive(Clone, Copy)]
pub(super) struct PairKeys {
    pub(super) narrow: u64,
    pub(super) wide: u64,
}

/// Which bucket of a pair is empty, and the time until it holds the next token.
#[derive(Debug)]
pub(super) enum Exhausted {
    Narrow(Duration),
    Wide(Duration),
}

impl BucketPairs {
    pub(super) fn new(narrow: TokenBuckets, wide: TokenBuckets) -> Self {
        Self(Mutex::new((narrow, wide)))
    }

    /// Takes a token of both buckets, or none, and returns how long to wait for them, at most
    /// `max_wait`.
    ///
    /// # Errors
    /// When one of them is empty.
    pub(super) fn take(
        &self,
        keys: PairKeys,
        now: Instant,
        max_wait: Duration,
    ) -> Result<Duration, Exhausted> {
        let (narrow, wide) = &mut *self.lock();
        let wait = narrow
            .take(keys.narrow, now, max_wait)
            .map_err(Exhausted::Narrow)?;
        match wide.take(keys.wide, now, max_wait) {
            Ok(longer) => Ok(wait.max(longer)),
            Err(longer) => {
                narrow.refund(keys.narrow, now);
                Err(Exhausted::Wide(longer))
            }
        }
    }

    /// Puts a token back into both buckets.
    pub(super) fn refund(&self, keys: PairKeys, now: Instant) {
        let (narrow, wide) = &mut *self.lock();
        narrow.refund(keys.narrow, now);
        wide.refund(keys.wide, now);
    }

    fn lock(&self) -> MutexGuard<'_, (TokenBuckets, TokenBuckets)> {
        lock(&self.0)
    }
}
