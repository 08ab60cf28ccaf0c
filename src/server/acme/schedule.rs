//! Schedule of ACME orders: renewal and retries. A pure function of its arguments; times are Unix
//! times in seconds.
//!
//! A certificate is renewed at two thirds of its lifetime. After a failure the next order is
//! delayed, twice as long each time, and at least as long as the authority's `Retry-After`.
//! Failures are stored across restarts, so that a server in a restart loop sends no more orders
//! than one that keeps running.
//!
//! Not built on a crate for backoff: those count attempts in memory, and this schedule has to work
//! across restarts and clock jumps.

use serde::{Deserialize, Serialize};

use crate::server::acme::http::RetryAfter;
use crate::time::{HOUR, MINUTE};

/// Delay after the first failure, in seconds. Let's Encrypt allows five failed validations per
/// hour.
const FIRST_DELAY: u64 = 5 * MINUTE;
/// The same if the authority was not reached, so that the order counted against none of its limits.
const FIRST_DELAY_UNREACHED: u64 = MINUTE;
/// Longest delay, unless `Retry-After` is longer.
const MAX_DELAY: u64 = 6 * HOUR;
/// Shortest delay after a rate limit.
const MIN_DELAY_RATE_LIMITED: u64 = HOUR;
/// Longest `Retry-After` that is obeyed.
const MAX_RETRY_AFTER: u64 = 7 * 24 * HOUR;
/// Longest delay after a restart, because the operator may have corrected the cause. Not applied to
/// a delay that the authority requested.
const MAX_DELAY_RESTARTED: u64 = 15 * MINUTE;

/// What the schedule needs to know of the stored certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredCertificate {
    /// Start of its validity.
    pub(super) begins: u64,
    /// End of its validity.
    pub(super) ends: u64,
    /// When it was obtained, by this server's clock.
    pub(super) obtained: u64,
    /// True if it is for the configured domains and from the configured authority.
    pub(crate) is_as_configured: bool,
}

/// Consecutive failures of orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrderFailure {
    /// The number of failures.
    pub(super) count: u32,
    /// Time of the last failure.
    pub(super) last: u64,
    /// When the next order may start.
    pub(super) not_before: u64,
    /// True if the authority requested the delay, by `Retry-After` or a rate limit.
    #[serde(alias = "isTold")]
    pub(super) is_requested: bool,
    /// Reason of the last failure, for the operator.
    pub(crate) text: String,
}

/// What the schedule needs to know of a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FailureKind {
    /// The authority was not reached.
    pub(super) is_unreached: bool,
    /// The authority's rate limit is reached.
    pub(super) is_rate_limit: bool,
    /// The authority's `Retry-After`.
    pub(super) retry_after: Option<RetryAfter>,
}

/// The time from which an order may start; an order is due if it is in the past. `started` is the
/// start of the server.
pub(super) fn next(
    stored: Option<StoredCertificate>,
    failure: Option<&OrderFailure>,
    started: u64,
    now: u64,
) -> u64 {
    let renewal = match stored {
        Some(stored) if stored.is_as_configured => stored.renewal(now),
        Some(_) | None => 0,
    };
    renewal.max(failure.map_or(0, |failure| failure.allowed(started, now)))
}

impl StoredCertificate {
    /// The time of its renewal: at two thirds of its lifetime.
    fn renewal(self, now: u64) -> u64 {
        let third = self.ends.saturating_sub(self.begins) / 3;
        let two_thirds = self.ends.saturating_sub(third);
        // If the clock is years ahead, two thirds of the lifetime have always passed: the server
        // then waits for a third of the lifetime after the last order.
        let again = if self.obtained <= now {
            self.obtained.saturating_add(third)
        } else {
            0
        };
        two_thirds.max(again)
    }
}

impl OrderFailure {
    /// Adds a failure at `now` to those before it. `random` lengthens the delay by up to a quarter,
    /// which spreads servers that fail at the same time.
    pub(super) fn after(
        previous: Option<&Self>,
        kind: FailureKind,
        text: String,
        now: u64,
        random: u8,
    ) -> Self {
        let count = previous
            .map_or(0, |previous| previous.count)
            .saturating_add(1);
        let first = if kind.is_unreached {
            FIRST_DELAY_UNREACHED
        } else {
            FIRST_DELAY
        };
        let doubled = first.saturating_mul(1 << (count - 1).min(16));
        let mut delay = doubled.min(MAX_DELAY);
        if kind.is_rate_limit {
            delay = delay.max(MIN_DELAY_RATE_LIMITED);
        }
        delay += delay / 4 * u64::from(random) / u64::from(u8::MAX);
        let requested = kind.retry_after.map(|retry_after| match retry_after {
            RetryAfter::Seconds(seconds) => seconds.min(MAX_RETRY_AFTER),
            RetryAfter::At(time) => time.saturating_sub(now).min(MAX_RETRY_AFTER),
        });
        Self {
            count,
            last: now,
            not_before: now.saturating_add(delay.max(requested.unwrap_or_default())),
            is_requested: requested.is_some() || kind.is_rate_limit,
            text,
        }
    }

    /// The time from which the next order may start.
    fn allowed(&self, started: u64, now: u64) -> u64 {
        if self.last > now {
            // The clock has been set back since that failure, so its times mean nothing.
            0
        } else if started > self.last && !self.is_requested {
            self.not_before
                .min(self.last.saturating_add(MAX_DELAY_RESTARTED))
        } else {
            self.not_before
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * HOUR;
    const NOW: u64 = 20_000 * DAY;

    fn certificate(begins: u64) -> StoredCertificate {
        StoredCertificate {
            begins,
            ends: begins + 90 * DAY,
            obtained: begins + HOUR,
            is_as_configured: true,
        }
    }

    fn failures(times: u32, kind: FailureKind, random: u8) -> OrderFailure {
        let mut failure = None;
        for _ in 0..times {
            failure = Some(OrderFailure::after(
                failure.as_ref(),
                kind,
                String::new(),
                NOW,
                random,
            ));
        }
        failure.unwrap()
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_lifetime() {
        assert_eq!(
            next(Some(certificate(NOW)), None, NOW, NOW + DAY),
            NOW + 60 * DAY
        );
        let short = StoredCertificate {
            ends: NOW + 6 * DAY,
            ..certificate(NOW)
        };
        assert_eq!(next(Some(short), None, NOW, NOW + DAY), NOW + 4 * DAY);
    }

    #[test]
    fn an_order_is_due_without_a_certificate_or_with_one_that_is_not_as_configured() {
        let other = StoredCertificate {
            is_as_configured: false,
            ..certificate(NOW)
        };
        for stored in [None, Some(other)] {
            assert_eq!(next(stored, None, NOW, NOW), 0);
            let failure = failures(1, FailureKind::default(), 0);
            assert_eq!(next(stored, Some(&failure), NOW, NOW), NOW + FIRST_DELAY);
        }
    }

    #[test]
    fn a_wrong_clock_causes_neither_continuous_orders_nor_none() {
        let years = NOW + 4_000 * DAY;
        let new = StoredCertificate {
            obtained: years,
            ..certificate(NOW)
        };
        assert_eq!(next(Some(new), None, years, years + 1), years + 30 * DAY);
        // The clock has been corrected.
        assert_eq!(next(Some(new), None, NOW, NOW + DAY), NOW + 60 * DAY);
        let ahead = OrderFailure {
            last: years,
            ..failures(9, FailureKind::default(), 0)
        };
        assert_eq!(next(None, Some(&ahead), NOW, NOW), 0);
    }

    #[test]
    fn each_failure_doubles_the_delay_up_to_the_maximum() {
        let delays = |kind, random| {
            (1..=9)
                .map(|times| (failures(times, kind, random).not_before - NOW) / MINUTE)
                .collect::<Vec<_>>()
        };
        let unreached = FailureKind {
            is_unreached: true,
            ..FailureKind::default()
        };
        assert_eq!(
            delays(FailureKind::default(), 0),
            [5, 10, 20, 40, 80, 160, 320, 360, 360]
        );
        assert_eq!(delays(unreached, 0), [1, 2, 4, 8, 16, 32, 64, 128, 256]);
        assert_eq!(delays(FailureKind::default(), 255)[7], 450);
        assert_eq!(delays(FailureKind::default(), 128)[0], 5);
        assert_eq!(
            failures(u32::from(u16::MAX), unreached, 0).not_before - NOW,
            MAX_DELAY
        );
    }

    #[test]
    fn a_delay_requested_by_the_authority_applies_after_a_restart_too() {
        let requested = |retry_after| {
            let kind = FailureKind {
                retry_after: Some(retry_after),
                ..FailureKind::default()
            };
            next(None, Some(&failures(1, kind, 0)), NOW + 1, NOW + 2) - NOW
        };
        assert_eq!(requested(RetryAfter::Seconds(2 * DAY)), 2 * DAY);
        assert_eq!(requested(RetryAfter::At(NOW + 9 * HOUR)), 9 * HOUR);
        // Shorter than the own delay, and longer than the longest that is obeyed.
        assert_eq!(requested(RetryAfter::Seconds(1)), FIRST_DELAY);
        assert_eq!(requested(RetryAfter::At(3)), FIRST_DELAY);
        assert_eq!(requested(RetryAfter::Seconds(u64::MAX)), MAX_RETRY_AFTER);
        let limited = FailureKind {
            is_rate_limit: true,
            ..FailureKind::default()
        };
        let limited = failures(1, limited, 0);
        assert_eq!(next(None, Some(&limited), NOW + 1, NOW + 2) - NOW, HOUR);
    }

    #[test]
    fn a_restart_shortens_the_delay_and_many_restarts_no_further() {
        let long = failures(8, FailureKind::default(), 0);
        assert_eq!(next(None, Some(&long), NOW, NOW + 1), NOW + MAX_DELAY);
        for restarted in [NOW + 1, NOW + HOUR] {
            let next = next(None, Some(&long), restarted, restarted);
            assert_eq!(next, NOW + MAX_DELAY_RESTARTED);
        }
    }
}
