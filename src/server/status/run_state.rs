//! Run state: facts about this run of the server that no other part stores, which are the last
//! sweep and scrub, configuration reloads and the graceful shutdown.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::lock::lock;
use crate::retention::Report;
use crate::server::status::Sweep;
use crate::state::Scrubbed;
use crate::time::unix;

/// The facts of this run.
pub(crate) struct RunState {
    started: SystemTime,
    /// The same on the monotonic clock.
    started_at: Instant,
    facts: Mutex<Facts>,
    draining: AtomicBool,
}

/// The facts at one time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) sweep: Option<Sweep>,
    /// Start of the last completed sweep, in Unix seconds.
    pub(crate) last_sweep: Option<u64>,
    /// End of the last completed sweep, on the monotonic clock.
    completed: Option<Instant>,
    pub(crate) scrub: Option<Scrubbed>,
    pub(crate) config_problem: Option<String>,
    pub(crate) waiting_for_restart: Vec<String>,
}

impl RunState {
    /// The state of a server that was started at `started`.
    pub(crate) fn new(started: SystemTime) -> Self {
        Self {
            started,
            started_at: Instant::now(),
            facts: Mutex::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// When the server was started, in Unix seconds.
    pub(crate) fn started(&self) -> u64 {
        unix(self.started)
    }

    /// A copy of the facts.
    pub(crate) fn facts(&self) -> Facts {
        self.lock().clone()
    }

    /// Seconds since a sweep last completed, or since the start, on the monotonic clock.
    pub(crate) fn seconds_without_sweep(&self) -> u64 {
        let since = self.lock().completed.unwrap_or(self.started_at);
        since.elapsed().as_secs()
    }

    /// Records a reload of the configuration; changes of the keys in `waiting` need a restart.
    pub(crate) fn config_reloaded(&self, waiting: &[&str]) {
        let mut facts = self.lock();
        facts.config_problem = None;
        facts.waiting_for_restart = waiting.iter().map(|&key| key.to_owned()).collect();
    }

    /// Records a failed reload of the configuration.
    pub(crate) fn config_failed(&self, problem: String) {
        self.lock().config_problem = Some(problem);
    }

    /// Records a sweep; without a report it was aborted.
    pub(crate) fn sweep_ended(&self, began: SystemTime, took: Duration, report: Option<Report>) {
        let mut facts = self.lock();
        if report.is_some() {
            facts.last_sweep = Some(unix(began));
            facts.completed = Some(Instant::now());
        }
        facts.sweep = Some(Sweep {
            began: unix(began),
            seconds: took.as_secs_f64(),
            report,
        });
    }

    /// Records a scrub of this run or an earlier one.
    pub(crate) fn scrub_ended(&self, scrubbed: Scrubbed) {
        self.lock().scrub = Some(scrubbed);
    }

    /// Records the start of the graceful shutdown.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// True once the graceful shutdown has started.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        lock(&self.facts)
    }
}
