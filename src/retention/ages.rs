//! How old backups are, counted.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::time::DAY;

/// Days that divide the ages of backups, beside the retention period itself.
const BOUNDS: [u32; 5] = [1, 2, 7, 30, 90];

/// Backups by the time since their last upload, the youngest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ages(Vec<Age>);

/// Backups of some age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Age {
    /// Younger than this many days, and not counted before. `None`: all that are older.
    pub younger_than_days: Option<u32>,
    /// How many.
    pub backups: u64,
}

impl Ages {
    /// Counts nothing yet; the last bound is the announced retention.
    pub(super) fn up_to(retention_days: u32) -> Self {
        let bounds = BOUNDS.into_iter().filter(|bound| *bound < retention_days);
        let ends = bounds.chain([retention_days]).map(Some).chain([None]);
        Self(
            ends.map(|younger_than_days| Age {
                younger_than_days,
                backups: 0,
            })
            .collect(),
        )
    }

    pub(super) fn count(&mut self, last_upload: SystemTime, now: SystemTime) {
        // A backup from the future is as young as can be.
        let age = now.duration_since(last_upload).unwrap_or_default();
        let is_within = |age_class: &&mut Age| {
            age_class
                .younger_than_days
                .is_none_or(|days| age < Duration::from_secs(u64::from(days) * DAY))
        };
        if let Some(class) = self.0.iter_mut().find(is_within) {
            class.backups += 1;
        }
    }

    /// Backups that are younger than so many days, one of the bounds.
    #[must_use]
    pub fn younger_than(&self, days: u32) -> u64 {
        let young = |age: &&Age| age.younger_than_days.is_some_and(|bound| bound <= days);
        self.0.iter().filter(young).map(|age| age.backups).sum()
    }

    /// The classes, the youngest first.
    #[must_use]
    pub fn classes(&self) -> &[Age] {
        &self.0
    }
}
