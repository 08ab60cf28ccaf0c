//! Histogram of backup ages, by the time since the last upload.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::time::DAY;

/// Upper bounds of the buckets in days; the announced retention is added as the last one.
const BOUNDS: [u32; 5] = [1, 2, 7, 30, 90];

/// Numbers of backups by the time since their last upload, the youngest bucket first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgeHistogram(Vec<AgeBucket>);

/// One bucket: the number of backups in a range of ages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgeBucket {
    /// The upper bound in days, exclusive; backups of lower buckets are not included. `None`: no
    /// bound.
    pub younger_than_days: Option<u32>,
    /// The number of backups in this bucket alone.
    pub backups: u64,
}

impl AgeHistogram {
    /// An empty histogram whose last bound is the announced retention.
    pub(super) fn up_to(retention_days: u32) -> Self {
        let bounds = BOUNDS.into_iter().filter(|bound| *bound < retention_days);
        let ends = bounds.chain([retention_days]).map(Some).chain([None]);
        Self(
            ends.map(|younger_than_days| AgeBucket {
                younger_than_days,
                backups: 0,
            })
            .collect(),
        )
    }

    pub(super) fn count(&mut self, last_upload: SystemTime, now: SystemTime) {
        // An upload time in the future counts as age 0.
        let age = now.duration_since(last_upload).unwrap_or_default();
        let is_within = |bucket: &&mut AgeBucket| {
            bucket
                .younger_than_days
                .is_none_or(|days| age < Duration::from_secs(u64::from(days) * DAY))
        };
        if let Some(bucket) = self.0.iter_mut().find(is_within) {
            bucket.backups += 1;
        }
    }

    /// The number of backups younger than `days`, which must be one of the bounds.
    #[must_use]
    pub fn younger_than(&self, days: u32) -> u64 {
        let young =
            |bucket: &&AgeBucket| bucket.younger_than_days.is_some_and(|bound| bound <= days);
        self.0
            .iter()
            .filter(young)
            .map(|bucket| bucket.backups)
            .sum()
    }

    /// The buckets, the youngest first.
    #[must_use]
    pub fn buckets(&self) -> &[AgeBucket] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn bounds(retention_days: u32) -> Vec<Option<u32>> {
        let ages = AgeHistogram::up_to(retention_days);
        let buckets = ages.buckets().iter();
        buckets.map(|bucket| bucket.younger_than_days).collect()
    }

    #[test]
    fn the_last_bound_is_the_retention_and_no_bound_is_there_twice() {
        let [day, two, week] = [Some(1), Some(2), Some(7)];
        assert_eq!(bounds(1), [day, None]);
        assert_eq!(bounds(7), [day, two, week, None]);
        assert_eq!(bounds(29), [day, two, week, Some(29), None]);
        assert_eq!(bounds(30), [day, two, week, Some(30), None]);
        assert_eq!(bounds(31), [day, two, week, Some(30), Some(31), None]);
    }

    #[test]
    fn a_backup_as_old_as_a_bound_is_in_the_next_bucket() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let day = Duration::from_secs(86_400);
        let moment = Duration::from_nanos(1);
        for (last_upload, expected) in [
            (now + day, [1, 0, 0, 0]),
            (now, [1, 0, 0, 0]),
            (now - day + moment, [1, 0, 0, 0]),
            (now - day, [0, 1, 0, 0]),
            (now - day * 2, [0, 0, 1, 0]),
            (now - day * 7 + moment, [0, 0, 1, 0]),
            (now - day * 7, [0, 0, 0, 1]),
        ] {
            let mut ages = AgeHistogram::up_to(7);
            ages.count(last_upload, now);
            let found: Vec<_> = ages.buckets().iter().map(|bucket| bucket.backups).collect();
            assert_eq!(found, expected, "{last_upload:?}");
            ages.count(now, now);
            assert_eq!(ages.younger_than(2), 1 + expected[0] + expected[1]);
        }
    }
}
