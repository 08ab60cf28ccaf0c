//! Detection of deletion bursts. When an MDM setting is mistyped, every iPhone deletes its backup;
//! a stolen account, or a copy in the wrong direction, overwrites many. The backups are in the trash
//! then, and stay there until an operator restores them or confirms the deletion.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::retention_history;
use crate::clock;
use crate::state::{Correction, DeletionBurst, RetentionPeriod};
use crate::store::{TrashKind, Trashed};
use crate::time::{DAY, HOUR, unix};

/// Up to this many removals within a day are no burst, however few backups there are: a phone or
/// two were set up again.
const MAX_ORDINARY: u64 = 2;
/// Above that, more than one in this many of all backups is a burst.
const FRACTION: u64 = 5;
/// Whole hours that cover a day, wherever in an hour it begins.
const HOURS_OF_A_DAY: u64 = 25;

/// What went into the trash within an hour.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    deleted: u64,
    overwritten: u64,
}

/// Numbers of removals by phones and of suspicious overwrites, by the hour. One sum for each hour,
/// so memory does not depend on the number of removals.
#[derive(Debug, Default)]
pub(super) struct Removals {
    hours: BTreeMap<u64, Count>,
    /// Hashes of the backups that were overwritten on a day: one that is overwritten several times
    /// counts once. Their number is bounded as the bytes of kept versions are.
    overwritten: HashSet<u64>,
    keys: RandomState,
}

impl Removals {
    /// Counts a backup in the trash, unless it was removed because it had expired, a restore
    /// replaced it, or an operator has confirmed its removal.
    pub(super) fn count(
        &mut self,
        trashed: &Trashed,
        periods: &[RetentionPeriod],
        corrections: &[Correction],
        acknowledged_until: Option<u64>,
    ) {
        if acknowledged_until.is_some_and(|until| trashed.removed_at <= until) {
            return;
        }
        let hour = trashed.removed_at / HOUR;
        match trashed.kind {
            TrashKind::RolledBack => {}
            TrashKind::Replaced => {
                let key = self.keys.hash_one((trashed.id, trashed.removed_at / DAY));
                if self.overwritten.insert(key) {
                    self.hours.entry(hour).or_default().overwritten += 1;
                }
            }
            TrashKind::Removed => {
                // As the sweep that removes what has expired.
                let corrected = |time| clock::corrected(corrections, time);
                let uploaded = corrected(unix(trashed.last_upload));
                let keep = retention_history::keep(periods, uploaded).as_secs();
                let had_expired = corrected(trashed.removed_at) > uploaded.saturating_add(keep);
                if !had_expired {
                    self.hours.entry(hour).or_default().deleted += 1;
                }
            }
        }
    }

    /// True if there are removals in the hour of this Unix time or later.
    pub(super) fn any_since(&self, time: u64) -> bool {
        self.hours.range(time / HOUR..).next().is_some()
    }

    /// The day with the most removals, if it was a burst. `stored` is the number of backups now.
    pub(super) fn burst(&self, stored: u64, now: u64) -> Option<DeletionBurst> {
        let day_from = |first: u64| {
            let hours = self
                .hours
                .range(first..first.saturating_add(HOURS_OF_A_DAY));
            hours.fold(Count::default(), |sum, (_, hour)| Count {
                deleted: sum.deleted + hour.deleted,
                overwritten: sum.overwritten + hour.overwritten,
            })
        };
        let days = self.hours.keys().map(|&first| (day_from(first), first));
        let (day, first) =
            days.max_by_key(|(day, first)| (day.deleted + day.overwritten, *first))?;
        // An overwritten backup is still stored, or was deleted too.
        let of = stored.saturating_add(day.deleted);
        let removed = (day.deleted + day.overwritten).min(of);
        (removed > MAX_ORDINARY && removed.saturating_mul(FRACTION) > of).then_some(DeletionBurst {
            noticed: now,
            since: first * HOUR,
            removed,
            overwritten: day.overwritten.min(of),
            of,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

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
                kind: TrashKind::Removed,
                removed_at,
                length: 41,
                last_upload: UNIX_EPOCH + Duration::from_secs(1_000 * DAY),
            };
            removals.count(&trashed, &periods, &[], acknowledged_until);
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

    /// What is in the trash: the numbers of the backups, how they came there, and when.
    fn trash(entries: &[(u8, TrashKind, u64)]) -> Removals {
        let mut removals = Removals::default();
        for &(id, kind, removed_at) in entries {
            let trashed = Trashed {
                id: crate::backup::BackupId::from_bytes([id; 32]),
                kind,
                removed_at,
                length: 41,
                last_upload: UNIX_EPOCH + Duration::from_secs(1_000 * DAY),
            };
            removals.count(&trashed, &[], &[], None);
        }
        removals
    }

    #[test]
    fn overwritten_backups_count_once_a_day_and_what_a_restore_replaced_does_not() {
        use TrashKind::{Removed, Replaced, RolledBack};
        let day = 1_001 * DAY;
        let burst = |entries: &[_], stored| {
            let burst = trash(entries).burst(stored, day)?;
            Some((burst.removed, burst.overwritten, burst.of, burst.what()))
        };
        let three = [1, 2, 3].map(|id| (id, Replaced, day + u64::from(id)));
        assert_eq!(burst(&three, 15), None);
        assert_eq!(burst(&three, 14), Some((3, 3, 14, "overwritten")));
        assert_eq!(burst(&[1, 1, 1].map(|id| (id, Replaced, day)), 3), None);
        assert_eq!(burst(&[1, 2, 3].map(|id| (id, RolledBack, day)), 3), None);
        assert!(!trash(&[(1, RolledBack, day)]).any_since(day));
        let mixed = [(1, Replaced, day), (2, Removed, day), (3, Removed, day)];
        let both = "deleted or overwritten";
        assert_eq!(burst(&mixed, 5), Some((3, 1, 7, both)));
        // Overwritten, then deleted: it is one backup.
        let twice = [1, 2, 3].map(|id| [(id, Replaced, day), (id, Removed, day + 1)]);
        assert_eq!(burst(&twice.concat(), 0), Some((3, 3, 3, "overwritten")));
        let deleted = [1, 2, 3].map(|id| (id, Removed, day));
        assert_eq!(burst(&deleted, 0), Some((3, 0, 3, "deleted")));
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
