//! Retention: expiry of backups and of trash, and the sweep that applies it.
//!
//! A phone that renews unchanged data does so only after the full announced retention (iOS app, all
//! versions up to 7.2.2). Hence the margin: a backup is kept for `retention + margin` after its
//! last upload, and one that is exactly that old is still kept. Expired backups are moved to the
//! trash, so that the damage of a wrong clock can be undone.
//!
//! A sweep scans everything before it changes anything, and removes nothing at all if its findings
//! are more likely due to a wrong clock or a wrong setting than to the passing of time
//! (`safety.rs`). After a deletion burst it still moves expired backups to the trash, but erases
//! none from it (`deletion_burst.rs`).

mod age_histogram;
mod bounded_list;
mod deletion_burst;
mod retention_history;
mod safety;
mod size_histogram;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;

use self::bounded_list::BoundedList;
use self::deletion_burst::Removals;
use crate::backup::BackupId;
use crate::state::{self, DeletionBurst, IfInvalid, RetentionPeriod, State, StateStore};
use crate::store::{self, Meta, Store, Trashed};
use crate::time::{DAY, unix};

pub use age_histogram::{AgeBucket, AgeHistogram};
pub use safety::Refusal;
pub use size_histogram::{SizeBucket, SizeHistogram};

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
    /// Remove expired backups without safety checks: an operator has checked.
    Force,
    /// Change nothing.
    DryRun,
}

/// The result of a sweep. In a dry run, what a sweep would have done.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The number of backups kept.
    pub kept: u64,
    /// Their bytes; `u64::MAX` if they are more.
    pub kept_bytes: u64,
    /// The number of expired backups moved to the trash.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// The number of backups kept in the trash.
    pub trash_kept: u64,
    /// Their bytes.
    pub trash_bytes: u64,
    /// The number of backups erased from the trash.
    pub trash_erased: u64,
    /// The deletion burst because of which nothing is erased from the trash, if there is one.
    pub trash_held: Option<DeletionBurst>,
    /// The number of backups that could not be removed or erased; the next sweep tries again.
    pub failed: u64,
    /// The safety check that stopped the sweep; in a dry run, the one that would stop it.
    pub refused: Option<Refusal>,
    /// All backups by age, before the sweep.
    pub ages: AgeHistogram,
    /// All backups by size, before the sweep.
    pub sizes: SizeHistogram,
    /// The number of backups that expire within 14 days unless they are renewed, without expired
    /// ones.
    pub expiring_in_14_days: u64,
    /// The same within 30 days.
    pub expiring_in_30_days: u64,
}

/// An error that aborted a sweep.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Listing the store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The state file cannot be read or written.
    #[error(transparent)]
    State(#[from] state::Error),
}

/// Runs one sweep over all backups and all trash.
///
/// # Errors
/// When listing fails, or the state file cannot be read or written. Failures of single files are
/// only counted.
pub async fn sweep(
    store: &dyn Store,
    state: &dyn StateStore,
    retention: Retention,
    now: SystemTime,
    mode: Mode,
) -> Result<Report, Error> {
    let previous = match state.load().await {
        Err(state::Error::Syntax { .. }) if mode == Mode::Force => State::default(),
        other => other?,
    };
    let current = RetentionPeriod {
        since: unix(now),
        keep_seconds: retention.keep.as_secs(),
        manual: mode != Mode::Serve,
    };
    let mut sweep = Sweep {
        store,
        periods: retention_history::with_current(&previous.retention_periods, current),
        previous,
        retention,
        now,
        mode,
        report: Report {
            ages: AgeHistogram::up_to(retention.announced_days),
            sizes: SizeHistogram::new(),
            ..Report::default()
        },
    };

    let expired = sweep.scan_backups().await?;
    sweep.report.refused = sweep.refusal(expired.count());
    if mode == Mode::Force {
        sweep.report.refused = None;
    }
    let acts = sweep.report.refused.is_none() || mode == Mode::DryRun;
    if acts {
        sweep.remove_expired(expired).await?;
    }
    let old_trash = sweep.scan_trash().await?;
    if acts && sweep.report.trash_held.is_none() {
        sweep.erase_old_trash(old_trash).await?;
    }
    if mode != Mode::DryRun {
        match sweep.save_state(state).await {
            // What was counted is true all the same. The next sweep of the server tries again.
            Err(error @ state::Error::Write { .. }) if mode == Mode::Serve => tracing::error!(
                error = &error as &dyn std::error::Error,
                "sweep: state could not be saved"
            ),
            saved => saved?,
        }
    }
    Ok(sweep.report)
}

/// A backup, as listed by a store.
type Listed = (BackupId, Meta);

/// A running sweep.
struct Sweep<'a> {
    store: &'a dyn Store,
    previous: State,
    periods: Vec<RetentionPeriod>,
    retention: Retention,
    now: SystemTime,
    mode: Mode,
    report: Report,
}

impl Sweep<'_> {
    /// The oldest upload time that is still kept, for a backup last uploaded at `last_upload`.
    fn oldest_kept(&self, last_upload: SystemTime) -> SystemTime {
        let keep = retention_history::keep(&self.periods, last_upload);
        self.now.checked_sub(keep).unwrap_or(UNIX_EPOCH)
    }

    fn has_expired(&self, last_upload: SystemTime) -> bool {
        last_upload < self.oldest_kept(last_upload)
    }

    fn is_old_trash(&self, removed_at: u64) -> bool {
        removed_at < unix(self.now).saturating_sub(self.retention.keep_trash.as_secs())
    }

    /// Counts all backups as kept, and returns the expired ones.
    async fn scan_backups(&mut self) -> Result<BoundedList<Listed>, Error> {
        let mut expired = BoundedList::new();
        let mut backups = self.store.list();
        while let Some(listed) = backups.next().await {
            let (id, meta) = listed?;
            if self.count(&meta) {
                expired.push((id, meta));
            }
        }
        Ok(expired)
    }

    /// Counts one backup as kept; returns true if it has expired.
    fn count(&mut self, meta: &Meta) -> bool {
        let oldest_kept = self.oldest_kept(meta.last_upload);
        let is_older_in = |days: u64| {
            let end = oldest_kept.checked_add(Duration::from_secs(days * DAY));
            end.is_none_or(|end| meta.last_upload < end)
        };
        let has_expired = is_older_in(0);
        let report = &mut self.report;
        report.kept += 1;
        // Saturated: sparse files may be as long as they like.
        report.kept_bytes = report.kept_bytes.saturating_add(meta.length);
        report.ages.count(meta.last_upload, self.now);
        report
            .sizes
            .count(meta.length, self.retention.max_backup_bytes);
        report.expiring_in_14_days += u64::from(!has_expired && is_older_in(14));
        report.expiring_in_30_days += u64::from(!has_expired && is_older_in(30));
        has_expired
    }

    fn refusal(&self, expired: u64) -> Option<Refusal> {
        let clock = safety::check_clock(
            &self.previous,
            unix(self.now),
            self.retention.announced_days,
        );
        clock.or_else(|| safety::check_expired_count(expired, self.report.kept))
    }

    async fn remove_expired(&mut self, expired: BoundedList<Listed>) -> Result<(), Error> {
        let mut backups = expired.buffered_or_relisted(|| self.store.list());
        while let Some(listed) = backups.next().await {
            let (id, meta) = listed?;
            if !self.has_expired(meta.last_upload) {
                continue;
            }
            let oldest_kept = self.oldest_kept(meta.last_upload);
            let removed = match self.mode {
                Mode::DryRun => Ok(true),
                Mode::Serve | Mode::Remove | Mode::Force => {
                    self.store.expire(id, oldest_kept, self.now).await
                }
            };
            match removed {
                Ok(true) => {
                    let kept = &mut self.report;
                    kept.kept = kept.kept.saturating_sub(1);
                    kept.kept_bytes = kept.kept_bytes.saturating_sub(meta.length);
                    self.report.removed += 1;
                    self.report.removed_bytes =
                        self.report.removed_bytes.saturating_add(meta.length);
                }
                Ok(false) => {}
                Err(error) => {
                    self.report.fail("remove an expired backup", &error);
                    if matches!(error, store::Error::ReadOnly(_)) {
                        // The others would fail in the same way.
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts all trash as kept, returns the trash due to be erased, and detects a deletion burst.
    async fn scan_trash(&mut self) -> Result<BoundedList<Trashed>, Error> {
        let mut old = BoundedList::new();
        let mut removals = Removals::default();
        let mut trash = self.store.list_trash();
        while let Some(listed) = trash.next().await {
            let trashed = listed?;
            self.report.trash_kept += 1;
            self.report.trash_bytes = self.report.trash_bytes.saturating_add(trashed.length);
            if self.is_old_trash(trashed.removed_at) {
                old.push(trashed);
            }
            removals.count(&trashed, &self.periods, self.previous.acknowledged_until);
        }
        // A detected burst lasts, even if there are more backups again, until all removed backups
        // are restored or the operator confirms.
        let previous = self.previous.deletion_burst;
        let known = previous.filter(|burst| removals.any_since(burst.since));
        self.report.trash_held = known.or_else(|| removals.burst(self.report.kept, unix(self.now)));
        Ok(old)
    }

    async fn erase_old_trash(&mut self, old: BoundedList<Trashed>) -> Result<(), Error> {
        let mut trash = old.buffered_or_relisted(|| self.store.list_trash());
        while let Some(listed) = trash.next().await {
            let trashed = listed?;
            if !self.is_old_trash(trashed.removed_at) {
                continue;
            }
            let erased = match self.mode {
                Mode::DryRun => Ok(true),
                Mode::Serve | Mode::Remove | Mode::Force => self.store.erase_trashed(trashed).await,
            };
            match erased {
                Ok(true) => {
                    let kept = &mut self.report;
                    kept.trash_kept = kept.trash_kept.saturating_sub(1);
                    kept.trash_bytes = kept.trash_bytes.saturating_sub(trashed.length);
                    self.report.trash_erased += 1;
                }
                Ok(false) => {}
                Err(error) => {
                    self.report.fail("erase a backup in the trash", &error);
                    if matches!(error, store::Error::ReadOnly(_)) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Saves the state for the next sweep, unless a check of the clock has failed.
    async fn save_state(&self, store: &dyn StateStore) -> Result<(), state::Error> {
        let completed = self.report.refused.is_none();
        let clock_is_right =
            completed || matches!(self.report.refused, Some(Refusal::TooMany { .. }));
        if !clock_is_right {
            return Ok(());
        }
        let now = unix(self.now);
        let periods = self.periods.clone();
        let held = self.report.trash_held;
        let acknowledged_before = self.previous.acknowledged_until;
        let change = move |state: &mut State| {
            if completed {
                state.last_sweep = Some(now);
            }
            state.highest_time = Some(now);
            state.retention_periods.clone_from(&periods);
            // Unless an operator acknowledged the removals during the sweep.
            if state.acknowledged_until == acknowledged_before {
                state.deletion_burst = held;
            }
        };
        let if_invalid = if self.mode == Mode::Force {
            IfInvalid::StartEmpty
        } else {
            IfInvalid::Fail
        };
        store.apply(Box::new(change), if_invalid).await
    }
}

impl Report {
    /// The bytes of the backups and of the trash; `u64::MAX` if they are more.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.kept_bytes.saturating_add(self.trash_bytes)
    }

    fn fail(&mut self, operation: &'static str, error: &store::Error) {
        self.failed += 1;
        tracing::error!(
            operation,
            error = error as &dyn std::error::Error,
            "sweep: file failed"
        );
    }
}
