//! Says in the log that somebody came up against a limit: once an hour at the most, for each.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::server::metrics::limit::Limit;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// What was said when.
#[derive(Default)]
pub(super) struct Notices(Mutex<Vec<(Limit, Instant)>>);

impl Notices {
    /// Whether it is time to speak of this limit; if so, it counts as said.
    pub(super) fn is_due(&self, limit: Limit, now: Instant) -> bool {
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
        let (notices, now) = (Notices::default(), Instant::now());

        assert!(notices.is_due(Limit::MaxBackups, now));
        assert!(notices.is_due(Limit::MinFreeBytes, now));
        let later = now + HOUR - Duration::from_secs(1);
        assert!(!notices.is_due(Limit::MaxBackups, later));
        assert!(notices.is_due(Limit::MaxBackups, now + HOUR));
        assert!(!notices.is_due(Limit::MaxBackups, now + HOUR));
    }
}
