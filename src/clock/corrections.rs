//! Corrections of times that were taken from a known time that was too early.

use crate::state::{Correction, State};

/// The largest number of corrections remembered.
const MAX_CORRECTIONS: usize = 16;

/// The corrected time of an upload or a removal.
#[must_use]
pub fn corrected(corrections: &[Correction], time: u64) -> u64 {
    corrections.iter().fold(time, |time, correction| {
        if (correction.from..=correction.until).contains(&time) {
            time.saturating_add(correction.shift)
        } else {
            time
        }
    })
}

/// Drops corrections of times that are more than `keep_seconds` before `now`.
pub fn forget_old_corrections(state: &mut State, now: u64, keep_seconds: u64) {
    let all = &mut state.clock.corrections;
    let shifts = all.iter().map(|correction| correction.shift);
    let kept = shifts.fold(keep_seconds, u64::saturating_add);
    all.retain(|correction| correction.until.saturating_add(kept) >= now);
}

/// Remembers that times of this span are `shift` seconds too early.
pub(super) fn correct(state: &mut State, from: u64, until: u64, shift: u64) {
    // A period that begins later is one that counts for fewer backups.
    for period in state
        .retention_periods
        .iter_mut()
        .filter(|period| period.since > 0)
    {
        period.since = period.since.saturating_add(shift);
    }
    let all = &mut state.clock.corrections;
    all.push(Correction { from, until, shift });
    if all.len() > MAX_CORRECTIONS {
        // Both for all that either concerns: too late is safe.
        let first = all.remove(0);
        if let Some(second) = all.first_mut() {
            second.from = second.from.min(first.from);
            second.until = second.until.max(first.until);
            second.shift = second.shift.saturating_add(first.shift);
        }
    }
}

/// Takes back what the last accepted jumps have corrected, because the clock was ahead.
pub(super) fn take_back(state: &mut State, mut seconds: u64) {
    while let Some(mut last) = state.clock.corrections.pop() {
        if last.shift > seconds {
            last.shift -= seconds;
            state.clock.corrections.push(last);
            return;
        }
        seconds -= last.shift;
    }
}
