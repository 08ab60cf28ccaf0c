//! Says in the log that somebody came up against a limit: once an hour at the most, for each.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::server::metrics::limit::Limit;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// What was said when.
#[derive(Default)]
pub(super) struct LogThrottle(Mutex<Vec<(Limit, Instant)>>);

impl LogThrottle {
    /// Whether it is time to speak of this limit; if so, it counts as said.
    pub(super) fn should_log(&self, limit: Limit, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match said.iter_mut().find(|(other, _)| *other == limit) {
            Some((_, time)) if now < *time + HOUR => return false,
            Some((_, time)) => *time = now,
            None => said.push((limit, now)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_given_once_an_hour_for_each_limit() {
        let (notices, now) = (LogThrottle::default(), Instant::now());

        assert!(notices.should_log(Limit::MaxBackups, now));
        assert!(notices.should_log(Limit::MinFreeBytes, now));
        let later = now + HOUR - Duration::from_secs(1);
        assert!(!notices.should_log(Limit::MaxBackups, later));
        assert!(notices.should_log(Limit::MaxBackups, now + HOUR));
        assert!(!notices.should_log(Limit::MaxBackups, now + HOUR));
    }
}
