//! Histogram of backup sizes, relative to `maxBackupBytes`.

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets, in percent of `maxBackupBytes`.
const BOUNDS: [u32; 6] = [10, 25, 50, 80, 90, 100];

/// Numbers of backups by size, the smallest bucket first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SizeHistogram(Vec<SizeBucket>);

/// One bucket: the number of backups in a range of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SizeBucket {
    /// The upper bound in percent of `maxBackupBytes`, inclusive; backups of lower buckets are not
    /// included. `None`: no bound, for backups stored while `maxBackupBytes` was larger.
    pub up_to_percent: Option<u32>,
    /// The number of backups in this bucket alone.
    pub backups: u64,
}

impl SizeHistogram {
    /// An empty histogram.
    pub(super) fn new() -> Self {
        let ends = BOUNDS.into_iter().map(Some).chain([None]);
        Self(
            ends.map(|up_to_percent| SizeBucket {
                up_to_percent,
                backups: 0,
            })
            .collect(),
        )
    }

    pub(super) fn count(&mut self, length: u64, max_backup_bytes: u64) {
        let is_within = |bucket: &&mut SizeBucket| {
            bucket.up_to_percent.is_none_or(|percent| {
                u128::from(length) * 100 <= u128::from(max_backup_bytes) * u128::from(percent)
            })
        };
        if let Some(bucket) = self.0.iter_mut().find(is_within) {
            bucket.backups += 1;
        }
    }

    /// The buckets, the smallest first.
    #[must_use]
    pub fn buckets(&self) -> &[SizeBucket] {
        &self.0
    }

    /// The number of backups larger than 80 % of `maxBackupBytes`. An app whose backup exceeds
    /// `maxBackupBytes` stops uploading, and does not notify the user.
    #[must_use]
    pub fn over_80_percent(&self) -> u64 {
        let large = |bucket: &&SizeBucket| bucket.up_to_percent.is_none_or(|percent| percent > 80);
        self.0
            .iter()
            .filter(large)
            .map(|bucket| bucket.backups)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_in_the_first_bucket_that_holds_it() {
        for (length, expected) in [
            (0, Some(10)),
            (100, Some(10)),
            (101, Some(25)),
            (800, Some(80)),
            (801, Some(90)),
            (1_000, Some(100)),
            (1_001, None),
            (u64::MAX, None),
        ] {
            let mut sizes = SizeHistogram::new();
            sizes.count(length, 1_000);
            let counted: Vec<_> = sizes
                .buckets()
                .iter()
                .filter(|bucket| bucket.backups > 0)
                .collect();
            assert_eq!(counted.len(), 1);
            assert_eq!(counted[0].up_to_percent, expected, "{length}");
            let is_large = expected.is_none_or(|percent| percent > 80);
            assert_eq!(sizes.over_80_percent(), u64::from(is_large), "{length}");
        }
    }
}
