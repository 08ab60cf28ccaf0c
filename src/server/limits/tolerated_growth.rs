//! Growth of existing backups that is tolerated although a quota is exceeded.
//!
//! A backup grows with every new contact. If a full quota refused that, phones would keep an old
//! backup and tell nobody. Much growth at once, or by many small steps, is a way around the quota
//! instead: what a backup may grow is measured from the length that it had when the first step was
//! tolerated, and once a week from its length then.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// A backup may grow by one part in this many of its length,
const SHARE: u64 = 4;
/// but always by so many bytes, which are some fifteen contacts,
const MIN_BYTES: u64 = 4 << 10;
/// and never by more than these, so that many backups do not fill a disk by a quarter each.
const MAX_BYTES: u64 = 64 << 10;
/// The time after which the growth is measured anew.
const PERIOD: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The number of backups whose growth is known: about 3 MiB. One more evicts the oldest.
const MAX_BACKUPS: usize = 65_536;

/// The backups that grew although a quota was exceeded, by the hash of their id.
#[derive(Debug, Default)]
pub(super) struct ToleratedGrowth(HashMap<u64, Start>);

/// From where growth is measured.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// The length in bytes.
    length: u64,
    since: Instant,
}

impl ToleratedGrowth {
    /// Whether a backup of `before` bytes may be replaced by one of `length` bytes at `now`; if so,
    /// later growth is measured from where this growth was.
    pub(super) fn tolerates(
        &mut self,
        backup: u64,
        before: u64,
        length: u64,
        now: Instant,
    ) -> bool {
        let known = self.0.get(&backup).copied().filter(|start| {
            // A backup that is larger than was tolerated has grown within the quotas meanwhile.
            now.saturating_duration_since(start.since) < PERIOD && before <= largest(start.length)
        });
        let start = known.unwrap_or(Start {
            length: before,
            since: now,
        });
        let is_tolerated = length <= largest(start.length);
        if is_tolerated && known.is_none() {
            self.insert(backup, start);
        }
        is_tolerated
    }

    fn insert(&mut self, backup: u64, start: Start) {
        if self.0.len() >= MAX_BACKUPS && !self.0.contains_key(&backup) {
            let oldest = self.0.iter().min_by_key(|(_, start)| start.since);
            if let Some((&oldest, _)) = oldest {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(backup, start);
    }
}

/// The length to which a backup of `length` bytes may grow.
fn largest(length: u64) -> u64 {
    length.saturating_add((length / SHARE).clamp(MIN_BYTES, MAX_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_grows_by_a_quarter_but_by_no_less_and_no_more_than_the_bounds() {
        for (before, largest) in [
            (0, 4_096),
            (100, 4_196),
            (16_384, 20_480),
            (100_000, 125_000),
            (262_144, 327_680),
            (268_435_456, 268_500_992),
            (u64::MAX, u64::MAX),
        ] {
            let tolerates =
                |length| ToleratedGrowth::default().tolerates(1, before, length, Instant::now());
            assert!(tolerates(largest), "{before}");
            assert!(largest == u64::MAX || !tolerates(largest + 1), "{before}");
        }
    }

    #[test]
    fn steps_add_up_from_where_the_first_began_until_a_week_has_passed() {
        let mut growth = ToleratedGrowth::default();
        let start = Instant::now();
        let mut length = 100_000;
        for day in 0..6 {
            let now = start + PERIOD / 7 * day;
            assert!(growth.tolerates(1, length, length + 4_000, now), "{day}");
            length += 4_000;
        }
        let end = start + PERIOD - Duration::from_nanos(1);
        assert!(growth.tolerates(1, length, 125_000, end));
        assert!(!growth.tolerates(1, 125_000, 125_001, end));
        // To shrink in between does not help.
        assert!(growth.tolerates(1, 50_000, 125_000, end));
        assert!(!growth.tolerates(1, 50_000, 125_001, end));
        // Another backup has a start of its own.
        assert!(growth.tolerates(2, 125_000, 125_001, end));

        let after = start + PERIOD;
        assert!(growth.tolerates(1, 125_000, 156_250, after));
        assert!(!growth.tolerates(1, 156_250, 156_251, after));
    }

    #[test]
    fn growth_within_the_quotas_is_not_held_against_a_backup() {
        let now = Instant::now();
        let mut growth = ToleratedGrowth::default();
        assert!(growth.tolerates(1, 100, 200, now));
        assert!(growth.tolerates(1, 500_000, 500_001, now));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_is_evicted() {
        let mut growth = ToleratedGrowth::default();
        let start = Instant::now();
        let at = |backup: u64| start + Duration::from_nanos(backup);
        let count = MAX_BACKUPS as u64 + 1;
        for backup in 0..count {
            assert!(growth.tolerates(backup, 100, 4_196, at(backup)));
        }

        assert_eq!(growth.0.len(), MAX_BACKUPS);
        assert!(!growth.tolerates(1, 4_196, 4_197, at(count)));
        assert!(growth.tolerates(0, 4_196, 4_197, at(count)));
    }
}
