//! The clock of a running server, over the system's clock and one that cannot be set.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::reading::{NOT_AFTER, NOT_BEFORE, Reading, Run, Verdict, highest_time};
use crate::lock::lock;
use crate::state::State;
use crate::time::unix;

/// Time since the machine was started, while it was suspended too.
#[must_use]
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

/// The clock of a running server.
pub struct Clock {
    system: fn() -> SystemTime,
    /// Time that really passes, from any beginning.
    elapsed: fn() -> Duration,
    memory: Mutex<Memory>,
}

/// What a server knows of its run.
struct Memory {
    run: Run,
    /// The known time at `anchored_at`, since 1970.
    anchor: Duration,
    /// On the clock that cannot be set, as the next one.
    anchored_at: Duration,
    swept_at: Duration,
    /// The times in the state, at the last sweep.
    state: State,
    /// The verdict of the last sweep.
    last: Option<Verdict>,
    /// The last verdict, also between sweeps.
    noticed: Option<Verdict>,
}

impl Memory {
    fn known(&self, elapsed: Duration) -> Duration {
        let ran = elapsed.saturating_sub(self.anchored_at);
        self.anchor.saturating_add(ran)
    }

    /// Begins anew with what the state tells.
    fn reset(&mut self, state: &State, elapsed: Duration) {
        let reading = Reading::of_command(UNIX_EPOCH);
        self.run = Run {
            started: highest_time(state).unwrap_or(NOT_BEFORE),
            acceptances: state.clock.acceptances,
            ..Run::default()
        };
        self.anchor = Duration::from_secs(reading.known(state));
        self.anchored_at = elapsed;
        self.last = None;
        self.keep(state);
    }

    fn keep(&mut self, state: &State) {
        self.state = State {
            highest_time: state.highest_time,
            clock: state.clock.clone(),
            ..State::default()
        };
    }
}

impl Clock {
    /// A clock over the system's clock, and over one that cannot be set ([`since_boot`]).
    #[must_use]
    pub fn new(system: fn() -> SystemTime, elapsed: fn() -> Duration) -> Self {
        let now = elapsed();
        let mut memory = Memory {
            run: Run::default(),
            anchor: Duration::ZERO,
            anchored_at: now,
            swept_at: now,
            state: State::default(),
            last: None,
            noticed: None,
        };
        memory.reset(&State::default(), now);
        Self {
            system,
            elapsed,
            memory: Mutex::new(memory),
        }
    }

    /// Takes over what an earlier run knew.
    pub fn remember(&self, state: &State) {
        self.memory().reset(state, (self.elapsed)());
    }

    /// The time for all that is stored or removed now: that of the system clock, but not before the
    /// known time.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let system = (self.system)();
        let known = UNIX_EPOCH + self.memory().known((self.elapsed)());
        if unix(system) > NOT_AFTER {
            return known;
        }
        system.max(known)
    }

    /// The time of the clock that cannot be set.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        (self.elapsed)()
    }

    /// What the server knows of the time now.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let (system, elapsed) = ((self.system)(), (self.elapsed)());
        let memory = self.memory();
        let since = |past| elapsed.saturating_sub(past).as_secs();
        let run = Run {
            known: memory.known(elapsed).as_secs(),
            ran: since(memory.anchored_at),
            elapsed,
            since_sweep: since(memory.swept_at),
            ..memory.run
        };
        let run = Some(run);
        Reading { system, run }
    }

    /// Takes over what a sweep has recorded in the state.
    pub fn recorded(&self, reading: &Reading, verdict: Verdict, state: &State) {
        // A sweep may have taken hours since, or the machine was suspended meanwhile.
        let elapsed = reading.run.map_or_else(self.elapsed, |run| run.elapsed);
        let mut memory = self.memory();
        if memory.run.acceptances != state.clock.acceptances {
            let started = memory.run.started;
            memory.reset(state, elapsed);
            memory.run.started = memory.run.started.min(started);
        }
        let is_new = !memory.run.is_confirmed
            || verdict == Verdict::Passed
            || memory.last.is_some_and(|last| !last.is_accepted());
        memory.keep(state);
        memory.swept_at = elapsed;
        let known = Duration::from_secs(reading.known(state));
        if memory.known(elapsed) < known {
            memory.anchor = known;
            memory.anchored_at = elapsed;
        }
        memory.last = Some(verdict);
        memory.noticed = Some(verdict);
        if !verdict.is_accepted() {
            return;
        }
        let system = reading.system.duration_since(UNIX_EPOCH);
        let system = system.unwrap_or_default();
        if is_new {
            let highest = highest_time(state).unwrap_or_default();
            memory.anchor = system.max(Duration::from_secs(highest));
            memory.anchored_at = elapsed;
        }
        memory.run.is_confirmed = true;
        memory.run.highest = memory.run.highest.max(system.as_secs());
    }

    /// Reads the clock between two sweeps. Returns true if the next sweep should not wait, because
    /// the clock has become doubtful, or is right again.
    pub fn has_changed(&self) -> bool {
        let reading = self.reading();
        let mut memory = self.memory();
        let verdict = reading.judge(&memory.state);
        if verdict.is_accepted() && memory.run.is_confirmed {
            memory.run.highest = memory.run.highest.max(unix(reading.system));
        }
        let kind = |verdict| match verdict {
            Verdict::Right | Verdict::Passed => 0,
            Verdict::Behind { .. } => 1,
            Verdict::Ahead { .. } => 2,
        };
        let before = memory.noticed.replace(verdict);
        before.is_some_and(|before| kind(before) != kind(verdict))
    }

    /// True while the last reading was not accepted.
    pub fn is_in_doubt(&self) -> bool {
        self.memory()
            .noticed
            .is_some_and(|verdict| !verdict.is_accepted())
    }

    /// True if an operator has accepted the clock, as the state tells.
    pub fn was_accepted(&self, state: &State) -> bool {
        self.memory().run.acceptances != state.clock.acceptances
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}
