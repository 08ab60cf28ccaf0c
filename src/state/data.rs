//! The data that is remembered, as it is serialized.

use serde::{Deserialize, Serialize};

/// What is remembered. Times are Unix times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// When a sweep last went through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sweep: Option<u64>,
    /// The highest time that a sweep has seen on a clock which it had no reason to doubt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest_time: Option<u64>,
    /// What phones were promised, the oldest first: a later promise does not shorten an earlier one.
    pub promises: Vec<Promise>,
    /// Why nothing is erased from the trash, until an operator confirms the removals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// Removals up to this time were confirmed by an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<u64>,
    /// Uploads of the last days, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uploads: Vec<DayOfUploads>,
    /// How the last scrub ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub: Option<Scrubbed>,
}

/// How long backups were kept from some time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promise {
    /// From when on.
    pub since: u64,
    /// How long a backup is kept after its last upload.
    pub keep_seconds: u64,
    /// Whether a command noted it: perhaps a server still announces the one before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
}

/// More removals in one day than phones make by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Burst {
    /// When a sweep noticed.
    pub noticed: u64,
    /// When the day began in which the most were removed.
    #[serde(default)]
    pub since: u64,
    /// How many backups were removed within a day.
    pub removed: u64,
    /// Of how many that were there before.
    pub of: u64,
}

/// The uploads of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DayOfUploads {
    /// Days since 1970, in UTC.
    pub day: u64,
    /// How many.
    pub uploads: u64,
}

/// How a scrub ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scrubbed {
    /// When.
    pub finished: u64,
    /// Backups that are as they were stored, or were seen for the first time.
    pub sound: u64,
    /// Backups that are too short to be any.
    pub short: u64,
    /// Backups whose contents changed without an upload.
    pub changed: u64,
    /// Backups that cannot be read.
    pub unreadable: u64,
}

impl Scrubbed {
    /// Backups that somebody has to look at.
    #[must_use]
    pub fn findings(&self) -> u64 {
        self.short + self.changed + self.unreadable
    }
}
