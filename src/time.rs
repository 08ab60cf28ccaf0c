//! Time: Unix time in seconds, units, and durations for display.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds in a minute.
pub const MINUTE: u64 = 60;
/// Seconds in an hour.
pub const HOUR: u64 = 60 * MINUTE;
/// Seconds in a day.
pub const DAY: u64 = 24 * HOUR;

/// Converts a time to Unix time in whole seconds; 0 before 1970.
#[must_use]
pub fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// A number of seconds for display, in the largest unit of which there are at least two.
///
/// Always rounded down, because most of these durations are deadlines. `indicatif::HumanDuration`
/// rounds up and goes on to weeks and years: 20 days and a half would become "3 weeks".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanSeconds(pub u64);

impl fmt::Display for HumanSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(seconds) = *self;
        if seconds == 1 {
            return f.write_str("1 second");
        }
        let (size, unit) = [(DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")]
            .into_iter()
            .find(|(size, _)| seconds / size >= 2)
            .unwrap_or((1, "seconds"));
        write!(f, "{} {unit}", seconds / size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_formatted_in_the_largest_unit_with_at_least_two() {
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7_199, "119 minutes"),
            (7_200, "2 hours"),
            (2 * DAY - 1, "47 hours"),
            (2 * DAY, "2 days"),
            (800 * DAY, "800 days"),
        ] {
            assert_eq!(HumanSeconds(seconds).to_string(), expected);
        }
    }
}
