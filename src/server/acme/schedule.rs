//! When an order may begin. Nothing here reads a clock or asks anybody; times are Unix times in seconds.
//!
//! A certificate is renewed at two thirds of its life. After a failure the next order waits, twice as long each time, and as
//! long as the authority says. What failed is remembered from one run to the next: a server that is restarted
//! all the time asks no more often.

use serde::{Deserialize, Serialize};

use crate::server::acme::http::RetryAfter;
use crate::time::{HOUR, MINUTE};

/// After the first failure. Let's Encrypt allows five failed validations in an hour.
const FIRST_WAIT: u64 = 5 * MINUTE;
/// The same where the authority was not reached, so that it cost it nothing.
const FIRST_WAIT_UNREACHED: u64 = MINUTE;
/// At the most, but for what the authority says.
const LONGEST_WAIT: u64 = 6 * HOUR;
/// At the least, where it was asked too much.
const SHORTEST_WAIT_LIMITED: u64 = HOUR;
/// The longest that an authority is believed.
const LONGEST_RETRY_AFTER: u64 = 7 * 24 * HOUR;
/// At the most after a restart: somebody may have mended what was wrong.
const LONGEST_WAIT_RESTARTED: u64 = 15 * MINUTE;

/// A certificate that is there, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(super) begins: u64,
    pub(super) ends: u64,
    /// When it was obtained by this server's clock.
    pub(super) obtained: u64,
    /// Whether it is for the domains, and from the authority, that the configuration names.
    pub(crate) is_as_configured: bool,
}

/// Orders that failed, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failed {
    /// How many.
    pub(super) count: u32,
    /// When the last one did.
    pub(super) last: u64,
    /// When the next one may begin.
    pub(super) not_before: u64,
    /// Whether the authority said so.
    pub(super) is_told: bool,
    /// Why the last one failed.
    pub(crate) text: String,
}

/// How an order failed, as far as it matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kind {
    /// The authority was not reached.
    pub(super) is_cheap: bool,
    /// It was asked too much.
    pub(super) is_rate_limit: bool,
    /// What it said about asking again.
    pub(super) retry_after: Option<RetryAfter>,
}

/// From when on an order may begin; one that lies in the past is due.
pub(super) fn next(held: Option<Held>, failed: Option<&Failed>, started: u64, now: u64) -> u64 {
    let wanted = match held {
        Some(held) if held.is_as_configured => held.renewal(now),
        Some(_) | None => 0,
    };
    wanted.max(failed.map_or(0, |failed| failed.allowed(started, now)))
}

impl Held {
    /// When it is to be renewed: at two thirds of its life.
    fn renewal(self, now: u64) -> u64 {
        let third = self.ends.saturating_sub(self.begins) / 3;
        let two_thirds = self.ends.saturating_sub(third);
        // Under a clock that is years ahead, each new certificate would have to be renewed at once.
        let again = if self.obtained <= now {
            self.obtained.saturating_add(third)
        } else {
            0
        };
        two_thirds.max(again)
    }
}

impl Failed {
    /// One more failure, after `before`. `random` spreads those that fail at the same time.
    pub(super) fn after(
        before: Option<&Self>,
        kind: Kind,
        text: String,
        now: u64,
        random: u8,
    ) -> Self {
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        let first = if kind.is_cheap {
            FIRST_WAIT_UNREACHED
        } else {
            FIRST_WAIT
        };
        let doubled = first.saturating_mul(1 << (count - 1).min(16));
        let mut wait = doubled.min(LONGEST_WAIT);
        if kind.is_rate_limit {
            wait = wait.max(SHORTEST_WAIT_LIMITED);
        }
        wait += wait / 4 * u64::from(random) / u64::from(u8::MAX);
        let told = kind.retry_after.map(|told| match told {
            RetryAfter::Seconds(seconds) => seconds.min(LONGEST_RETRY_AFTER),
            RetryAfter::At(time) => time.saturating_sub(now).min(LONGEST_RETRY_AFTER),
        });
        Self {
            count,
            last: now,
            not_before: now.saturating_add(wait.max(told.unwrap_or_default())),
            is_told: told.is_some() || kind.is_rate_limit,
            text,
        }
    }

    /// From when on the next order may begin.
    fn allowed(&self, started: u64, now: u64) -> u64 {
        if self.last > now {
            // It failed under a wrong clock.
            0
        } else if started > self.last && !self.is_told {
            self.not_before
                .min(self.last.saturating_add(LONGEST_WAIT_RESTARTED))
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

    fn held(begins: u64) -> Held {
        Held {
            begins,
            ends: begins + 90 * DAY,
            obtained: begins + HOUR,
            is_as_configured: true,
        }
    }

    fn failed(times: u32, kind: Kind, random: u8) -> Failed {
        let mut failed = None;
        for _ in 0..times {
            failed = Some(Failed::after(
                failed.as_ref(),
                kind,
                String::new(),
                NOW,
                random,
            ));
        }
        failed.unwrap()
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        assert_eq!(next(Some(held(NOW)), None, NOW, NOW + DAY), NOW + 60 * DAY);
        let short = Held {
            ends: NOW + 6 * DAY,
            ..held(NOW)
        };
        assert_eq!(next(Some(short), None, NOW, NOW + DAY), NOW + 4 * DAY);
    }

    #[test]
    fn an_order_is_due_without_a_certificate_or_with_another_than_is_wanted() {
        let other = Held {
            is_as_configured: false,
            ..held(NOW)
        };
        for none in [None, Some(other)] {
            assert_eq!(next(none, None, NOW, NOW), 0);
            let wait = failed(1, Kind::default(), 0);
            assert_eq!(next(none, Some(&wait), NOW, NOW), NOW + FIRST_WAIT);
        }
    }

    #[test]
    fn a_wrong_clock_orders_neither_all_the_time_nor_never() {
        let years = NOW + 4_000 * DAY;
        let new = Held {
            obtained: years,
            ..held(NOW)
        };
        assert_eq!(next(Some(new), None, years, years + 1), years + 30 * DAY);
        // The clock is right again.
        assert_eq!(next(Some(new), None, NOW, NOW + DAY), NOW + 60 * DAY);
        let ahead = Failed {
            last: years,
            ..failed(9, Kind::default(), 0)
        };
        assert_eq!(next(None, Some(&ahead), NOW, NOW), 0);
    }

    #[test]
    fn each_failure_waits_twice_as_long_and_some_hours_at_the_most() {
        let waits = |kind, random| {
            (1..=9)
                .map(|times| (failed(times, kind, random).not_before - NOW) / MINUTE)
                .collect::<Vec<_>>()
        };
        let cheap = Kind {
            is_cheap: true,
            ..Kind::default()
        };
        assert_eq!(
            waits(Kind::default(), 0),
            [5, 10, 20, 40, 80, 160, 320, 360, 360]
        );
        assert_eq!(waits(cheap, 0), [1, 2, 4, 8, 16, 32, 64, 128, 256]);
        assert_eq!(waits(Kind::default(), 255)[7], 450);
        assert_eq!(waits(Kind::default(), 128)[0], 5);
        assert_eq!(
            failed(u32::from(u16::MAX), cheap, 0).not_before - NOW,
            LONGEST_WAIT
        );
    }

    #[test]
    fn what_the_authority_says_is_heeded_also_after_a_restart() {
        let told = |retry_after| {
            let kind = Kind {
                retry_after: Some(retry_after),
                ..Kind::default()
            };
            next(None, Some(&failed(1, kind, 0)), NOW + 1, NOW + 2) - NOW
        };
        assert_eq!(told(RetryAfter::Seconds(2 * DAY)), 2 * DAY);
        assert_eq!(told(RetryAfter::At(NOW + 9 * HOUR)), 9 * HOUR);
        // Less than one would wait anyway, and more than is to be believed.
        assert_eq!(told(RetryAfter::Seconds(1)), FIRST_WAIT);
        assert_eq!(told(RetryAfter::At(3)), FIRST_WAIT);
        assert_eq!(told(RetryAfter::Seconds(u64::MAX)), LONGEST_RETRY_AFTER);
        let limited = Kind {
            is_rate_limit: true,
            ..Kind::default()
        };
        let limited = failed(1, limited, 0);
        assert_eq!(next(None, Some(&limited), NOW + 1, NOW + 2) - NOW, HOUR);
    }

    #[test]
    fn a_restart_tries_again_soon_and_many_restarts_no_more_often() {
        let long = failed(8, Kind::default(), 0);
        assert_eq!(next(None, Some(&long), NOW, NOW + 1), NOW + LONGEST_WAIT);
        for restarted in [NOW + 1, NOW + HOUR] {
            let next = next(None, Some(&long), restarted, restarted);
            assert_eq!(next, NOW + LONGEST_WAIT_RESTARTED);
        }
    }
}
