//! Storage quotas and the daily quota of new backups: the section `quotas`.

use std::num::NonZeroU32;

use super::reader::Reader;

/// The largest quota of bytes.
const MAX_BYTES: u64 = 1 << 60;
/// The largest number of new backups in a day.
const MAX_NEW_BACKUPS: u64 = 1_000_000;

/// The least default of `minFreeBytes`.
const MIN_FREE_BYTES: u64 = 64 << 20;

/// Quotas; `None` is no quota. Beyond a quota new backups and much larger ones are refused, and
/// existing backups can still be renewed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// The number of backups, without the trash.
    pub max_backups: Option<u64>,
    /// The bytes of all backups and of the trash.
    pub max_total_bytes: Option<u64>,
    /// The bytes that must stay free in the file system after a new backup or a larger one.
    pub min_free_bytes: Option<u64>,
    /// The number of new backups of one account in a day.
    pub new_backups_per_account: Option<NonZeroU32>,
    /// `maxBackupBytes`: the room that a renewal may need.
    pub max_backup_bytes: u64,
}

impl Quotas {
    /// Reads the section `quotas`; 0 is no quota. By default, two renewals of `max_backup_bytes` at
    /// the same time have room.
    pub(super) fn read(quotas: &mut Reader<'_>, max_backup_bytes: usize) -> Self {
        let max_backup_bytes = max_backup_bytes as u64;
        let min_free_bytes = MIN_FREE_BYTES.max(max_backup_bytes * 2);
        let limit = |quotas: &mut Reader<'_>, key, default| {
            Some(quotas.number(key, default, 0..=MAX_BYTES)).filter(|limit| *limit > 0)
        };
        Self {
            max_backup_bytes,
            max_backups: limit(quotas, "maxBackups", 0),
            max_total_bytes: limit(quotas, "maxTotalBytes", 0),
            min_free_bytes: limit(quotas, "minFreeBytes", min_free_bytes),
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
            max_backup_bytes: 524_288,
            ..Quotas::default()
        };
        assert_eq!(parse("{}"), expected);
    }

    #[test]
    fn the_space_for_renewals_grows_with_the_largest_backup() {
        for (max_backup_bytes, expected) in [
            (33_554_432, 64 << 20),
            (33_554_433, (64 << 20) + 2),
            (134_217_728, 256 << 20),
        ] {
            let quotas = parse(&format!(r#"{{ "maxBackupBytes": {max_backup_bytes} }}"#));
            assert_eq!(quotas.min_free_bytes, Some(expected));
        }
        let text = r#"{ "maxBackupBytes": 134217728, "quotas": { "minFreeBytes": 7 } }"#;
        assert_eq!(parse(text).min_free_bytes, Some(7));
    }

    #[test]
    fn a_quota_of_zero_is_no_quota() {
        let quotas = parse(r#"{ "quotas": { "maxBackups": 7, "minFreeBytes": 0 } }"#);

        let expected = Quotas {
            max_backups: Some(7),
            max_backup_bytes: 524_288,
            ..Quotas::default()
        };
        assert_eq!(quotas, expected);
    }
}
