//! Time: Unix time in seconds, units, the range that can be printed, and durations for display.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds in a minute.
pub const MINUTE: u64 = 60;
/// Seconds in an hour.
pub const HOUR: u64 = 60 * MINUTE;
/// Seconds in a day.
pub const DAY: u64 = 24 * HOUR;

/// The last second that has a date of four digits, 9999-12-31T23:59:59Z, in Unix time. HTTP dates
/// and RFC 3339 end here, and libraries that format them panic beyond.
pub const LAST_SECOND: u64 = 253_402_300_799;
/// Nanoseconds in a second, less one.
const LAST_NANOSECOND: u32 = 999_999_999;

/// Converts the time of a file, in Unix seconds and nanoseconds, to the nearest time that can be
/// printed: from 1970 to the year 9999. A file may have any time: `touch` sets it, archives and
/// network file systems carry it, and a broken one has more nanoseconds than a second.
#[must_use]
pub fn printable(seconds: i64, nanoseconds: i64) -> SystemTime {
    let nanoseconds = nanoseconds.clamp(0, LAST_NANOSECOND.into());
    let since = match u64::try_from(seconds) {
        Err(_) => Duration::ZERO,
        Ok(seconds) if seconds > LAST_SECOND => Duration::new(LAST_SECOND, LAST_NANOSECOND),
        Ok(seconds) => Duration::new(
            seconds,
            u32::try_from(nanoseconds).unwrap_or(LAST_NANOSECOND),
        ),
    };
    UNIX_EPOCH + since
}

/// As [`printable`], for a time that is not from a file.
#[must_use]
pub fn printable_time(time: SystemTime) -> SystemTime {
    let latest = UNIX_EPOCH + Duration::new(LAST_SECOND, LAST_NANOSECOND);
    time.clamp(UNIX_EPOCH, latest)
}

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
    fn the_time_of_a_file_is_moved_into_the_range_that_can_be_printed() {
        let at = |seconds, nanoseconds| UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        let first = UNIX_EPOCH;
        let last = at(253_402_300_799, 999_999_999);
        for (seconds, nanoseconds, expected) in [
            (0, 0, first),
            (-1, 0, first),
            (-1, 999_999_999, first),
            (i64::MIN, i64::MIN, first),
            (1_700_000_000, 7, at(1_700_000_000, 7)),
            (1_700_000_000, -1, at(1_700_000_000, 0)),
            (1_700_000_000, 1_000_000_000, at(1_700_000_000, 999_999_999)),
            (1_700_000_000, i64::MAX, at(1_700_000_000, 999_999_999)),
            (253_402_300_799, 5, at(253_402_300_799, 5)),
            (253_402_300_800, 0, last),
            (i64::MAX, i64::MAX, last),
        ] {
            let found = printable(seconds, nanoseconds);
            assert_eq!(found, expected, "{seconds} {nanoseconds}");
            assert_eq!(printable_time(found), found);
        }
        assert_eq!(printable_time(first - Duration::from_secs(9)), first);
        assert_eq!(printable_time(last + Duration::from_secs(9)), last);
    }

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
