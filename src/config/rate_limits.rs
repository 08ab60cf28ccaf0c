//! What is counted over time and over all requests: wrong passwords, unknown ids, backups and their bytes.

use std::num::NonZeroU32;
use std::time::Duration;

use super::reader::Reader;

/// The most that a budget can be; at that it is none.
const MOST: u64 = 1_000_000;
/// Android gives up after 30 seconds without an answer.
const DELAY_LIMIT: u64 = 25;

/// How much guessing the server bears. An "address" is one of IPv4, or a /64 of IPv6; and a /48 in
/// [`wrong_passwords_per_address`](Self::wrong_passwords_per_address) and
/// [`new_backups_per_address`](Self::new_backups_per_address).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Wrong passwords for one account from one address, in an hour.
    pub wrong_passwords_per_account: NonZeroU32,
    /// Wrong passwords for all accounts from one address, in an hour.
    pub wrong_passwords_per_address: NonZeroU32,
    /// How long a check of a password waits for its turn before it is refused.
    pub wrong_password_delay: Duration,
    /// Ids that do not exist, asked for by one account from one address, in an hour.
    pub unknown_backups_per_address: NonZeroU32,
    /// Ids that do not exist, asked for by one account from all addresses, in an hour.
    pub unknown_backups_per_account: NonZeroU32,
    /// Backups that one account uploads for the first time from one address, in an hour.
    pub new_backups_per_address: NonZeroU32,
}

impl RateLimits {
    /// Reads them among the `limits`.
    pub(super) fn read(limits: &mut Reader<'_>) -> Self {
        let each_hour = |limits: &mut Reader<'_>, key, default| {
            let number = limits.number(key, default, 1..=MOST);
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
                0..=DELAY_LIMIT,
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

    use super::super::Config;
    use super::*;

    fn parse(text: &str) -> Config {
        Config::from_json(text.as_bytes(), Path::new("config.json")).unwrap()
    }

    #[test]
    fn the_defaults_are_these() {
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
    fn a_budget_of_nothing_would_lock_everybody_out() {
        for key in [
            "wrongPasswordsPerAccountAndHour",
            "wrongPasswordsPerAddressAndHour",
            "unknownBackupsPerAddressAndHour",
            "unknownBackupsPerAccountAndHour",
            "newBackupsPerAddressAndHour",
        ] {
            let text = format!(r#"{{ "limits": {{ "{key}": 0 }} }}"#);
            let parsed = Config::from_json(text.as_bytes(), Path::new("config.json"));
            let Err(super::super::Error::Invalid { problems, .. }) = parsed else {
                panic!("{key} was accepted");
            };
            let expected = format!("limits.{key}: must be a whole number from 1 to 1000000");
            assert_eq!(problems[0].to_string(), expected);
        }
    }
}
