//! Detection of deletion bursts. When an MDM setting is mistyped, every iPhone deletes its backup.
//! The backups are in the trash then, and stay there until an operator restores them or confirms
//! the deletion.

use std::collections::BTreeMap;

use super::retention_history;
use crate::state::{DeletionBurst, RetentionPeriod};
use crate::store::Trashed;
use crate::time::HOUR;
use crate::time::unix;

/// Up to this many removals within a day are no burst, however few backups there are: a phone or
/// two were set up again.
const MAX_ORDINARY: u64 = 2;
/// Above that, more than one in this many of all backups is a burst.
const FRACTION: u64 = 5;
/// Whole hours that cover a day, wherever in an hour it begins.
const HOURS_OF_A_DAY: u64 = 25;

/// Numbers of removals by phones, by the hour. One sum for each hour with a removal, so memory does
/// not depend on the number of removals.
#[derive(Debug, Default)]
pub(super) struct Removals(BTreeMap<u64, u64>);

impl Removals {
    /// Counts a backup in the trash, unless it was removed because it had expired, or an operator
    /// has confirmed its removal.
    pub(super) fn count(
        &mut self,
        trashed: &Trashed,
        periods: &[RetentionPeriod],
        acknowledged_until: Option<u64>,
    ) {
        let uploaded = unix(trashed.last_upload);
        let keep = retention_history::keep(periods, trashed.last_upload).as_secs();
        let had_expired = trashed.removed_at > uploaded.saturating_add(keep);
        let is_acknowledged = acknowledged_until.is_some_and(|until| trashed.removed_at <= until);
        if !had_expired && !is_acknowledged {
            *self.0.entry(trashed.removed_at / HOUR).or_default() += 1;
        }
    }

    /// True if there are removals in the hour of this Unix time or later.
    pub(super) fn any_since(&self, time: u64) -> bool {
        self.0.range(time / HOUR..).next().is_some()
    }

    /// The day with the most removals, if it was a burst. `stored` is the number of backups now.
    pub(super) fn burst(&self, stored: u64, now: u64) -> Option<DeletionBurst> {
        let day_from = |first: u64| self.0.range(first..first.saturating_add(HOURS_OF_A_DAY));
        let (removed, first) = self
            .0
            .keys()
            .map(|&first| (day_from(first).map(|(_, removed)| removed).sum(), first))
            .max()
            .unwrap_or((0_u64, 0));
        let of = stored.saturating_add(removed);
        (removed > MAX_ORDINARY && removed.saturating_mul(FRACTION) > of).then_some(DeletionBurst {
            noticed: now,
            since: first * HOUR,
            removed,
            of,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::time::DAY;

    fn removed_at(
        times: impl IntoIterator<Item = u64>,
        acknowledged_until: Option<u64>,
    ) -> Removals {
        let periods = [RetentionPeriod {
            since: 0,
            keep_seconds: 187 * DAY,
            manual: false,
        }];
        let mut removals = Removals::default();
        for removed_at in times {
            let trashed = Trashed {
                id: "0".repeat(64).parse().unwrap(),
                removed_at,
                length: 41,
                last_upload: UNIX_EPOCH + Duration::from_secs(1_000 * DAY),
            };
            removals.count(&trashed, &periods, acknowledged_until);
        }
        removals
    }

    #[test]
    fn more_than_a_fifth_within_a_day_is_a_burst() {
        let day = 1_001 * DAY;
        let three = removed_at([day, day + 1, day + DAY - 1], None);

        assert_eq!(three.burst(12, day), None);
        let burst = three.burst(11, day + 7).unwrap();
        assert_eq!((burst.removed, burst.of, burst.noticed), (3, 14, day + 7));
        assert_eq!(burst.since, day);
        let late_in_an_hour = [day + HOUR - 1, day + DAY, day + DAY];
        assert!(removed_at(late_in_an_hour, None).burst(0, day).is_some());
        let slow = removed_at([day, day + DAY + HOUR, day + 2 * (DAY + HOUR)], None);
        assert_eq!(slow.burst(0, day), None);
        let two = removed_at([day, day], None);
        assert_eq!(two.burst(0, day), None);
    }

    #[test]
    fn any_since_includes_the_hour_of_the_given_time() {
        let day = 1_001 * DAY;
        let removals = removed_at([day + HOUR - 1], None);

        assert!(removals.any_since(day));
        assert!(!removals.any_since(day + HOUR));
        assert!(!removed_at([day], Some(day)).any_since(day));
    }

    #[test]
    fn expired_and_acknowledged_removals_do_not_count() {
        let expired = 1_187 * DAY + 1;
        assert_eq!(removed_at([expired; 9], None).burst(0, expired), None);
        assert!(
            removed_at([expired - 1; 9], None)
                .burst(0, expired)
                .is_some()
        );

        let day = 1_001 * DAY;
        assert_eq!(removed_at([day; 9], Some(day)).burst(0, day), None);
        assert!(removed_at([day; 9], Some(day - 1)).burst(0, day).is_some());
    }
}
