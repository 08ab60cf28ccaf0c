//! State data, as the state store serializes it. Times are Unix times in seconds.

use serde::{Deserialize, Serialize};

use super::clock::{ClockState, DayOfExpiry, FirstSweep};

/// What the server stores from one run to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// When a sweep last completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sweep: Option<u64>,
    /// The latest time that a sweep has read from a clock that it had no reason to doubt. While a
    /// jump of the clock is not accepted, that time and the time for which servers ran since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest_time: Option<u64>,
    /// What else is known about the clock.
    #[serde(skip_serializing_if = "ClockState::is_empty")]
    pub clock: ClockState,
    /// The first sweep, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_sweep: Option<FirstSweep>,
    /// Backups that expired within the last days and that no operator has confirmed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<DayOfExpiry>,
    /// The retention periods announced to phones, the oldest first. A later period does not shorten
    /// an earlier one.
    #[serde(alias = "promises")]
    pub retention_periods: Vec<RetentionPeriod>,
    /// The deletion burst that keeps trash from being erased until an operator acknowledges it.
    #[serde(alias = "burst", skip_serializing_if = "Option::is_none")]
    pub deletion_burst: Option<DeletionBurst>,
    /// Removals up to this time were acknowledged by an operator.
    #[serde(alias = "confirmed", skip_serializing_if = "Option::is_none")]
    pub acknowledged_until: Option<u64>,
    /// Uploads of the last days, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uploads: Vec<DayOfUploads>,
    /// The result of the last scrub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub: Option<Scrubbed>,
}

/// A retention period, and when it took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPeriod {
    /// When it took effect.
    pub since: u64,
    /// The time that a backup is kept after its last upload, in seconds.
    pub keep_seconds: u64,
    /// True if a command recorded it: a running server may still announce the previous period.
    #[serde(alias = "byHand", default, skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
}

/// More removals and suspicious overwrites in one day than phones cause in normal operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletionBurst {
    /// When a sweep detected it.
    pub noticed: u64,
    /// The start of the day with the most removals.
    #[serde(default)]
    pub since: u64,
    /// The number of backups removed or overwritten within that day.
    pub removed: u64,
    /// How many of them were overwritten.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overwritten: u64,
    /// The number of backups before these removals.
    pub of: u64,
}

impl DeletionBurst {
    /// What happened to the backups, as a participle.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match (self.overwritten, self.removed) {
            (0, _) => "deleted",
            (overwritten, removed) if overwritten < removed => "deleted or overwritten",
            _ => "overwritten",
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The uploads of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DayOfUploads {
    /// Days since 1970-01-01, in UTC.
    pub day: u64,
    /// The number of uploads.
    pub uploads: u64,
}

/// The result of a scrub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scrubbed {
    /// When it ended.
    pub finished: u64,
    /// Backups that are as they were stored, or were verified for the first time.
    pub sound: u64,
    /// Backups that are shorter than any valid one.
    pub short: u64,
    /// Backups whose contents changed without an upload.
    pub changed: u64,
    /// Backups that cannot be read.
    pub unreadable: u64,
}

impl Scrubbed {
    /// The number of damaged backups; saturated, because the numbers may come from a file.
    #[must_use]
    pub fn findings(&self) -> u64 {
        let found = self.short.saturating_add(self.changed);
        found.saturating_add(self.unreadable)
    }
}
