//! Token buckets, one for each key: so many tokens at once, and as many again in each period.
//!
//! Time is an argument. Memory is bounded: where a new bucket finds no place, the fullest one is forgotten. So nobody
//! gets an emptied bucket forgotten but by emptying all others further, which takes more tokens than it gives.
//!
//! Written here because the crate for it, governor, neither takes tokens back nor bounds its memory.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// How many buckets there are at the most; full ones take no place. About 5 MiB for each size.
pub(super) const MOST: usize = 65_536;

/// Buckets of one size.
pub(super) struct Buckets {
    /// The time in which one token comes.
    each: Duration,
    /// The time in which an empty bucket fills.
    whole: Duration,
    most: usize,
    /// Key → when its bucket will be full. A bucket that is not here is full.
    full_at: HashMap<u64, Instant>,
    /// The same, the fullest first: the order does not change as time passes.
    by_fullness: BTreeSet<(Instant, u64)>,
}

impl Buckets {
    /// At the most `most` buckets of `tokens` tokens, each of which fills in `period`.
    pub(super) fn new(tokens: NonZeroU32, period: Duration, most: usize) -> Self {
        let each = period / tokens.get();
        Self {
            each,
            whole: each * tokens.get(),
            most,
            full_at: HashMap::new(),
            by_fullness: BTreeSet::new(),
        }
    }

    /// Takes a token out of the bucket, also one that comes within `patience`: says how long to wait for it.
    ///
    /// # Errors
    /// When there is none, with the time in which there is one. Nothing is taken then: whoever asks in vain does not
    /// have to wait longer for it.
    pub(super) fn take(
        &mut self,
        key: u64,
        now: Instant,
        patience: Duration,
    ) -> Result<Duration, Duration> {
        let full_at = self.full_at.get(&key).map_or(now, |&time| time.max(now)) + self.each;
        let wait = (full_at - now).saturating_sub(self.whole);
        if wait > patience {
            return Err(wait);
        }
        self.set(key, full_at, now);
        Ok(wait)
    }

    /// Puts a token back.
    pub(super) fn give_back(&mut self, key: u64, now: Instant) {
        if let Some(&full_at) = self.full_at.get(&key) {
            self.set(key, full_at.checked_sub(self.each).unwrap_or(now), now);
        }
    }

    fn set(&mut self, key: u64, full_at: Instant, now: Instant) {
        if let Some(old) = self.full_at.remove(&key) {
            self.by_fullness.remove(&(old, key));
        }
        while let Some(&(fullest, other)) = self.by_fullness.first() {
            if fullest > now && self.full_at.len() < self.most {
                break;
            }
            self.by_fullness.pop_first();
            self.full_at.remove(&other);
        }
        if full_at > now {
            self.full_at.insert(key, full_at);
            self.by_fullness.insert((full_at, key));
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
    fn buckets(most: usize) -> (Buckets, Instant) {
        (
            Buckets::new(NonZeroU32::new(60).unwrap(), HOUR, most),
            Instant::now(),
        )
    }

    fn take_until_empty(buckets: &mut Buckets, key: u64, now: Instant) -> u32 {
        let mut taken = 0;
        while buckets.take(key, now, NO_WAIT).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_bucket_gives_what_it_holds_and_then_what_comes() {
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
    fn a_token_that_comes_soon_is_waited_for_and_the_next_one_longer() {
        let (mut buckets, now) = buckets(10);
        take_until_empty(&mut buckets, 1, now);

        assert_eq!(buckets.take(1, now, MINUTE * 2), Ok(MINUTE));
        assert_eq!(buckets.take(1, now, MINUTE * 2), Ok(MINUTE * 2));
        assert_eq!(buckets.take(1, now, MINUTE * 2), Err(MINUTE * 3));
        assert_eq!(buckets.take(1, now, MINUTE * 2), Err(MINUTE * 3));
    }

    #[test]
    fn a_token_that_is_given_back_can_be_taken_and_none_comes_of_it() {
        let (mut buckets, now) = buckets(10);
        buckets.give_back(1, now);
        assert_eq!(take_until_empty(&mut buckets, 1, now), 60);

        buckets.give_back(1, now);

        assert_eq!(take_until_empty(&mut buckets, 1, now), 1);
        for _ in 0..100 {
            buckets.give_back(1, now);
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
    fn memory_is_bounded_and_a_flood_of_others_does_not_fill_an_empty_bucket() {
        let (mut buckets, now) = buckets(100);
        take_until_empty(&mut buckets, 1, now);

        for key in 2..10_000 {
            for _ in 0..3 {
                buckets.take(key, now, NO_WAIT).unwrap();
            }
            assert!(buckets.full_at.len() <= 100);
            assert_eq!(buckets.full_at.len(), buckets.by_fullness.len());
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

        assert_eq!((buckets.full_at.len(), buckets.by_fullness.len()), (1, 1));
        buckets.give_back(50, now + MINUTE);
        assert!(buckets.full_at.is_empty() && buckets.by_fullness.is_empty());
    }
}
