//! Times in arguments and output: parsing and formatting.

use std::time::{Duration, SystemTime};

use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime, Time};

use crate::time::{DAY, HOUR, MINUTE, unix};

/// Parses a date (midnight UTC), a time by RFC 3339, or a duration before `now`: a number of
/// `d`ays, `h`ours or `m`inutes.
pub(super) fn parse(text: &str, now: SystemTime) -> Option<SystemTime> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(time.into());
    }
    if let Ok(date) = Date::parse(text, &Iso8601::DATE) {
        return Some(OffsetDateTime::new_utc(date, Time::MIDNIGHT).into());
    }
    let (number, seconds) = [("d", DAY), ("h", HOUR), ("m", MINUTE)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    let number: u64 = number.trim_end().parse().ok()?;
    now.checked_sub(Duration::from_secs(number.checked_mul(seconds)?))
}

/// Formats a time by RFC 3339, to the second.
pub(super) fn date(time: SystemTime) -> String {
    unix_date(unix(time))
}

/// Formats a Unix time as [`date`] does; a time beyond the year 9999 as its number.
pub(super) fn unix_date(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| seconds.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_time_beyond_the_year_9999_is_formatted_as_a_number() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (253_402_300_800, "253402300800"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(unix_date(seconds), expected);
        }
    }

    #[test]
    fn dates_times_and_spans_are_parsed_and_nothing_else() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let now = at(1_800_000_000);
        for (text, expected) in [
            ("2026-11-24", at(1_795_478_400)),
            ("2026-11-24T10:00:00Z", at(1_795_514_400)),
            ("2026-11-24T11:00:00+01:00", at(1_795_514_400)),
            ("3d", now - Duration::from_secs(3 * DAY)),
            ("36h", now - Duration::from_secs(36 * HOUR)),
            ("90m", now - Duration::from_secs(90 * MINUTE)),
        ] {
            assert_eq!(parse(text, now), Some(expected), "{text}");
        }
        for text in [
            "",
            "3",
            "d",
            "-1d",
            "yesterday",
            "2026-13-01",
            "2026-11-24 10:00",
            "99999999999999999d",
            "3w",
        ] {
            assert_eq!(parse(text, now), None, "{text}");
        }
    }
}
