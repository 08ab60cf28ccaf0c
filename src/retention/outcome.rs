//! What a sweep under an accepted clock adds to the state.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::settings::{Mode, Retention};
use super::{retention_history, safety};
use crate::clock::{self, Reading};
use crate::state::{DeletionBurst, FirstSweep, RetentionPeriod, State};
use crate::time::{HOUR, unix};

/// The most that one sweep adds to the waiting time of a first sweep, in seconds: while a machine is
/// suspended, no phone can renew its backup.
const MOST_AT_ONCE: u64 = 2 * HOUR;

/// The result of a sweep, as far as later ones depend on it.
pub(super) struct Outcome {
    /// When it ran, in Unix seconds.
    pub(super) now: u64,
    /// False if it refused to act.
    pub(super) is_done: bool,
    pub(super) retention: Retention,
    pub(super) mode: Mode,
    pub(super) burst: Option<DeletionBurst>,
    /// `acknowledged_until` before the sweep.
    pub(super) acknowledged_before: Option<u64>,
    pub(super) first: Option<FirstSweep>,
    /// The number of expired backups it removed.
    pub(super) removed: u64,
}

impl Outcome {
    /// Adds the outcome to the state.
    pub(super) fn save(&self, state: &mut State) {
        let now = self.now;
        if self.is_done {
            state.last_sweep = Some(now);
        }
        let time = UNIX_EPOCH + Duration::from_secs(now);
        let current = current_period(self.retention, time, self.mode);
        let periods = retention_history::with_current(&state.retention_periods, current);
        let longest = periods.iter().map(|period| period.keep_seconds).max();
        state.retention_periods = periods;
        // Unless an operator acknowledged the removals during the sweep.
        if state.acknowledged_until == self.acknowledged_before {
            state.deletion_burst = self.burst;
        }
        let was_forced = self.mode == Mode::Force;
        state.first_sweep = self.first.filter(|first| {
            let has_findings = first.invalid_state || !self.is_done;
            has_findings && !was_forced && first.waited < safety::FIRST_WAIT
        });
        if was_forced {
            state.expired.clear();
        }
        let removed = if was_forced { 0 } else { self.removed };
        let keep_trash = self.retention.keep_trash.as_secs();
        safety::add_expired(state, now, keep_trash, removed);
        let keep = longest.unwrap_or_default().max(keep_trash);
        clock::forget_old_corrections(state, now, keep);
    }

    /// Remembers that the first sweep is still to come, although the state is replaced while the
    /// clock is in doubt.
    pub(super) fn save_first_sweep(&self, state: &mut State) {
        if self.first.is_some() {
            state.first_sweep = self.first;
        }
    }
}

/// The period that begins now.
pub(super) fn current_period(retention: Retention, now: SystemTime, mode: Mode) -> RetentionPeriod {
    RetentionPeriod {
        since: unix(now),
        keep_seconds: retention.keep.as_secs(),
        manual: mode != Mode::Serve,
    }
}

/// Whether this is the first sweep of its directory, or one that waits since.
pub(super) fn first_sweep(
    previous: &State,
    reading: &Reading,
    is_invalid: bool,
) -> Option<FirstSweep> {
    match previous.first_sweep {
        Some(first) => Some(FirstSweep {
            waited: first
                .waited
                .saturating_add(reading.since_sweep().min(MOST_AT_ONCE)),
            ..first
        }),
        None if clock::highest_time(previous).is_none() => Some(FirstSweep {
            waited: 0,
            invalid_state: is_invalid,
        }),
        None => None,
    }
}
