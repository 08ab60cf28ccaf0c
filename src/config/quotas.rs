//! Storage quotas and the daily quota of new backups: the section `quotas`.

use std::num::NonZeroU32;

use super::reader::Reader;

/// The largest quota of bytes.
const MAX_BYTES: u64 = 1 << 60;
/// The largest number of new backups in a day.
const MAX_NEW_BACKUPS: u64 = 1_000_000;

/// Quotas; `None` is no quota. Beyond a quota new backups are refused, and existing backups can
/// still be updated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// The number of backups, without the trash.
    pub max_backups: Option<u64>,
    /// The bytes of all backups and of the trash.
    pub max_total_bytes: Option<u64>,
    /// The bytes that must stay free in the file system after a new backup.
    pub min_free_bytes: Option<u64>,
    /// The number of new backups of one account in a day.
    pub new_backups_per_account: Option<NonZeroU32>,
}

impl Quotas {
    /// Reads the section `quotas`; 0 is no quota.
    pub(super) fn read(quotas: &mut Reader<'_>) -> Self {
        let limit = |quotas: &mut Reader<'_>, key, default| {
            Some(quotas.number(key, default, 0..=MAX_BYTES)).filter(|limit| *limit > 0)
        };
        Self {
            max_backups: limit(quotas, "maxBackups", 0),
            max_total_bytes: limit(quotas, "maxTotalBytes", 0),
            min_free_bytes: limit(quotas, "minFreeBytes", 67_108_864),
            new_backups_per_account: u32::try_from(quotas.number(
                "newBackupsPerAccountAndDay",
                0,
                0..=MAX_NEW_BACKUPS,
            ))
            .ok()
            .and_then(NonZeroU32::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Quotas {
        let config = Config::from_json(text.as_bytes(), Path::new("config.json"));
        config.unwrap().quotas
    }

    #[test]
    fn by_default_only_free_space_is_reserved() {
        let expected = Quotas {
            min_free_bytes: Some(64 << 20),
            ..Quotas::default()
        };
        assert_eq!(parse("{}"), expected);
    }

    #[test]
    fn a_quota_of_zero_is_no_quota() {
        let quotas = parse(r#"{ "quotas": { "maxBackups": 7, "minFreeBytes": 0 } }"#);

        let expected = Quotas {
            max_backups: Some(7),
            ..Quotas::default()
        };
        assert_eq!(quotas, expected);
    }
}
