//! Safety checks of a sweep, against wrong clocks and wrong settings (docs/RETENTION.md).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Verdict;
use crate::state::{DayOfExpiry, FirstSweep, State};
use crate::time::{DAY, HumanSeconds};

/// Up to this many expired backups are removed if they are no more than half of all.
const MAX_UNCHECKED: u64 = 10;
/// Above that, a sweep refuses to remove more than one in this many of all backups.
const FRACTION: u64 = 5;
/// Whatever their number, a sweep refuses to remove more than one in this many of all backups.
const FRACTION_OF_ANY: u64 = 2;
/// Backups that expired within this time are part of the same removal, in seconds; or within the
/// time that they stay in the trash, if that is longer, up to [`LATELY_AT_MOST`].
const LATELY: u64 = 7 * DAY;
/// In seconds. Over longer times, more than a fifth of the phones of a company are replaced in
/// normal operation.
const LATELY_AT_MOST: u64 = 30 * DAY;
/// For how long servers run before a directory without a state is swept, in seconds: in that time
/// the phones that still exist renew their backups.
pub(super) const FIRST_WAIT: u64 = 7 * DAY;

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
    /// The clock went on by more than can have passed.
    ClockAhead {
        /// The difference in seconds.
        seconds: u64,
    },
    /// The first sweep of a directory whose state is missing: ages are all that it knows.
    FirstSweep {
        /// The number of expired backups.
        expired: u64,
        /// The number of all backups.
        of: u64,
        /// The number of backups in the trash that would be erased.
        trash: u64,
    },
    /// More backups would be removed than normally expire.
    TooMany {
        /// The number of expired backups, with those removed within the last days.
        expired: u64,
        /// The number of all backups, with those removed within the last days.
        of: u64,
    },
}

impl Refusal {
    /// All values of [`Refusal::label`].
    pub const LABELS: [&str; 4] = ["clock_behind", "clock_ahead", "first_sweep", "too_many"];

    /// The label value in metrics and in the audit log.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ClockBehind { .. } => "clock_behind",
            Self::ClockAhead { .. } => "clock_ahead",
            Self::FirstSweep { .. } => "first_sweep",
            Self::TooMany { .. } => "too_many",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::ClockBehind { .. } | Self::ClockAhead { .. } => {
                "correct the clock; if it is right, run `prune --accept-clock`"
            }
            Self::FirstSweep { .. } => {
                "if the times of the files are right, run `prune --force`; after a week, sweeps begin by themselves"
            }
            Self::TooMany { .. } => "if this is intended, run `prune --force`",
        }
    }

    /// True if `prune --force` confirms it.
    pub(super) fn is_confirmed_by_force(self) -> bool {
        matches!(self, Self::FirstSweep { .. } | Self::TooMany { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ClockBehind { seconds } => {
                let seconds = HumanSeconds(seconds);
                write!(f, "the clock is {seconds} behind the latest time seen")
            }
            Self::ClockAhead { seconds } => {
                let seconds = HumanSeconds(seconds);
                write!(
                    f,
                    "the clock is {seconds} ahead of the time that can have passed"
                )
            }
            Self::FirstSweep { expired, of, trash } => write!(
                f,
                "without the state of earlier sweeps, {expired} of {of} backups and {trash} in the trash look too old"
            ),
            Self::TooMany { expired, of } => {
                let part = if is_more_than_a_fifth(expired, of) {
                    "a fifth"
                } else {
                    "half"
                };
                write!(
                    f,
                    "{expired} of {of} backups would be removed at once, more than {part}"
                )
            }
        }
    }
}

/// Checks the clock.
pub(super) fn check_clock(verdict: Verdict) -> Option<Refusal> {
    match verdict {
        Verdict::Right | Verdict::Passed => None,
        Verdict::Behind { seconds } => Some(Refusal::ClockBehind { seconds }),
        Verdict::Ahead { seconds } => Some(Refusal::ClockAhead { seconds }),
    }
}

/// Checks whether a first sweep still waits.
pub(super) fn check_first_sweep(
    first: Option<FirstSweep>,
    expired: u64,
    of: u64,
    trash: u64,
) -> Option<Refusal> {
    let waits = first.is_some_and(|first| first.waited < FIRST_WAIT);
    (waits && expired + trash > 0).then_some(Refusal::FirstSweep { expired, of, trash })
}

/// Checks the number of expired backups against the number `of` all backups. Those that expired
/// `lately` count as well: several sweeps are one removal.
pub(super) fn check_expired_count(expired: u64, of: u64, lately: u64) -> Option<Refusal> {
    let all_expired = expired.saturating_add(lately);
    let of = of.saturating_add(lately);
    let too_many =
        is_more_than_a_fifth(all_expired, of) || all_expired.saturating_mul(FRACTION_OF_ANY) > of;
    let expired_now = expired;
    let expired = all_expired;
    (expired_now > 0 && too_many).then_some(Refusal::TooMany { expired, of })
}

fn is_more_than_a_fifth(expired: u64, of: u64) -> bool {
    expired > MAX_UNCHECKED && expired.saturating_mul(FRACTION) > of
}

/// The window of "lately" for a trash that keeps backups for this many seconds.
fn lately(keep_trash: u64) -> u64 {
    keep_trash.clamp(LATELY, LATELY_AT_MOST)
}

/// The number of backups that expired lately, for a trash that keeps them for this many seconds.
pub(super) fn expired_lately(state: &State, now: u64, keep_trash: u64) -> u64 {
    let since = now.saturating_sub(lately(keep_trash));
    let days = state.expired.iter().filter(|day| day.last >= since);
    days.fold(0, |sum, day| sum.saturating_add(day.backups))
}

/// Adds backups that expired now, and drops those that count no more.
pub(super) fn add_expired(state: &mut State, now: u64, keep_trash: u64, backups: u64) {
    let since = now.saturating_sub(lately(keep_trash));
    // The clock may have been ahead.
    for day in &mut state.expired {
        day.last = day.last.min(now);
    }
    state.expired.retain(|day| day.last >= since);
    if backups == 0 {
        return;
    }
    match state.expired.last_mut() {
        Some(day) if day.last / DAY == now / DAY => {
            day.last = now;
            day.backups = day.backups.saturating_add(backups);
        }
        _ => state.expired.push(DayOfExpiry { last: now, backups }),
    }
}

#[cfg(test)]
#[path = "safety_tests.rs"]
mod tests;
