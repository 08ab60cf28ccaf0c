//! Log throttle: at most one warning an hour for each limit that is reached.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;
use crate::server::metrics::limit::Limit;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// When the last warning of each limit was logged.
#[derive(Default)]
pub(super) struct LogThrottle(Mutex<Vec<(Limit, Instant)>>);

impl LogThrottle {
    /// Whether a warning about this limit is due; if so, it counts as logged.
    pub(super) fn should_log(&self, limit: Limit, now: Instant) -> bool {
        let mut logged = lock(&self.0);
        match logged.iter_mut().find(|(other, _)| *other == limit) {
            Some((_, time)) if now < *time + HOUR => return false,
            Some((_, time)) => *time = now,
            None => logged.push((limit, now)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_logged_once_an_hour_for_each_limit() {
        let (throttle, now) = (LogThrottle::default(), Instant::now());

        assert!(throttle.should_log(Limit::MaxBackups, now));
        assert!(throttle.should_log(Limit::MinFreeBytes, now));
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(!throttle.should_log(Limit::MaxBackups, after(3_599)));
        assert!(throttle.should_log(Limit::MaxBackups, after(3_600)));
        assert!(!throttle.should_log(Limit::MaxBackups, after(3_600)));
    }
}
