//! Rate limits against guessing: wrong passwords, unknown backup ids and new backups in an hour.

use std::num::NonZeroU32;
use std::time::Duration;

use super::reader::Reader;

/// The largest rate limit, which limits nothing in practice.
const MAX_RATE: u64 = 1_000_000;
/// The longest delay in seconds: Android gives up after 30 seconds without a response.
const MAX_DELAY: u64 = 25;

/// Rate limits in requests per hour. An "address" is an IPv4 address or an IPv6 /64; in
/// [`wrong_passwords_per_address`](Self::wrong_passwords_per_address) and
/// [`new_backups_per_address`](Self::new_backups_per_address) it is an IPv6 /48.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Wrong passwords for one account from one address.
    pub wrong_passwords_per_account: NonZeroU32,
    /// Wrong passwords for all accounts from one address.
    pub wrong_passwords_per_address: NonZeroU32,
    /// How long a request waits for its password to be checked before it is refused. Whole seconds.
    pub wrong_password_delay: Duration,
    /// Requests of one account from one address for backup ids that do not exist.
    pub unknown_backups_per_address: NonZeroU32,
    /// Requests of one account from all addresses for backup ids that do not exist.
    pub unknown_backups_per_account: NonZeroU32,
    /// New backups of one account from one address. Updates of existing backups are not counted.
    pub new_backups_per_address: NonZeroU32,
}

impl RateLimits {
    /// Reads the rate limits from the section `limits`.
    pub(super) fn read(limits: &mut Reader<'_>) -> Self {
        let each_hour = |limits: &mut Reader<'_>, key, default| {
            let number = limits.number(key, default, 1..=MAX_RATE);
            let number = u32::try_from(number).ok().and_then(NonZeroU32::new);
            number.unwrap_or(NonZeroU32::MAX)
        };
        Self {
            wrong_passwords_per_account: each_hour(limits, "wrongPasswordsPerAccountAndHour", 360),
            wrong_passwords_per_address: each_hour(
                limits,
                "wrongPasswordsPerAddressAndHour",
                3_600,
            ),
            wrong_password_delay: Duration::from_secs(limits.number(
                "wrongPasswordDelaySeconds",
                15,
                0..=MAX_DELAY,
            )),
            unknown_backups_per_address: each_hour(limits, "unknownBackupsPerAddressAndHour", 120),
            unknown_backups_per_account: each_hour(
                limits,
                "unknownBackupsPerAccountAndHour",
                3_600,
            ),
            new_backups_per_address: each_hour(limits, "newBackupsPerAddressAndHour", 3_600),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Error};

    fn parse(text: &str) -> Config {
        Config::from_json(text.as_bytes(), Path::new("config.json")).unwrap()
    }

    #[test]
    fn the_defaults_are_as_documented() {
        let config = parse("{}");

        let count = |number| NonZeroU32::new(number).unwrap();
        assert_eq!(
            config.limits.rate_limits,
            RateLimits {
                wrong_passwords_per_account: count(360),
                wrong_passwords_per_address: count(3_600),
                wrong_password_delay: Duration::from_secs(15),
                unknown_backups_per_address: count(120),
                unknown_backups_per_account: count(3_600),
                new_backups_per_address: count(3_600),
            }
        );
    }

    #[test]
    fn a_rate_limit_of_zero_would_lock_out_all_clients() {
        for key in [
            "wrongPasswordsPerAccountAndHour",
            "wrongPasswordsPerAddressAndHour",
            "unknownBackupsPerAddressAndHour",
            "unknownBackupsPerAccountAndHour",
            "newBackupsPerAddressAndHour",
        ] {
            let text = format!(r#"{{ "limits": {{ "{key}": 0 }} }}"#);
            let parsed = Config::from_json(text.as_bytes(), Path::new("config.json"));
            let Err(Error::Invalid { problems, .. }) = parsed else {
                panic!("{key} was accepted");
            };
            let expected = format!("limits.{key}: must be an integer from 1 to 1000000");
            assert_eq!(problems[0].to_string(), expected);
        }
    }
}
