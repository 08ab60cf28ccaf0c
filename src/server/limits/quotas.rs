//! Storage quotas. Beyond a quota, new backups and much larger ones are refused; an existing backup
//! can always be renewed by one of about the same size.
//!
//! `maxBackups` and `maxTotalBytes` limit the whole storage, `minFreeBytes` the space that an upload
//! leaves free on the disk, and `newBackupsPerAccountAndDay` each account. An upload is charged the
//! bytes by which it makes the storage larger: all of a new backup, and of an existing one what the
//! new version has more than the old. One that is not larger is never refused; one that is a little
//! larger is refused by no quota either (`tolerated_growth.rs`), as long as the disk has room for
//! renewals.
//!
//! The free space is measured when it matters, and new backups of an account are counted by a token
//! bucket in memory. Uploads in flight are charged before they are stored, because neither the disk
//! nor the count shows them yet.
//!
//! The storage in use is counted without listing it at every upload: the last sweep counted the
//! backups, and every upload and removal since corrects the count. The count is exact while only
//! this server changes the storage. Until the next sweep, so for at most an hour, it is off by what
//! other commands did (`prune`, `trash`), by uploads and removals during the listing of the sweep,
//! and by uploads whose client disconnected at the very end. Until the first sweep of a run has
//! ended there is no count, and `maxBackups` and `maxTotalBytes` refuse no upload.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::account::AccountName;
use crate::backup::BackupId;
use crate::config;
use crate::lock::lock;
use crate::server::limits::log_throttle::LogThrottle;
use crate::server::limits::token_buckets::{MAX_BUCKETS, TokenBuckets};
use crate::server::limits::tolerated_growth::ToleratedGrowth;
use crate::server::metrics::Metrics;
use crate::server::metrics::limit::Limit;
use crate::store::{Put, Store};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Free bytes that tolerated growth leaves in any case: a renewal needs room for both versions for a
/// moment, and a few run at the same time. With a small `minFreeBytes` it is an eighth of that; where
/// `maxBackupBytes` is large, it is two of the largest backups, or half of `minFreeBytes`.
const KEPT_FOR_RENEWALS: u64 = 4 << 20;

/// The quotas, and the storage in use as far as it has been counted.
pub(crate) struct Quotas {
    limits: config::Quotas,
    /// Shared with the quotas before a reload, at which uploads may be in flight.
    counts: Arc<Mutex<Counts>>,
    /// Hashes the keys of tables.
    keys: RandomState,
    /// New backups by account; `None` without `newBackupsPerAccountAndDay`.
    new_backups: Option<Mutex<TokenBuckets>>,
    log_throttle: LogThrottle,
    metrics: Arc<Metrics>,
}

/// What is counted.
#[derive(Debug, Default)]
struct Counts {
    /// `None` until the first sweep has ended.
    usage: Option<Usage>,
    /// What uploads in flight add to it.
    reserved: Usage,
    /// Backups with uploads in flight, by the hash of the id.
    in_flight: HashMap<u64, InFlight>,
    growth: ToleratedGrowth,
}

/// The storage in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    /// Backups, without the trash.
    backups: u64,
    /// Bytes of the backups and of the trash: both take disk space.
    bytes: u64,
}

/// The uploads of one backup that are in flight.
#[derive(Debug, Default)]
struct InFlight {
    uploads: usize,
    /// The length of the last one that was stored meanwhile, in bytes.
    stored: Option<u64>,
}

/// The backup that an upload replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// There is no such backup: the upload creates one.
    None,
    /// A backup of this length, in bytes.
    Backup(u64),
    /// The storage could not be read: the upload may be a renewal, and no quota refuses it.
    Unknown,
}

/// An upload, as the quotas see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewVersion<'a> {
    pub(crate) account: Option<&'a AccountName>,
    pub(crate) id: BackupId,
    /// In bytes.
    pub(crate) length: u64,
    pub(crate) existing: Existing,
}

/// An upload within the quotas. What it reserves is released when it is dropped before it has been
/// [stored](Self::stored).
#[must_use]
pub(crate) struct Admission<'a> {
    quotas: &'a Quotas,
    /// The hash of the backup's id.
    backup: u64,
    existing: Existing,
    length: u64,
    reserved: Usage,
    /// The hash of the account that was charged for a new backup.
    charged: Option<u64>,
}

/// A quota refuses an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverQuota;

impl Usage {
    fn plus(self, other: Self) -> Self {
        Self {
            backups: self.backups.saturating_add(other.backups),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            backups: self.backups.saturating_sub(other.backups),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

impl Existing {
    /// What a new version of `length` bytes adds to the storage.
    fn growth(self, length: u64) -> Usage {
        let (backups, bytes) = match self {
            Self::None => (1, length),
            Self::Backup(before) => (0, length.saturating_sub(before)),
            Self::Unknown => (0, 0),
        };
        Usage { backups, bytes }
    }
}

impl Quotas {
    pub(crate) fn new(limits: config::Quotas, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            counts: Arc::default(),
            keys: RandomState::new(),
            new_backups: limits
                .new_backups_per_account
                .map(|tokens| Mutex::new(TokenBuckets::new(tokens, DAY, MAX_BUCKETS))),
            log_throttle: LogThrottle::default(),
            metrics,
        }
    }

    /// The key of the quota that would refuse a new backup now, apart from
    /// `newBackupsPerAccountAndDay`. `free_bytes` is the free space of the storage, if it is known.
    pub(crate) fn used_up(&self, free_bytes: Option<u64>) -> Option<&'static str> {
        let usage = lock(&self.counts).usage;
        let is_reached = |max: Option<u64>, of: fn(Usage) -> u64| {
            usage.zip(max).is_some_and(|(usage, max)| of(usage) >= max)
        };
        if is_reached(self.limits.max_backups, |usage| usage.backups) {
            return Some("maxBackups");
        }
        if is_reached(self.limits.max_total_bytes, |usage| usage.bytes) {
            return Some("maxTotalBytes");
        }
        let min_free = self.limits.min_free_bytes;
        let is_low = free_bytes
            .zip(min_free)
            .is_some_and(|(free, min_free)| free < min_free);
        is_low.then_some("minFreeBytes")
    }

    /// The quotas after a reload: the same ones if their limits are unchanged, otherwise new ones
    /// with the same counts.
    pub(crate) fn reconfigured(self: &Arc<Self>, limits: config::Quotas) -> Arc<Self> {
        if limits == self.limits {
            return Arc::clone(self);
        }
        Arc::new(Self {
            counts: Arc::clone(&self.counts),
            keys: self.keys.clone(),
            ..Self::new(limits, Arc::clone(&self.metrics))
        })
    }

    /// Sets the usage that a sweep has counted.
    pub(crate) fn set_usage(&self, backups: u64, bytes: u64) {
        lock(&self.counts).usage = Some(Usage { backups, bytes });
    }

    /// The bounds that the quotas set to replaced versions in the trash: the bytes that they may
    /// take, half of what is left for new backups, and the bytes that stay free on the disk.
    pub(crate) fn room_in_trash(&self) -> (u64, u64) {
        let max = self.limits.max_total_bytes;
        let usage = lock(&self.counts).usage;
        let left = usage
            .zip(max)
            .map_or(u64::MAX, |(usage, max)| max.saturating_sub(usage.bytes) / 2);
        (left, self.limits.min_free_bytes.unwrap_or_default())
    }

    /// Corrects the usage after a replaced version of so many bytes stayed in the trash.
    pub(crate) fn kept_in_trash(&self, bytes: u64) {
        if let Some(usage) = &mut lock(&self.counts).usage {
            usage.bytes = usage.bytes.saturating_add(bytes);
        }
    }

    /// Corrects the usage after a backup was moved to the trash, where its bytes still count.
    pub(crate) fn backup_removed(&self) {
        if let Some(usage) = &mut lock(&self.counts).usage {
            usage.backups = usage.backups.saturating_sub(1);
        }
    }

    /// Checks whether an upload is within the quotas, and reserves what it adds to the storage.
    ///
    /// # Errors
    /// When a quota refuses a new backup, or a larger one.
    pub(crate) async fn admit(
        &self,
        store: &dyn Store,
        upload: NewVersion<'_>,
    ) -> Result<Admission<'_>, OverQuota> {
        let (mut admission, in_flight) = self.reserve(&upload)?;
        if admission.reserved.bytes > 0 {
            self.check_free_space(store, &admission, in_flight).await?;
        }
        if upload.existing == Existing::None {
            admission.charged = self.charge_new_backup(upload.account)?;
        }
        Ok(admission)
    }

    /// Counts what an upload adds, unless that is beyond `maxBackups` or `maxTotalBytes`. Returns
    /// the bytes that all uploads in flight add, this one included.
    fn reserve(&self, upload: &NewVersion<'_>) -> Result<(Admission<'_>, u64), OverQuota> {
        let backup = self.keys.hash_one(upload.id);
        let growth = upload.existing.growth(upload.length);
        let mut counts = lock(&self.counts);
        let reserved = counts.reserved.plus(growth);
        if let Some(usage) = counts.usage.map(|usage| usage.plus(reserved)) {
            let exceeds = |max: Option<u64>, usage: u64| max.is_some_and(|max| usage > max);
            if growth.backups > 0 && exceeds(self.limits.max_backups, usage.backups) {
                return Err(self.refuse(Limit::MaxBackups));
            }
            if growth.bytes > 0
                && exceeds(self.limits.max_total_bytes, usage.bytes)
                && !counts.tolerate(backup, upload.existing, upload.length)
            {
                return Err(self.refuse(Limit::MaxTotalBytes));
            }
        }
        counts.reserved = reserved;
        counts.in_flight.entry(backup).or_default().uploads += 1;
        let admission = Admission {
            quotas: self,
            backup,
            existing: upload.existing,
            length: upload.length,
            reserved: growth,
            charged: None,
        };
        Ok((admission, reserved.bytes))
    }

    /// Checks `minFreeBytes`. The space is measured after `in_flight`, the bytes of uploads in
    /// flight: what is stored in between counts twice, but nothing is overlooked.
    async fn check_free_space(
        &self,
        store: &dyn Store,
        admission: &Admission<'_>,
        in_flight: u64,
    ) -> Result<(), OverQuota> {
        let Some(min_free) = self.limits.min_free_bytes else {
            return Ok(());
        };
        // If the free space cannot be measured, no upload is refused here; on a full disk the
        // store refuses it.
        let Some(free) = store.free_bytes().await.ok().flatten() else {
            return Ok(());
        };
        if self.leaves_room(min_free, free, in_flight, admission) {
            Ok(())
        } else {
            Err(self.refuse(Limit::MinFreeBytes))
        }
    }

    /// Whether an upload leaves enough of `free` bytes.
    fn leaves_room(
        &self,
        min_free: u64,
        free: u64,
        in_flight: u64,
        admission: &Admission<'_>,
    ) -> bool {
        let left = free.saturating_sub(in_flight);
        let two_renewals = self.limits.max_backup_bytes.saturating_mul(2);
        let kept = (min_free / 8).min(KEPT_FOR_RENEWALS);
        let kept = kept.max(two_renewals.min(min_free / 2));
        let Admission {
            backup,
            existing,
            length,
            ..
        } = *admission;
        left >= min_free || left >= kept && lock(&self.counts).tolerate(backup, existing, length)
    }

    /// Takes a token for a new backup; returns the hash of the account that it was taken from.
    fn charge_new_backup(&self, account: Option<&AccountName>) -> Result<Option<u64>, OverQuota> {
        let Some(buckets) = &self.new_backups else {
            return Ok(None);
        };
        let account = self.keys.hash_one(account);
        let taken = lock(buckets).take(account, Instant::now(), Duration::ZERO);
        taken
            .map(|_| Some(account))
            .map_err(|_| self.refuse(Limit::NewBackupsPerAccountAndDay))
    }

    fn refuse(&self, limit: Limit) -> OverQuota {
        self.metrics.refusals().count(limit);
        if self.log_throttle.should_log(limit, Instant::now()) {
            let word = limit.label();
            if limit == Limit::MinFreeBytes {
                tracing::warn!(
                    limit = word,
                    "low disk space: new or larger backups refused"
                );
            } else {
                tracing::warn!(limit = word, "quota reached: new or larger backups refused");
            }
        }
        OverQuota
    }
}

impl Counts {
    /// Whether an upload beyond a quota makes an existing backup only a little larger.
    fn tolerate(&mut self, backup: u64, existing: Existing, length: u64) -> bool {
        match existing {
            Existing::None => false,
            Existing::Unknown => true,
            Existing::Backup(before) => {
                self.growth
                    .tolerates(backup, before, length, Instant::now())
            }
        }
    }
}

impl Admission<'_> {
    /// Corrects the usage after the store has saved the upload.
    pub(crate) fn stored(mut self, put: Put) {
        let mut counts = lock(&self.quotas.counts);
        // An upload of the same backup that was stored meanwhile is what was replaced.
        let uploads = counts.in_flight.entry(self.backup).or_default();
        let before = match (uploads.stored.replace(self.length), self.existing) {
            (Some(length), _) | (None, Existing::Backup(length)) => Some(length),
            (None, Existing::None | Existing::Unknown) => None,
        };
        let (backups, removed) = match put {
            // There was none, or the old one was removed meanwhile, and is in the trash.
            Put::Created => (1, Some(0)),
            Put::Replaced | Put::Suspicious(_) => (0, before),
        };
        // The next sweep corrects the usage where it is not known what was replaced.
        if let (Some(removed), Some(usage)) = (removed, &mut counts.usage) {
            let added = Usage {
                backups,
                bytes: self.length,
            };
            *usage = usage.plus(added).minus(Usage {
                backups: 0,
                bytes: removed,
            });
        }
        drop(counts);
        if put == Put::Created {
            self.charged = None;
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        let mut counts = lock(&self.quotas.counts);
        counts.reserved = counts.reserved.minus(self.reserved);
        if let Some(uploads) = counts.in_flight.get_mut(&self.backup) {
            uploads.uploads = uploads.uploads.saturating_sub(1);
            if uploads.uploads == 0 {
                counts.in_flight.remove(&self.backup);
            }
        }
        drop(counts);
        if let (Some(account), Some(buckets)) = (self.charged, &self.quotas.new_backups) {
            lock(buckets).refund(account, Instant::now());
        }
    }
}

#[cfg(test)]
#[path = "quotas_tests.rs"]
mod tests;
