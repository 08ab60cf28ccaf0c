//! What a server remembers of its clock, as the state store serializes it. `crate::clock` gives the
//! values their meaning. Times are Unix times in seconds.

use serde::{Deserialize, Serialize};

/// What is known about the clock, beside the highest time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClockState {
    /// The jump ahead that is neither over nor accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jump: Option<ClockJump>,
    /// Times that were estimated, because the clock was behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated: Option<TimeSpan>,
    /// Corrections of times that turned out to be too early, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub corrections: Vec<Correction>,
    /// How often an operator has accepted the clock.
    pub acceptances: u64,
}

impl ClockState {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A jump of the clock ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClockJump {
    /// The known time when it was noticed.
    pub since: u64,
    /// The known time at the start of the run that noticed it.
    pub run_started: u64,
    /// The earliest time that the clock has shown since.
    pub to: u64,
}

/// A span of time; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeSpan {
    /// Its first second.
    pub from: u64,
    /// Its last second.
    pub until: u64,
}

/// A correction: what carries a time of this span happened `shift` seconds later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Correction {
    /// The first time that is corrected.
    pub from: u64,
    /// The last one.
    pub until: u64,
    /// How many seconds too early these times are.
    pub shift: u64,
}

/// The first sweep of a directory without a state, which waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FirstSweep {
    /// For how many seconds servers have run since.
    pub waited: u64,
    /// True if there was a state, but not a valid one.
    pub invalid_state: bool,
}

/// Backups that sweeps removed on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DayOfExpiry {
    /// When the last of them was removed.
    pub last: u64,
    /// Their number.
    pub backups: u64,
}
