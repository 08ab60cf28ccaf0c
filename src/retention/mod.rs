//! What expires when, and one sweep that acts on it.
//!
//! A phone that renews unchanged data does so only after the full announced retention (protocol of iOS,
//! all versions up to 7.2.2). Hence the margin: a backup is kept for `retention + margin` after its last
//! upload, and one that is exactly that old is still kept. What expires goes through the trash, so that
//! a clock that was wrong can be mended.
//!
//! A sweep looks at everything before it touches anything, and does nothing at all where what it sees is more likely
//! a wrong clock or a wrong setting than the passing of time.

mod ages;
mod burst;
mod due;
mod guard;
mod promises;
mod sizes;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;

use self::burst::Removals;
use self::due::Due;
use crate::backup::BackupId;
use crate::state::{self, Burst, IfInvalid, Promise, State, StateStore, unix};
use crate::store::{self, Meta, Store, Trashed};

pub use ages::{Age, Ages};
pub use guard::Refusal;
pub use sizes::{Size, Sizes};

const DAY: u64 = 24 * 60 * 60;

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// What is announced to phones, in days.
    pub announced_days: u32,
    /// A backup, after its last upload.
    pub keep: Duration,
    /// A removed backup, in the trash.
    pub keep_trash: Duration,
    /// The size that is allowed, against which backups are measured.
    pub max_backup_bytes: u64,
}

impl Retention {
    /// Retention and margin add up; all three in days.
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

    /// The same, where so many bytes are allowed for one backup.
    #[must_use]
    pub fn for_backups_of(self, max_backup_bytes: usize) -> Self {
        Self {
            max_backup_bytes: max_backup_bytes as u64,
            ..self
        }
    }
}

/// Whether a sweep acts or only counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As [`Mode::Remove`], by the server itself: it announces this retention to phones.
    Serve,
    /// Remove what has expired, unless there is a reason to be careful.
    Remove,
    /// Remove what has expired: a person has looked.
    Force,
    /// Change nothing.
    DryRun,
}

/// What a sweep found and did. In a dry run, what it would have done.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Backups that stay.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Backups that had expired and went into the trash.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Backups in the trash that stay.
    pub trash_kept: u64,
    /// Their bytes.
    pub trash_bytes: u64,
    /// Backups in the trash that were erased for good.
    pub trash_erased: u64,
    /// Why nothing is erased from the trash.
    pub trash_held: Option<Burst>,
    /// Backups that could not be looked at or erased; the next sweep tries again.
    pub failed: u64,
    /// Why nothing was done; in a dry run, why nothing would be.
    pub refused: Option<Refusal>,
    /// All backups by age, as they were before.
    pub ages: Ages,
    /// All backups by size, as they were before.
    pub sizes: Sizes,
    /// Backups that expire within 14 days unless they are renewed; without those that have expired.
    pub expiring_in_14_days: u64,
    /// As before, within 30 days.
    pub expiring_in_30_days: u64,
}

/// Why a sweep broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listing could not be begun or went wrong.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What is remembered of earlier sweeps cannot be read or written.
    #[error(transparent)]
    State(#[from] state::Error),
}

/// Goes through all backups and all trash.
///
/// # Errors
/// When a listing goes wrong, or the state cannot be read or written; single files that fail are counted.
pub async fn sweep(
    store: &dyn Store,
    state: &dyn StateStore,
    retention: Retention,
    now: SystemTime,
    mode: Mode,
) -> Result<Report, Error> {
    let remembered = match state.load().await {
        Err(state::Error::Syntax { .. }) if mode == Mode::Force => State::default(),
        other => other?,
    };
    let current = Promise {
        since: unix(now),
        keep_seconds: retention.keep.as_secs(),
        by_hand: mode != Mode::Serve,
    };
    let mut sweep = Sweep {
        store,
        promises: promises::with_current(&remembered.promises, current),
        remembered,
        retention,
        now,
        mode,
        report: Report {
            ages: Ages::up_to(retention.announced_days),
            sizes: Sizes::none(),
            ..Report::default()
        },
    };

    let expired = sweep.look_at_backups().await?;
    sweep.report.refused = sweep.reason_to_refuse(expired.count());
    if mode == Mode::Force {
        sweep.report.refused = None;
    }
    let acts = sweep.report.refused.is_none() || mode == Mode::DryRun;
    if acts {
        sweep.remove_expired(expired).await?;
    }
    let old_trash = sweep.look_at_trash().await?;
    if acts && sweep.report.trash_held.is_none() {
        sweep.erase_old_trash(old_trash).await?;
    }
    if mode != Mode::DryRun {
        sweep.remember(state).await?;
    }
    Ok(sweep.report)
}

/// A backup as a store lists it.
type Listed = (BackupId, Meta);

/// One sweep under way.
struct Sweep<'a> {
    store: &'a dyn Store,
    remembered: State,
    promises: Vec<Promise>,
    retention: Retention,
    now: SystemTime,
    mode: Mode,
    report: Report,
}

impl Sweep<'_> {
    /// When a backup of this time has been kept for long enough: it stays if it was uploaded then or later.
    fn oldest_kept(&self, last_upload: SystemTime) -> SystemTime {
        let keep = promises::keep(&self.promises, last_upload);
        self.now.checked_sub(keep).unwrap_or(UNIX_EPOCH)
    }

    fn has_expired(&self, last_upload: SystemTime) -> bool {
        last_upload < self.oldest_kept(last_upload)
    }

    fn is_old_trash(&self, removed_at: u64) -> bool {
        removed_at < unix(self.now).saturating_sub(self.retention.keep_trash.as_secs())
    }

    /// Counts all backups as kept; which of them have expired.
    async fn look_at_backups(&mut self) -> Result<Due<Listed>, Error> {
        let mut expired = Due::none();
        let mut backups = self.store.list();
        while let Some(listed) = backups.next().await {
            let (id, meta) = listed?;
            if self.count(&meta) {
                expired.push((id, meta));
            }
        }
        Ok(expired)
    }

    /// Counts one backup as kept; whether it has expired.
    fn count(&mut self, meta: &Meta) -> bool {
        let oldest_kept = self.oldest_kept(meta.last_upload);
        let is_older_in =
            |days: u64| meta.last_upload < oldest_kept + Duration::from_secs(days * DAY);
        let has_expired = is_older_in(0);
        let report = &mut self.report;
        report.kept += 1;
        report.kept_bytes += meta.length;
        report.ages.count(meta.last_upload, self.now);
        report
            .sizes
            .count(meta.length, self.retention.max_backup_bytes);
        report.expiring_in_14_days += u64::from(!has_expired && is_older_in(14));
        report.expiring_in_30_days += u64::from(!has_expired && is_older_in(30));
        has_expired
    }

    fn reason_to_refuse(&self, expired: u64) -> Option<Refusal> {
        let clock = guard::look_at_clock(
            &self.remembered,
            unix(self.now),
            self.retention.announced_days,
        );
        clock.or_else(|| guard::look_at_count(expired, self.report.kept))
    }

    async fn remove_expired(&mut self, expired: Due<Listed>) -> Result<(), Error> {
        let mut backups = expired.or_all(|| self.store.list());
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
                    self.report.removed_bytes += meta.length;
                }
                Ok(false) => {}
                Err(error) => self.report.fail("remove an expired backup", &error),
            }
        }
        Ok(())
    }

    /// Counts all trash as kept; which of it is old. Notices a burst.
    async fn look_at_trash(&mut self) -> Result<Due<Trashed>, Error> {
        let mut old = Due::none();
        let mut removals = Removals::default();
        let mut trash = self.store.list_trash();
        while let Some(listed) = trash.next().await {
            let trashed = listed?;
            self.report.trash_kept += 1;
            self.report.trash_bytes += trashed.length;
            if self.is_old_trash(trashed.removed_at) {
                old.push(trashed);
            }
            removals.count(&trashed, &self.promises, self.remembered.confirmed);
        }
        // What was noticed once holds, also when there are more backups again, until all that was removed is back.
        let remembered = self.remembered.burst;
        let known = remembered.filter(|burst| removals.go_on_since(burst.since));
        self.report.trash_held = known.or_else(|| removals.burst(self.report.kept, unix(self.now)));
        Ok(old)
    }

    async fn erase_old_trash(&mut self, old: Due<Trashed>) -> Result<(), Error> {
        let mut trash = old.or_all(|| self.store.list_trash());
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
                Err(error) => self.report.fail("erase a backup in the trash", &error),
            }
        }
        Ok(())
    }

    /// What this sweep leaves for the next one. A clock that was doubted leaves nothing.
    async fn remember(&self, store: &dyn StateStore) -> Result<(), state::Error> {
        let went_through = self.report.refused.is_none();
        let clock_is_right =
            went_through || matches!(self.report.refused, Some(Refusal::TooMany { .. }));
        if !clock_is_right {
            return Ok(());
        }
        let now = unix(self.now);
        let promises = self.promises.clone();
        let held = self.report.trash_held;
        let confirmed_before = self.remembered.confirmed;
        let change = move |state: &mut State| {
            if went_through {
                state.last_sweep = Some(now);
            }
            state.highest_time = Some(now);
            state.promises.clone_from(&promises);
            // Unless an operator has confirmed the removals while the sweep was under way.
            if state.confirmed == confirmed_before {
                state.burst = held;
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
    fn fail(&mut self, operation: &'static str, error: &store::Error) {
        self.failed += 1;
        tracing::error!(
            operation,
            error = error as &dyn std::error::Error,
            "sweep: one file failed"
        );
    }
}
