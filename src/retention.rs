//! What expires when, and one sweep that acts on it.
//!
//! A phone that renews unchanged data does so only after the full announced retention (protocol of iOS,
//! all versions up to 7.2.2). Hence the margin: a backup is kept for `retention + margin` after its last
//! upload, and one that is exactly that old is still kept. What expires goes through the trash, so that
//! a clock that was wrong can be mended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;

use crate::store::{Error, Store};

const DAY: u64 = 24 * 60 * 60;

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// A backup, after its last upload.
    pub keep: Duration,
    /// A removed backup, in the trash.
    pub keep_trash: Duration,
}

impl Retention {
    /// Retention and margin add up; all three in days.
    #[must_use]
    pub fn of_days(retention: u32, margin: u32, trash: u32) -> Self {
        let days = |days: u64| Duration::from_secs(days * DAY);
        Self {
            keep: days(u64::from(retention) + u64::from(margin)),
            keep_trash: days(trash.into()),
        }
    }

    /// The oldest time of upload that is still kept at `now`. `None` when nothing can be too old.
    #[must_use]
    pub fn oldest_kept(&self, now: SystemTime) -> Option<SystemTime> {
        now.checked_sub(self.keep)
    }

    /// The oldest Unix time of removal that is still kept in the trash at `now`.
    fn oldest_trash_kept(&self, now: SystemTime) -> u64 {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        now.saturating_sub(self.keep_trash.as_secs())
    }
}

/// Whether a sweep acts or only counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Remove what has expired.
    Remove,
    /// Change nothing.
    DryRun,
}

/// What a sweep found and did. In a dry run, what it would have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Backups that stay.
    pub kept: u64,
    /// Backups that had expired and went into the trash.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Backups in the trash that stay.
    pub trash_kept: u64,
    /// Backups in the trash that were erased for good.
    pub trash_erased: u64,
    /// Backups that could not be looked at or erased; the next sweep tries again.
    pub failed: u64,
}

/// Goes once through all backups and all trash.
///
/// # Errors
/// Only when a listing cannot be begun or goes wrong; single files that fail are counted.
pub async fn sweep(
    store: &dyn Store,
    retention: Retention,
    now: SystemTime,
    mode: Mode,
) -> Result<Report, Error> {
    let mut report = Report::default();
    let oldest_kept = retention.oldest_kept(now).unwrap_or(UNIX_EPOCH);
    let mut backups = store.list();
    while let Some(listed) = backups.next().await {
        let (id, meta) = listed?;
        if meta.last_upload >= oldest_kept {
            report.kept += 1;
            continue;
        }
        let erased = match mode {
            Mode::DryRun => Ok(true),
            Mode::Remove => store.expire(id, oldest_kept, now).await,
        };
        match erased {
            Ok(true) => {
                report.removed += 1;
                report.removed_bytes += meta.length;
            }
            Ok(false) => report.kept += 1,
            Err(error) => report.fail("remove an expired backup", &error),
        }
    }

    let oldest_trash_kept = retention.oldest_trash_kept(now);
    let mut trash = store.list_trash();
    while let Some(listed) = trash.next().await {
        let trashed = listed?;
        if trashed.removed_at >= oldest_trash_kept {
            report.trash_kept += 1;
            continue;
        }
        let erased = match mode {
            Mode::DryRun => Ok(true),
            Mode::Remove => store.erase_trashed(trashed).await,
        };
        match erased {
            Ok(true) => report.trash_erased += 1,
            Ok(false) => {}
            Err(error) => report.fail("erase a backup in the trash", &error),
        }
    }
    Ok(report)
}

impl Report {
    fn fail(&mut self, operation: &'static str, error: &Error) {
        self.failed += 1;
        tracing::error!(
            operation,
            error = error as &dyn std::error::Error,
            "sweep: one file failed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_of_exactly_retention_and_margin_is_kept() {
        let retention = Retention::of_days(180, 7, 7);
        let now = UNIX_EPOCH + Duration::from_secs(1_000 * DAY);
        let oldest = retention.oldest_kept(now).unwrap();

        assert_eq!(
            oldest,
            UNIX_EPOCH + Duration::from_secs((1_000 - 187) * DAY)
        );
        assert_eq!(retention.oldest_trash_kept(now), (1_000 - 7) * DAY);
    }

    #[test]
    fn a_clock_near_the_epoch_expires_nothing() {
        let retention = Retention::of_days(180, 7, 7);
        assert!(
            retention
                .oldest_kept(UNIX_EPOCH + Duration::from_secs(5))
                .unwrap()
                < UNIX_EPOCH
        );
        assert_eq!(retention.oldest_trash_kept(UNIX_EPOCH), 0);
    }
}
