//! A burst of removals: when a setting in the MDM is mistyped, every iPhone deletes its backup. They lie in the
//! trash then, and stay there until a person has looked.

use std::collections::BTreeMap;

use super::promises;
use crate::state::{Burst, Promise, unix};
use crate::store::Trashed;
use crate::time::HOUR;

/// So many removals within a day are nothing, however few backups there are: a phone or two were set up anew.
const FEW: u64 = 2;
/// Otherwise more than one in this many of all is a burst.
const PART: u64 = 5;
/// Whole hours that hold every day, wherever in an hour it begins.
const HOURS: u64 = 25;

/// Removals by phones, by the hour: a sum for each hour that had one, however many they are.
#[derive(Debug, Default)]
pub(super) struct Removals(BTreeMap<u64, u64>);

impl Removals {
    /// Counts a backup in the trash, unless it had expired or an operator has confirmed its removal.
    pub(super) fn count(
        &mut self,
        trashed: &Trashed,
        promises: &[Promise],
        confirmed: Option<u64>,
    ) {
        let uploaded = unix(trashed.last_upload);
        let keep = promises::keep(promises, trashed.last_upload).as_secs();
        let had_expired = trashed.removed_at > uploaded.saturating_add(keep);
        let is_confirmed = confirmed.is_some_and(|confirmed| trashed.removed_at <= confirmed);
        if !had_expired && !is_confirmed {
            *self.0.entry(trashed.removed_at / HOUR).or_default() += 1;
        }
    }

    /// Whether there are any since that time.
    pub(super) fn go_on_since(&self, time: u64) -> bool {
        self.0.range(time / HOUR..).next().is_some()
    }

    /// The worst day, if it was a burst, where `there` backups are there now.
    pub(super) fn burst(&self, there: u64, now: u64) -> Option<Burst> {
        let day_from = |first: u64| self.0.range(first..first.saturating_add(HOURS));
        let (removed, first) = self
            .0
            .keys()
            .map(|&first| (day_from(first).map(|(_, removed)| removed).sum(), first))
            .max()
            .unwrap_or((0_u64, 0));
        let of = there + removed;
        (removed > FEW && removed * PART > of).then_some(Burst {
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

    fn removed_at(times: impl IntoIterator<Item = u64>, confirmed: Option<u64>) -> Removals {
        let promises = [Promise {
            since: 0,
            keep_seconds: 187 * DAY,
            by_hand: false,
        }];
        let mut removals = Removals::default();
        for removed_at in times {
            let trashed = Trashed {
                id: "0".repeat(64).parse().unwrap(),
                removed_at,
                length: 41,
                last_upload: UNIX_EPOCH + Duration::from_secs(1_000 * DAY),
            };
            removals.count(&trashed, &promises, confirmed);
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
    fn removals_go_on_from_the_hour_of_the_first() {
        let day = 1_001 * DAY;
        let removals = removed_at([day + HOUR - 1], None);

        assert!(removals.go_on_since(day));
        assert!(!removals.go_on_since(day + HOUR));
        assert!(!removed_at([day], Some(day)).go_on_since(day));
    }

    #[test]
    fn what_had_expired_or_was_confirmed_does_not_count() {
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
