//! Safety checks of a sweep, against wrong clocks and wrong settings (docs/DURABILITY.md).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state::State;
use crate::time::{DAY, HumanSeconds};

/// Up to this many expired backups in one sweep are always removed.
const MAX_UNCHECKED: u64 = 10;
/// Above that, a sweep refuses to remove more than one in this many of all backups.
const FRACTION: u64 = 5;

/// The safety check that stopped a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "reason",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Refusal {
    /// The clock shows a time before the latest time seen.
    ClockBehind {
        /// The difference in seconds.
        seconds: u64,
    },
    /// The clock has advanced since the latest time seen by more than half of the announced
    /// retention: a server is not likely to have been off for so long.
    ClockAhead {
        /// The difference in seconds.
        seconds: u64,
    },
    /// More backups would be removed at once than normally expire.
    TooMany {
        /// The number of expired backups.
        expired: u64,
        /// The number of all backups.
        of: u64,
    },
}

impl Refusal {
    /// All values of [`Refusal::label`].
    pub const LABELS: [&str; 3] = ["clock_behind", "clock_ahead", "too_many"];

    /// The label value in metrics and in the audit log.
    #[must_use]
    pub fn label(self) -> &'static str {
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
                    "the clock is {} behind the latest time seen",
                    HumanSeconds(seconds)
                )
            }
            Self::ClockAhead { seconds } => write!(
                f,
                "the clock is {} ahead of the last sweep, more than half of retentionDays",
                HumanSeconds(seconds)
            ),
            Self::TooMany { expired, of } => write!(
                f,
                "{expired} of {of} backups would be removed at once, more than a fifth"
            ),
        }
    }
}

/// Checks the clock at the Unix time `now` against the latest time seen.
pub(super) fn check_clock(state: &State, now: u64, retention_days: u32) -> Option<Refusal> {
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

/// Checks the number of expired backups against the number `of` all backups.
pub(super) fn check_expired_count(expired: u64, of: u64) -> Option<Refusal> {
    (expired > MAX_UNCHECKED && expired.saturating_mul(FRACTION) > of)
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
    fn a_clock_that_goes_back_or_jumps_ahead_is_detected_to_the_second() {
        let state = seen(1_000 * DAY);
        let check = |now| check_clock(&state, now, 180);

        for seconds in [1, 7] {
            assert_eq!(
                check(1_000 * DAY - seconds),
                Some(Refusal::ClockBehind { seconds })
            );
        }
        assert_eq!(check(1_000 * DAY), None);
        assert_eq!(check(1_090 * DAY), None);
        let seconds = 90 * DAY + 1;
        assert_eq!(
            check(1_090 * DAY + 1),
            Some(Refusal::ClockAhead { seconds })
        );
        assert_eq!(check_clock(&State::default(), 0, 180), None);
    }

    #[test]
    fn more_than_ten_and_more_than_a_fifth_are_too_many() {
        assert_eq!(check_expired_count(10, 10), None);
        assert_eq!(check_expired_count(11, 55), None);
        let refusal = check_expired_count(11, 54).unwrap();
        assert_eq!(
            refusal,
            Refusal::TooMany {
                expired: 11,
                of: 54
            }
        );
        assert_eq!(
            refusal.to_string(),
            "11 of 54 backups would be removed at once, more than a fifth"
        );
    }
}
