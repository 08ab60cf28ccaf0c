//! Retention: expiry of backups and of trash, and the sweep that applies it.
//!
//! A phone that renews unchanged data does so only after the full announced retention (iOS app, all
//! versions up to 7.2.2). Hence the margin: a backup is kept for `retention + margin` after its
//! last upload, and one that is exactly that old is still kept. Expired backups are moved to the
//! trash, so that the damage of a wrong clock can be undone.
//!
//! A sweep scans everything before it changes anything, and removes nothing at all if its findings
//! are more likely due to a wrong clock (`crate::clock`), a lost state or a wrong setting than to
//! the passing of time (`safety.rs`), or if a backup was uploaded in this run
//! (`recent_uploads.rs`). After a deletion burst it still moves expired backups to the trash, but
//! erases none from it (`deletion_burst.rs`).

mod age_histogram;
mod bounded_list;
mod deletion_burst;
mod outcome;
mod recent_uploads;
mod retention_history;
mod safety;
mod settings;
mod size_histogram;

use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;

use self::bounded_list::BoundedList;
use self::deletion_burst::Removals;
use self::outcome::{Outcome, current_period, first_sweep};
use crate::backup::BackupId;
use crate::clock::{self, Clock, Reading, Verdict};
use crate::lock::lock;
use crate::state::{
    self, DeletionBurst, FirstSweep, IfInvalid, RetentionPeriod, State, StateStore,
};
use crate::store::{self, Meta, Store, TrashKind, Trashed};
use crate::time::{DAY, unix};

pub use age_histogram::{AgeBucket, AgeHistogram};
pub use recent_uploads::RecentUploads;
pub use safety::Refusal;
pub use settings::{Mode, Retention};
pub use size_histogram::{SizeBucket, SizeHistogram};

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
    /// Of these bytes, those of versions that were replaced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replaced_bytes: u64,
    /// The number of backups erased from the trash.
    pub trash_erased: u64,
    /// The deletion burst because of which nothing is erased from the trash, if there is one.
    pub trash_held: Option<DeletionBurst>,
    /// The number of backups that could not be removed or erased; the next sweep tries again.
    pub failed: u64,
    /// The safety check that stopped the sweep; in a dry run, the one that would stop it.
    pub refused: Option<Refusal>,
    /// True if the state was not valid: earlier times and retention periods are not known. It stays
    /// so until the first sweep no longer waits.
    #[serde(default)]
    pub invalid_state: bool,
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

/// Runs one sweep over all backups and all trash, for a command. `now` is what the system clock
/// shows.
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
    let reading = Reading::of_command(now);
    let sweep = Sweep::begin(store, state, retention, reading, None, mode).await?;
    Ok(sweep.run(state).await?.0)
}

/// Runs one sweep of a running server, which knows how long it has run, and what was uploaded
/// meanwhile.
///
/// # Errors
/// As [`sweep`].
pub async fn sweep_in_run(
    store: &dyn Store,
    state: &dyn StateStore,
    retention: Retention,
    clock: &Clock,
    uploads: &RecentUploads,
) -> Result<Report, Error> {
    uploads.forget(retention.keep, clock.elapsed());
    let reading = clock.reading();
    let uploads = Some(uploads);
    let sweep = Sweep::begin(store, state, retention, reading, uploads, Mode::Serve).await?;
    let (report, recorded) = sweep.run(state).await?;
    if let Some((verdict, state)) = recorded {
        clock.recorded(&reading, verdict, &state);
    }
    Ok(report)
}

/// Accepts the clock, which shows `now`, for an operator. Returns false if it was not in doubt.
///
/// # Errors
/// When the state cannot be read or written, or is not valid.
pub async fn accept_clock(state: &dyn StateStore, now: SystemTime) -> Result<bool, state::Error> {
    let change = move |state: &mut State| clock::accept_by_operator(state, now);
    state.update(change).await
}

/// A backup, as listed by a store.
type Listed = (BackupId, Meta);

/// A verdict on the clock, and the state in which it was recorded.
type Recorded = (Verdict, State);

/// A running sweep.
struct Sweep<'a> {
    store: &'a dyn Store,
    reading: Reading,
    verdict: Verdict,
    /// The state as it will be, as far as the clock is concerned.
    previous: State,
    first: Option<FirstSweep>,
    periods: Vec<RetentionPeriod>,
    retention: Retention,
    uploads: Option<&'a RecentUploads>,
    /// What the system clock shows; while it is in doubt, the known time.
    now: SystemTime,
    mode: Mode,
    report: Report,
}

impl<'a> Sweep<'a> {
    async fn begin(
        store: &'a dyn Store,
        state: &dyn StateStore,
        retention: Retention,
        reading: Reading,
        uploads: Option<&'a RecentUploads>,
        mode: Mode,
    ) -> Result<Self, Error> {
        let (mut previous, is_invalid) = match state.load().await {
            Err(error @ state::Error::Syntax { .. }) => {
                if mode != Mode::DryRun {
                    tracing::error!(error = &error as &dyn StdError, "invalid state kept aside");
                }
                (State::default(), true)
            }
            other => (other?, false),
        };
        let first = first_sweep(&previous, &reading, is_invalid);
        let verdict = reading.record(&mut previous);
        let now = if verdict.is_accepted() {
            reading.system()
        } else {
            UNIX_EPOCH + Duration::from_secs(reading.known(&previous))
        };
        let current = current_period(retention, now, mode);
        Ok(Self {
            store,
            reading,
            verdict,
            first,
            periods: retention_history::with_current(&previous.retention_periods, current),
            previous,
            retention,
            uploads,
            now,
            mode,
            report: Report {
                ages: AgeHistogram::up_to(retention.announced_days),
                sizes: SizeHistogram::new(),
                invalid_state: first.is_some_and(|first| first.invalid_state),
                ..Report::default()
            },
        })
    }

    async fn run(mut self, state: &dyn StateStore) -> Result<(Report, Option<Recorded>), Error> {
        let expired = self.scan_backups().await?;
        let (old_trash, removals) = self.scan_trash().await?;
        self.report.refused = self.refusal(expired.count(), old_trash.count());
        let acts = self.report.refused.is_none() || self.mode == Mode::DryRun;
        if acts {
            self.remove_expired(expired).await?;
        }
        self.detect_burst(&removals);
        if acts && self.report.trash_held.is_none() {
            self.erase_old_trash(old_trash).await?;
        }
        let recorded = match self.mode {
            Mode::DryRun => None,
            Mode::Serve => match self.save_state(state).await {
                // What was counted is true all the same. The next sweep tries again.
                Err(error @ state::Error::Write { .. }) => {
                    tracing::error!(
                        error = &error as &dyn StdError,
                        "sweep: state could not be saved"
                    );
                    None
                }
                saved => saved?,
            },
            Mode::Remove | Mode::Force => self.save_state(state).await?,
        };
        Ok((self.report, recorded))
    }

    /// By how much the time of an upload is too early.
    fn correction(&self, last_upload: SystemTime) -> Duration {
        let time = unix(last_upload);
        let corrected = clock::corrected(&self.previous.clock.corrections, time);
        Duration::from_secs(corrected.saturating_sub(time))
    }

    /// The oldest upload time that is still kept, for a backup last uploaded at `last_upload`.
    fn oldest_kept(&self, last_upload: SystemTime) -> SystemTime {
        let correction = self.correction(last_upload);
        let uploaded = last_upload.checked_add(correction).unwrap_or(self.now);
        let keep = retention_history::keep(&self.periods, unix(uploaded));
        let keep = keep.saturating_add(correction);
        self.now.checked_sub(keep).unwrap_or(UNIX_EPOCH)
    }

    fn has_expired(&self, id: BackupId, last_upload: SystemTime) -> bool {
        let is_recent = self.uploads.is_some_and(|uploads| uploads.contains(id));
        !is_recent && last_upload < self.oldest_kept(last_upload)
    }

    fn is_old_trash(&self, removed_at: u64) -> bool {
        let removed_at = clock::corrected(&self.previous.clock.corrections, removed_at);
        removed_at < unix(self.now).saturating_sub(self.retention.keep_trash.as_secs())
    }

    /// Counts all backups as kept, and returns the expired ones.
    async fn scan_backups(&mut self) -> Result<BoundedList<Listed>, Error> {
        let mut expired = BoundedList::new();
        let mut backups = self.store.list();
        while let Some(listed) = backups.next().await {
            let (id, meta) = listed?;
            let has_expired = self.has_expired(id, meta.last_upload);
            self.count(&meta, has_expired);
            if has_expired {
                expired.push((id, meta));
            }
        }
        Ok(expired)
    }

    /// Counts one backup as kept.
    fn count(&mut self, meta: &Meta, has_expired: bool) {
        let oldest_kept = self.oldest_kept(meta.last_upload);
        let is_older_in = |days: u64| {
            let end = oldest_kept.checked_add(Duration::from_secs(days * DAY));
            end.is_none_or(|end| meta.last_upload < end)
        };
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
    }

    fn refusal(&self, expired: u64, old_trash: u64) -> Option<Refusal> {
        let of = self.report.kept;
        let keep_trash = self.retention.keep_trash.as_secs();
        let lately = safety::expired_lately(&self.previous, unix(self.now), keep_trash);
        safety::check_clock(self.verdict)
            .or_else(|| safety::check_first_sweep(self.first, expired, of, old_trash))
            .or_else(|| safety::check_expired_count(expired, of, lately))
            .filter(|refusal| self.mode != Mode::Force || !refusal.is_confirmed_by_force())
    }

    async fn remove_expired(&mut self, expired: BoundedList<Listed>) -> Result<(), Error> {
        let mut backups = expired.buffered_or_relisted(|| self.store.list());
        while let Some(listed) = backups.next().await {
            let (id, meta) = listed?;
            if !self.has_expired(id, meta.last_upload) {
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
                    let report = &mut self.report;
                    report.kept = report.kept.saturating_sub(1);
                    report.kept_bytes = report.kept_bytes.saturating_sub(meta.length);
                    report.removed += 1;
                    report.removed_bytes = report.removed_bytes.saturating_add(meta.length);
                    if self.mode != Mode::DryRun {
                        report.trash_kept += 1;
                        report.trash_bytes = report.trash_bytes.saturating_add(meta.length);
                    }
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

    /// Counts all trash as kept; returns the trash due to be erased, and the removals by phones.
    async fn scan_trash(&mut self) -> Result<(BoundedList<Trashed>, Removals), Error> {
        let mut old = BoundedList::new();
        let mut removals = Removals::default();
        let mut trash = self.store.list_trash();
        while let Some(listed) = trash.next().await {
            let trashed = listed?;
            self.report.trash_kept += 1;
            let report = &mut self.report;
            report.trash_bytes = report.trash_bytes.saturating_add(trashed.length);
            if trashed.kind != TrashKind::Removed {
                report.replaced_bytes = report.replaced_bytes.saturating_add(trashed.length);
            }
            if self.is_old_trash(trashed.removed_at) {
                old.push(trashed);
            }
            let corrections = &self.previous.clock.corrections;
            let acknowledged_until = self.previous.acknowledged_until;
            removals.count(&trashed, &self.periods, corrections, acknowledged_until);
        }
        Ok((old, removals))
    }

    /// A detected burst lasts, even if there are more backups again, until all removed backups are
    /// restored or the operator confirms.
    fn detect_burst(&mut self, removals: &Removals) {
        let previous = self.previous.deletion_burst;
        let known = previous.filter(|burst| removals.any_since(burst.since));
        self.report.trash_held = known.or_else(|| removals.burst(self.report.kept, unix(self.now)));
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
                    if trashed.kind != TrashKind::Removed {
                        kept.replaced_bytes = kept.replaced_bytes.saturating_sub(trashed.length);
                    }
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

    /// Saves the state for the next sweep. While the clock is in doubt, that is what is known of
    /// the clock alone.
    async fn save_state(&self, store: &dyn StateStore) -> Result<Option<Recorded>, state::Error> {
        let saved = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&saved);
        let (reading, verdict) = (self.reading, self.verdict);
        let outcome = self.outcome();
        let change = move |state: &mut State| {
            let recorded = reading.record(state);
            // Unless an operator accepted the clock during the sweep: the next one begins anew.
            if verdict.is_accepted() && recorded.is_accepted() {
                outcome.save(state);
            } else {
                outcome.save_first_sweep(state);
            }
            *lock(&slot) = Some((recorded, state.clone()));
        };
        store.apply(Box::new(change), IfInvalid::StartEmpty).await?;
        Ok(lock(&saved).take())
    }

    fn outcome(&self) -> Outcome {
        Outcome {
            now: unix(self.now),
            is_done: self.report.refused.is_none(),
            retention: self.retention,
            mode: self.mode,
            burst: self.report.trash_held,
            acknowledged_before: self.previous.acknowledged_until,
            first: self.first,
            removed: self.report.removed,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
            error = error as &dyn StdError,
            "sweep: file failed"
        );
    }
}
