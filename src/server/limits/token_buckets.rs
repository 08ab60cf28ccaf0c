//! Token buckets by key, as the generic cell rate algorithm (GCRA): a bucket allows a burst of as
//! many requests as it holds tokens, and is refilled with as many in each period.
//!
//! Time is an argument. Memory is bounded: when the table is full, a new bucket evicts the fullest
//! one. So an attacker gets an emptied bucket evicted only by emptying all others further, which
//! takes more tokens than it gains.
//!
//! Written by hand because governor, the crate for it, has no refund and no bound on its memory.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// The maximum number of buckets that are not full; full ones take no memory. About 5 MiB for each
/// [`TokenBuckets`].
pub(super) const MAX_BUCKETS: usize = 65_536;

/// Token buckets of one size, by key.
pub(super) struct TokenBuckets {
    /// The time in which one token is refilled (GCRA: emission interval).
    interval: Duration,
    /// The time in which an empty bucket fills.
    period: Duration,
    max_buckets: usize,
    /// Key → theoretical arrival time, at which its bucket is full again. A bucket that is not here
    /// is full.
    arrivals: HashMap<u64, Instant>,
    /// The same by time, the fullest bucket first: the order does not change as time passes.
    by_arrival: BTreeSet<(Instant, u64)>,
}

impl TokenBuckets {
    /// At most `max_buckets` buckets of `tokens` tokens, each of which fills in `period`.
    pub(super) fn new(tokens: NonZeroU32, period: Duration, max_buckets: usize) -> Self {
        let interval = period / tokens.get();
        Self {
            interval,
            period: interval * tokens.get(),
            max_buckets,
            arrivals: HashMap::new(),
            by_arrival: BTreeSet::new(),
        }
    }

    /// Takes a token out of the bucket, also one that is refilled within `max_wait`, and returns
    /// how long to wait for it.
    ///
    /// # Errors
    /// When the bucket is empty, with the time until it holds the next token. Nothing is taken
    /// then: a caller that is refused does not have to wait longer for the next attempt.
    pub(super) fn take(
        &mut self,
        key: u64,
        now: Instant,
        max_wait: Duration,
    ) -> Result<Duration, Duration> {
        let arrival = self.arrivals.get(&key).map_or(now, |&time| time.max(now)) + self.interval;
        let wait = (arrival - now).saturating_sub(self.period);
        if wait > max_wait {
            return Err(wait);
        }
        self.set_arrival(key, arrival, now);
        Ok(wait)
    }

    /// Puts a token back.
    pub(super) fn refund(&mut self, key: u64, now: Instant) {
        if let Some(&arrival) = self.arrivals.get(&key) {
            let arrival = arrival.checked_sub(self.interval).unwrap_or(now);
            self.set_arrival(key, arrival, now);
        }
    }

    /// Changes one bucket; drops the full ones, and evicts the fullest while the table is full.
    fn set_arrival(&mut self, key: u64, arrival: Instant, now: Instant) {
        if let Some(old) = self.arrivals.remove(&key) {
            self.by_arrival.remove(&(old, key));
        }
        while let Some(&(fullest, other)) = self.by_arrival.first() {
            if fullest > now && self.arrivals.len() < self.max_buckets {
                break;
            }
            self.by_arrival.pop_first();
            self.arrivals.remove(&other);
        }
        if arrival > now {
            self.arrivals.insert(key, arrival);
            self.by_arrival.insert((arrival, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const MINUTE: Duration = Duration::from_secs(60);
    const NO_WAIT: Duration = Duration::ZERO;

    /// Sixty tokens an hour.
    fn buckets(max_buckets: usize) -> (TokenBuckets, Instant) {
        (
            TokenBuckets::new(NonZeroU32::new(60).unwrap(), HOUR, max_buckets),
            Instant::now(),
        )
    }

    fn take_until_empty(buckets: &mut TokenBuckets, key: u64, now: Instant) -> u32 {
        let mut taken = 0;
        while buckets.take(key, now, NO_WAIT).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_bucket_allows_its_burst_and_then_its_refill_rate() {
        let (mut buckets, now) = buckets(10);

        assert_eq!(take_until_empty(&mut buckets, 1, now), 60);
        assert_eq!(buckets.take(1, now, NO_WAIT), Err(MINUTE));
        let later = now + MINUTE / 2;
        assert_eq!(buckets.take(1, later, NO_WAIT), Err(MINUTE / 2));
        assert_eq!(
            take_until_empty(&mut buckets, 1, now + Duration::from_secs(185)),
            3
        );
        assert_eq!(
            take_until_empty(&mut buckets, 1, now + HOUR * 9),
            60,
            "no more than it holds"
        );
    }

    #[test]
    fn a_token_that_is_refilled_soon_is_waited_for_and_the_next_one_longer() {
        let (mut buckets, now) = buckets(10);
        take_until_empty(&mut buckets, 1, now);

        assert_eq!(buckets.take(1, now, MINUTE * 2), Ok(MINUTE));
        assert_eq!(buckets.take(1, now, MINUTE * 2), Ok(MINUTE * 2));
        assert_eq!(buckets.take(1, now, MINUTE * 2), Err(MINUTE * 3));
        assert_eq!(buckets.take(1, now, MINUTE * 2), Err(MINUTE * 3));
    }

    #[test]
    fn a_refunded_token_can_be_taken_and_a_full_bucket_takes_no_more() {
        let (mut buckets, now) = buckets(10);
        buckets.refund(1, now);
        assert_eq!(take_until_empty(&mut buckets, 1, now), 60);

        buckets.refund(1, now);

        assert_eq!(take_until_empty(&mut buckets, 1, now), 1);
        for _ in 0..100 {
            buckets.refund(1, now);
        }
        assert_eq!(take_until_empty(&mut buckets, 1, now), 60);
    }

    #[test]
    fn each_key_has_its_own_bucket() {
        let (mut buckets, now) = buckets(10);

        take_until_empty(&mut buckets, 1, now);

        assert_eq!(buckets.take(2, now, NO_WAIT), Ok(NO_WAIT));
    }

    #[test]
    fn memory_is_bounded_and_a_flood_of_keys_does_not_evict_an_empty_bucket() {
        let (mut buckets, now) = buckets(100);
        take_until_empty(&mut buckets, 1, now);

        for key in 2..10_000 {
            for _ in 0..3 {
                buckets.take(key, now, NO_WAIT).unwrap();
            }
            assert!(buckets.arrivals.len() <= 100);
            assert_eq!(buckets.arrivals.len(), buckets.by_arrival.len());
        }

        assert_eq!(buckets.take(1, now, NO_WAIT), Err(MINUTE));
    }

    #[test]
    fn full_buckets_take_no_memory() {
        let (mut buckets, now) = buckets(100);
        for key in 0..50 {
            buckets.take(key, now, NO_WAIT).unwrap();
        }

        buckets.take(50, now + MINUTE, NO_WAIT).unwrap();

        assert_eq!((buckets.arrivals.len(), buckets.by_arrival.len()), (1, 1));
        buckets.refund(50, now + MINUTE);
        assert!(buckets.arrivals.is_empty() && buckets.by_arrival.is_empty());
    }
}
