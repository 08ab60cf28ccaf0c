//! When a sweep had better not go through: clocks go wrong, and so do settings (docs/DURABILITY.md).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state::State;
use crate::time::{DAY, HumanSeconds};

/// More expired backups than this in one sweep want a look…
const MANY: u64 = 10;
/// …where they are more than one in this many of all.
const PART: u64 = 5;

/// Why a sweep did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "reason",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Refusal {
    /// The clock shows a time before one that was seen already.
    ClockBehind {
        /// By how much.
        seconds: u64,
    },
    /// The clock has gone further since the last sweep than a server is likely to have rested.
    ClockAhead {
        /// By how much.
        seconds: u64,
    },
    /// More would be removed at once than expires by itself.
    TooMany {
        /// How many.
        expired: u64,
        /// Of how many.
        of: u64,
    },
}

impl Refusal {
    /// All that [`Refusal::word`] says.
    pub const WORDS: [&str; 3] = ["clock_behind", "clock_ahead", "too_many"];

    /// One word for metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ClockBehind { .. } => "clock_behind",
            Self::ClockAhead { .. } => "clock_ahead",
            Self::TooMany { .. } => "too_many",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ClockBehind { seconds } => {
                write!(
                    f,
                    "the clock is {} before a time that it has shown already",
                    HumanSeconds(seconds)
                )
            }
            Self::ClockAhead { seconds } => write!(
                f,
                "the clock is {} after the last sweep, which is more than half of retentionDays",
                HumanSeconds(seconds)
            ),
            Self::TooMany { expired, of } => write!(
                f,
                "{expired} of {of} backups would be removed at once, which is more than a fifth"
            ),
        }
    }
}

/// What the clock gives reason for.
pub(super) fn look_at_clock(state: &State, now: u64, retention_days: u32) -> Option<Refusal> {
    let highest = state.highest_time?;
    if now < highest {
        return Some(Refusal::ClockBehind {
            seconds: highest - now,
        });
    }
    let passed = now - highest;
    (passed > u64::from(retention_days) * DAY / 2)
        .then_some(Refusal::ClockAhead { seconds: passed })
}

/// What the number of expired backups gives reason for.
pub(super) fn look_at_count(expired: u64, of: u64) -> Option<Refusal> {
    (expired > MANY && expired.saturating_mul(PART) > of)
        .then_some(Refusal::TooMany { expired, of })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(time: u64) -> State {
        State {
            highest_time: Some(time),
            ..State::default()
        }
    }

    #[test]
    fn a_clock_that_goes_back_or_jumps_ahead_is_noticed_to_the_second() {
        let state = seen(1_000 * DAY);
        let look = |now| look_at_clock(&state, now, 180);

        assert_eq!(
            look(1_000 * DAY - 1),
            Some(Refusal::ClockBehind { seconds: 1 })
        );
        assert_eq!(look(1_000 * DAY), None);
        assert_eq!(look(1_090 * DAY), None);
        let seconds = 90 * DAY + 1;
        assert_eq!(look(1_090 * DAY + 1), Some(Refusal::ClockAhead { seconds }));
        assert_eq!(look_at_clock(&State::default(), 0, 180), None);
    }

    #[test]
    fn more_than_ten_and_more_than_a_fifth_are_too_many() {
        assert_eq!(look_at_count(10, 10), None);
        assert_eq!(look_at_count(11, 55), None);
        let refusal = look_at_count(11, 54).unwrap();
        assert_eq!(
            refusal,
            Refusal::TooMany {
                expired: 11,
                of: 54
            }
        );
        assert_eq!(
            refusal.to_string(),
            "11 of 54 backups would be removed at once, which is more than a fifth"
        );
    }
}
