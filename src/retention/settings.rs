//! Settings of a sweep: retention periods, and what the sweep may change.

use std::time::Duration;

use crate::time::DAY;

/// Retention periods of backups and trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The retention announced to phones, in days.
    pub announced_days: u32,
    /// How long a backup is kept after its last upload.
    pub keep: Duration,
    /// How long a removed backup stays in the trash.
    pub keep_trash: Duration,
    /// `maxBackupBytes`, the reference of the size histogram.
    pub max_backup_bytes: u64,
}

impl Retention {
    /// Retention periods in days. A backup is kept for `retention` plus `margin`, and a removed one
    /// in the trash for `trash`. `max_backup_bytes` is unlimited until
    /// [`Retention::for_backups_of`] sets it.
    #[must_use]
    pub fn of_days(retention: u32, margin: u32, trash: u32) -> Self {
        let days = |days: u64| Duration::from_secs(days * DAY);
        Self {
            announced_days: retention,
            keep: days(u64::from(retention) + u64::from(margin)),
            keep_trash: days(trash.into()),
            max_backup_bytes: u64::MAX,
        }
    }

    /// Sets `max_backup_bytes`, in bytes.
    #[must_use]
    pub fn for_backups_of(self, max_backup_bytes: usize) -> Self {
        Self {
            max_backup_bytes: max_backup_bytes as u64,
            ..self
        }
    }
}

/// What a sweep may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As [`Mode::Remove`], by the server itself, which announces this retention to phones.
    Serve,
    /// Remove expired backups, unless a safety check fails.
    Remove,
    /// Remove expired backups whatever their number, also in a first sweep: an operator has
    /// checked. A clock in doubt still stops the sweep.
    Force,
    /// Change nothing.
    DryRun,
}
