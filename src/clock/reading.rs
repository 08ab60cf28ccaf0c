//! Readings of the system clock, and whether to accept them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::corrections::{correct, take_back};
use crate::state::{ClockJump, State, TimeSpan};
use crate::time::{DAY, HOUR, MINUTE, unix};

/// 2024-01-01: before the first version of this program. A clock that shows less is wrong.
pub(super) const NOT_BEFORE: u64 = 1_704_067_200;
/// The end of the year 9999, the last one that protocols can express.
pub(super) const NOT_AFTER: u64 = 253_402_300_799;
/// How far a clock may step back unnoticed, in seconds.
const TOLERANCE: u64 = 5 * MINUTE;
/// How far a clock may be ahead of the known time within a run, in seconds.
const SLACK: u64 = HOUR;
/// Beside that, the clock may gain one second in this many.
const MAX_DRIFT: u64 = 1_000;
/// How long a server may have been off, in seconds, without a doubt about its clock.
const MAX_OFF: u64 = DAY;
/// The known time in the state may be older than that of the running server by this many seconds.
const STALE: u64 = 2 * HOUR;

/// What one reading of the clock is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is accepted.
    Right,
    /// It is accepted, because the clock had jumped ahead, and as much time has passed since.
    Passed,
    /// It is this many seconds before the highest time known.
    Behind {
        /// The difference in seconds.
        seconds: u64,
    },
    /// It is this many seconds after the known time, more than can have passed.
    Ahead {
        /// The difference in seconds.
        seconds: u64,
    },
}

impl Verdict {
    /// True if the reading is accepted.
    #[must_use]
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Right | Self::Passed)
    }
}

/// What a process knows of the time at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub(super) system: SystemTime,
    /// `None` for a command, which knows no more than the state does.
    pub(super) run: Option<Run>,
}

/// What a server knows of its own run, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run {
    /// The known time at the start.
    pub(super) started: u64,
    /// The known time.
    pub(super) known: u64,
    /// Since the known time was last taken from the clock.
    pub(super) ran: u64,
    /// When the reading was taken, on the clock that cannot be set.
    pub(super) elapsed: Duration,
    /// The highest accepted reading of this run.
    pub(super) highest: u64,
    /// True once a reading was accepted.
    pub(super) is_confirmed: bool,
    /// [`crate::state::ClockState::acceptances`] of this knowledge.
    pub(super) acceptances: u64,
    /// Since the last sweep.
    pub(super) since_sweep: u64,
}

impl Reading {
    /// The reading of a command.
    #[must_use]
    pub fn of_command(system: SystemTime) -> Self {
        Self { system, run: None }
    }

    /// The time that the system clock shows.
    #[must_use]
    pub fn system(&self) -> SystemTime {
        self.system
    }

    /// For how many seconds this process has run since its last sweep.
    #[must_use]
    pub fn since_sweep(&self) -> u64 {
        self.run.map_or(0, |run| run.since_sweep)
    }

    /// The known time.
    #[must_use]
    pub fn known(&self, state: &State) -> u64 {
        let run = self.run(state).map_or(0, |run| run.known);
        known_by(state).max(run)
    }

    /// Whether to accept the reading.
    #[must_use]
    pub fn judge(&self, state: &State) -> Verdict {
        let now = unix(self.system);
        let run = self.run(state);
        let highest = self.highest(state);
        let floor = highest.unwrap_or(NOT_BEFORE);
        if now < NOT_BEFORE || now.saturating_add(TOLERANCE) < floor {
            let seconds = floor.saturating_sub(now);
            return Verdict::Behind { seconds };
        }
        let known = self.known(state);
        let seconds = now.saturating_sub(known);
        if now > NOT_AFTER {
            return Verdict::Ahead { seconds };
        }
        let jump = state.clock.jump;
        let allowed = match run.filter(|run| run.is_confirmed) {
            _ if highest.is_none() => return Verdict::Right,
            Some(run) => SLACK.saturating_add(run.ran / MAX_DRIFT),
            None if jump.is_some() => STALE,
            None => MAX_OFF,
        };
        if seconds <= allowed {
            Verdict::Right
        } else if jump.is_some_and(|jump| known.saturating_sub(jump.since) >= seconds) {
            Verdict::Passed
        } else {
            Verdict::Ahead { seconds }
        }
    }

    /// Records the reading in the state.
    pub fn record(&self, state: &mut State) -> Verdict {
        let verdict = self.judge(state);
        let (now, known) = (unix(self.system), self.known(state));
        let highest = self.highest(state);
        let gap = now.saturating_sub(known);
        match verdict {
            Verdict::Passed => {
                let until = state.clock.jump.map_or(known, |jump| jump.to);
                let until = until.saturating_sub(1).max(last_estimated(state, known));
                correct(state, 0, until, gap);
                accept(state, now);
            }
            Verdict::Right => {
                if let Some(span) = state.clock.estimated {
                    let gap = match highest_time(state) {
                        Some(_) => gap,
                        None => now.saturating_sub(span.from),
                    };
                    if gap > TOLERANCE {
                        let until = last_estimated(state, known);
                        correct(state, span.from, until, gap);
                    }
                }
                accept(state, now.max(highest_time(state).unwrap_or(now)));
            }
            Verdict::Behind { .. } => {
                // As commands must know it, above all the one that accepts the clock.
                state.highest_time = highest.or(state.highest_time);
                if let Some(run) = self.run {
                    let span = state.clock.estimated.get_or_insert(TimeSpan {
                        from: run.started,
                        until: known,
                    });
                    span.from = span.from.min(run.started);
                    span.until = span.until.max(known);
                }
            }
            // Without any time known before, there is nothing to wait for.
            Verdict::Ahead { .. } if highest.is_none() => {}
            Verdict::Ahead { .. } => {
                let run_started = self.run.map_or(known, |run| run.started);
                let jump = state.clock.jump.get_or_insert(ClockJump {
                    since: known,
                    run_started,
                    to: now,
                });
                jump.run_started = jump.run_started.min(run_started);
                jump.to = jump.to.min(now);
                // Real time goes on.
                state.highest_time = Some(known);
            }
        }
        verdict
    }

    /// The highest accepted reading, of this run or as the state tells.
    fn highest(&self, state: &State) -> Option<u64> {
        let run = self.run(state);
        highest_time(state).max(run.and_then(Run::confirmed))
    }

    /// What is known of the run, unless an operator has accepted the clock since.
    fn run(&self, state: &State) -> Option<Run> {
        let acceptances = state.clock.acceptances;
        self.run.filter(|run| run.acceptances == acceptances)
    }
}

impl Run {
    fn confirmed(self) -> Option<u64> {
        self.is_confirmed.then_some(self.highest)
    }
}

/// The highest time that was accepted, if it is one that a clock can have shown.
#[must_use]
pub fn highest_time(state: &State) -> Option<u64> {
    let is_plausible = |time: &u64| (NOT_BEFORE..=NOT_AFTER).contains(time);
    state.highest_time.filter(is_plausible)
}

/// The known time, as far as the state tells.
fn known_by(state: &State) -> u64 {
    let estimated = state.clock.estimated.map(|span| span.until);
    let estimated = estimated.filter(|time| *time <= NOT_AFTER);
    let known = highest_time(state).max(estimated);
    known.unwrap_or(NOT_BEFORE).max(NOT_BEFORE)
}

/// The time with which a command marks what it stores or acknowledges: that of the clock, but not
/// before what a server has marked, as far as the state tells.
#[must_use]
pub fn now_for_command(state: &State, system: SystemTime) -> SystemTime {
    let known = known_by(state);
    if unix(system) >= known {
        return system;
    }
    at(known.saturating_add(STALE).min(NOT_AFTER))
}

/// An operator accepts the clock, ahead or behind. Returns false, and changes nothing, where it is
/// accepted without that, or shows a time that cannot be right.
pub fn accept_by_operator(state: &mut State, system: SystemTime) -> bool {
    let now = unix(system);
    if Reading::of_command(system).judge(state).is_accepted()
        || !(NOT_BEFORE..=NOT_AFTER).contains(&now)
    {
        return false;
    }
    let highest = highest_time(state).unwrap_or(now);
    if now > highest {
        // What happened in the run before the jump was marked by a clock that was behind. A day
        // more, for a server that was restarted when the clock had been corrected.
        let jump = state.clock.jump.unwrap_or(ClockJump {
            since: highest,
            run_started: highest,
            to: now,
        });
        let estimated = state.clock.estimated.map_or(u64::MAX, |span| span.from);
        let from = jump.run_started.min(estimated).saturating_sub(DAY);
        let until = jump.to.saturating_sub(1).max(last_estimated(state, 0));
        correct(state, from, until, now - highest);
    } else if highest - now > DAY {
        take_back(state, known_by(state) - now);
        for period in &mut state.retention_periods {
            period.since = period.since.min(now);
        }
    }
    accept(state, now);
    state.clock.acceptances = state.clock.acceptances.wrapping_add(1);
    true
}

/// The last time that may have been estimated, also by a command or since the last sweep; 0 if none
/// was. `known` is the known time. After a jump ahead it may be later than what the clock showed.
fn last_estimated(state: &State, known: u64) -> u64 {
    let until = |span: TimeSpan| span.until.saturating_add(STALE).max(known);
    state.clock.estimated.map_or(0, until)
}

/// A clock that is right: nothing is in doubt any more.
fn accept(state: &mut State, now: u64) {
    state.highest_time = Some(now);
    state.clock.jump = None;
    state.clock.estimated = None;
    // Removals may carry a time that is a little later. What was acknowledged under a clock that was
    // ahead must not cover those to come.
    let latest = now.saturating_add(TOLERANCE);
    state.acknowledged_until = state.acknowledged_until.map(|until| until.min(latest));
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
