//! Storage quotas. Beyond a quota, new backups are refused; an existing backup can always be
//! renewed, also by a larger one.
//!
//! `maxBackups` and `maxTotalBytes` limit the whole storage, `minFreeBytes` the space that a new
//! backup leaves free on the disk, and `newBackupsPerAccountAndDay` each account. Free space is
//! measured at every upload of a new backup, and new backups of an account are counted by a token
//! bucket in memory.
//!
//! The storage in use is counted without listing it at every upload: the last sweep counted the
//! backups, and every upload and removal since corrects the count. The count is exact while only
//! this server changes the storage. Until the next sweep, so for at most an hour, it is off by what
//! other commands did (`prune`, `trash`), by uploads and removals during the listing of the sweep,
//! and by uploads whose client disconnected at the very end. Until the first sweep of a run has
//! ended there is no count, and `maxBackups` and `maxTotalBytes` refuse no upload.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::account::AccountName;
use crate::config;
use crate::lock::lock;
use crate::server::limits::log_throttle::LogThrottle;
use crate::server::limits::token_buckets::{MAX_BUCKETS, TokenBuckets};
use crate::server::metrics::Metrics;
use crate::server::metrics::limit::Limit;
use crate::store::{Put, Store};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The quotas, and the storage in use as far as it has been counted.
pub(crate) struct Quotas {
    limits: config::Quotas,
    /// `None` until the first sweep has ended.
    usage: Mutex<Option<Usage>>,
    /// Hashes the keys of the buckets.
    keys: RandomState,
    /// New backups by account; `None` without `newBackupsPerAccountAndDay`.
    new_backups: Option<Mutex<TokenBuckets>>,
    log_throttle: LogThrottle,
    metrics: Arc<Metrics>,
}

/// The storage in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    /// Backups, without the trash.
    backups: u64,
    /// Bytes of the backups and of the trash: both take disk space.
    bytes: u64,
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

/// An upload within the quotas. What it reserves is released when it is dropped before it has been
/// [stored](Self::stored).
#[must_use]
pub(crate) struct Admission<'a> {
    quotas: &'a Quotas,
    existing: Existing,
    length: u64,
    account: u64,
    /// Whether a reservation has to be released on drop.
    is_reserved: bool,
}

/// A quota refuses a new backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverQuota;

impl Quotas {
    pub(crate) fn new(limits: config::Quotas, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            usage: Mutex::default(),
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
        let usage = *self.usage();
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
    /// with the same usage.
    pub(crate) fn reconfigured(self: &Arc<Self>, limits: config::Quotas) -> Arc<Self> {
        if limits == self.limits {
            return Arc::clone(self);
        }
        let new = Self::new(limits, Arc::clone(&self.metrics));
        *new.usage() = *self.usage();
        Arc::new(new)
    }

    /// Sets the usage that a sweep has counted.
    pub(crate) fn set_usage(&self, backups: u64, bytes: u64) {
        *self.usage() = Some(Usage { backups, bytes });
    }

    /// Corrects the usage after a backup was moved to the trash, where its bytes still count.
    pub(crate) fn backup_removed(&self) {
        if let Some(usage) = &mut *self.usage() {
            usage.backups = usage.backups.saturating_sub(1);
        }
    }

    /// Checks whether an upload of `length` bytes is within the quotas, and reserves what it uses.
    ///
    /// # Errors
    /// When a quota refuses a new backup.
    pub(crate) async fn admit(
        &self,
        store: &dyn Store,
        account: Option<&AccountName>,
        length: u64,
        existing: Existing,
    ) -> Result<Admission<'_>, OverQuota> {
        let mut admission = Admission {
            quotas: self,
            existing,
            length,
            account: self.keys.hash_one(account),
            is_reserved: false,
        };
        if existing == Existing::None {
            self.check_free_space(store, length).await?;
            self.charge_new_backup(admission.account)?;
            if let Err(over) = self.reserve(length) {
                self.refund_new_backup(admission.account);
                return Err(over);
            }
            admission.is_reserved = true;
        }
        Ok(admission)
    }

    async fn check_free_space(&self, store: &dyn Store, length: u64) -> Result<(), OverQuota> {
        let Some(min_free) = self.limits.min_free_bytes else {
            return Ok(());
        };
        // If the free space cannot be measured, no upload is refused here; on a full disk the
        // store refuses it.
        let free = store.free_bytes().await.ok().flatten();
        match free {
            Some(free) if free.saturating_sub(length) < min_free => {
                Err(self.refuse(Limit::MinFreeBytes))
            }
            _ => Ok(()),
        }
    }

    /// Counts a new backup before it is stored.
    fn reserve(&self, length: u64) -> Result<(), OverQuota> {
        let mut usage = self.usage();
        let Some(usage) = &mut *usage else {
            return Ok(());
        };
        let more = Usage {
            backups: usage.backups.saturating_add(1),
            bytes: usage.bytes.saturating_add(length),
        };
        if self
            .limits
            .max_backups
            .is_some_and(|max| more.backups > max)
        {
            return Err(self.refuse(Limit::MaxBackups));
        }
        if self
            .limits
            .max_total_bytes
            .is_some_and(|max| more.bytes > max)
        {
            return Err(self.refuse(Limit::MaxTotalBytes));
        }
        *usage = more;
        Ok(())
    }

    fn charge_new_backup(&self, account: u64) -> Result<(), OverQuota> {
        let Some(buckets) = &self.new_backups else {
            return Ok(());
        };
        let mut buckets = lock(buckets);
        let taken = buckets.take(account, Instant::now(), Duration::ZERO);
        taken
            .map(|_| ())
            .map_err(|_| self.refuse(Limit::NewBackupsPerAccountAndDay))
    }

    fn refund_new_backup(&self, account: u64) {
        if let Some(buckets) = &self.new_backups {
            let mut buckets = lock(buckets);
            buckets.refund(account, Instant::now());
        }
    }

    fn refuse(&self, limit: Limit) -> OverQuota {
        self.metrics.refusals().count(limit);
        if self.log_throttle.should_log(limit, Instant::now()) {
            let word = limit.label();
            if limit == Limit::MinFreeBytes {
                tracing::warn!(
                    limit = word,
                    "free space below minimum: new backups refused"
                );
            } else {
                tracing::warn!(limit = word, "quota reached: new backups refused");
            }
        }
        OverQuota
    }

    fn usage(&self) -> MutexGuard<'_, Option<Usage>> {
        lock(&self.usage)
    }
}

impl Admission<'_> {
    /// Corrects the usage after the store has saved the upload.
    pub(crate) fn stored(mut self, put: Put) {
        match (self.existing, put) {
            // The reservation becomes usage.
            (Existing::None, Put::Created) => self.is_reserved = false,
            // Another upload created the backup meanwhile, and was counted.
            (Existing::None, Put::Replaced) => {}
            (Existing::Backup(before), Put::Replaced) => self.correct(0, self.length, before),
            // The old backup expired or was removed meanwhile, and is in the trash.
            (Existing::Backup(_) | Existing::Unknown, Put::Created) => {
                self.correct(1, self.length, 0);
            }
            // The next sweep corrects the usage.
            (Existing::Unknown, Put::Replaced) => {}
        }
    }

    fn correct(&self, backups: u64, added: u64, removed: u64) {
        if let Some(usage) = &mut *self.quotas.usage() {
            usage.backups = usage.backups.saturating_add(backups);
            usage.bytes = usage.bytes.saturating_add(added).saturating_sub(removed);
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if !self.is_reserved {
            return;
        }
        if let Some(usage) = &mut *self.quotas.usage() {
            usage.backups = usage.backups.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(self.length);
        }
        self.quotas.refund_new_backup(self.account);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::store::FileStore;

    fn quotas(limits: config::Quotas) -> Quotas {
        Quotas::new(limits, Arc::new(Metrics::new(0)))
    }

    fn usage(quotas: &Quotas) -> (u64, u64) {
        let usage = quotas.usage().unwrap();
        (usage.backups, usage.bytes)
    }

    /// A store in a directory of its own.
    struct TestStore {
        files: FileStore,
        _folder: tempfile::TempDir,
    }

    impl TestStore {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self {
                files: FileStore::open(folder.path()).unwrap(),
                _folder: folder,
            }
        }

        async fn admit<'a>(
            &self,
            quotas: &'a Quotas,
            length: u64,
            existing: Existing,
        ) -> Result<Admission<'a>, OverQuota> {
            quotas.admit(&self.files, None, length, existing).await
        }
    }

    #[tokio::test]
    async fn every_outcome_of_an_upload_corrects_the_usage() {
        let store = TestStore::new();
        let quotas = quotas(config::Quotas::default());
        quotas.set_usage(10, 1_000);
        for (existing, put, expected) in [
            (Existing::None, Some(Put::Created), (11, 1_100)),
            (Existing::None, Some(Put::Replaced), (11, 1_100)),
            (Existing::None, None, (11, 1_100)),
            (Existing::Backup(30), Some(Put::Replaced), (11, 1_170)),
            (Existing::Backup(300), Some(Put::Replaced), (11, 970)),
            (Existing::Backup(30), Some(Put::Created), (12, 1_070)),
            (Existing::Backup(30), None, (12, 1_070)),
            (Existing::Unknown, Some(Put::Created), (13, 1_170)),
            (Existing::Unknown, Some(Put::Replaced), (13, 1_170)),
        ] {
            let admission = store.admit(&quotas, 100, existing).await.unwrap();
            if let Some(put) = put {
                admission.stored(put);
            } else {
                drop(admission);
            }
            assert_eq!(usage(&quotas), expected, "{existing:?} {put:?}");
        }

        quotas.backup_removed();
        assert_eq!(usage(&quotas), (12, 1_170), "the trash takes space");
    }

    #[tokio::test]
    async fn over_a_quota_new_backups_are_refused_and_existing_ones_are_renewed() {
        let store = TestStore::new();
        let of = |backups, bytes, free, new| {
            quotas(config::Quotas {
                max_backups: backups,
                max_total_bytes: bytes,
                min_free_bytes: free,
                new_backups_per_account: NonZeroU32::new(new),
            })
        };
        for (quotas, limit) in [
            (of(Some(2), None, None, 0), "max_backups"),
            (of(None, Some(200), None, 0), "max_total_bytes"),
            (of(None, None, None, 2), "new_backups_per_account_and_day"),
        ] {
            quotas.set_usage(0, 0);
            let first = store.admit(&quotas, 100, Existing::None).await.unwrap();
            let second = store.admit(&quotas, 100, Existing::None).await.unwrap();

            // Also while the uploads are in flight.
            let third = store.admit(&quotas, 100, Existing::None).await;
            assert_eq!(third.err(), Some(OverQuota), "{limit}");
            first.stored(Put::Created);
            drop(second);
            let third = store.admit(&quotas, 100, Existing::None).await.unwrap();
            third.stored(Put::Created);
            let fourth = store.admit(&quotas, 100, Existing::None).await;
            assert_eq!(fourth.err(), Some(OverQuota), "{limit}");
            for existing in [Existing::Backup(100), Existing::Unknown] {
                let renewal = store.admit(&quotas, 10_000, existing).await.unwrap();
                renewal.stored(Put::Replaced);
            }
            let line = format!("safe_refused_total{{limit=\"{limit}\"}} 2\n");
            assert!(quotas.metrics.text().contains(&line), "{limit}");
        }
    }

    #[tokio::test]
    async fn a_new_backup_leaves_the_minimum_free_on_the_disk() {
        let store = TestStore::new();
        let all = 1 << 60;
        for (min_free, is_new, refused) in [
            (Some(all), true, true),
            (Some(all), false, false),
            (Some(1), true, false),
            (None, true, false),
        ] {
            let quotas = quotas(config::Quotas {
                min_free_bytes: min_free,
                ..config::Quotas::default()
            });
            let existing = if is_new {
                Existing::None
            } else {
                Existing::Backup(1)
            };
            let admitted = store.admit(&quotas, 100, existing).await;
            assert_eq!(admitted.is_err(), refused, "{min_free:?} {existing:?}");
        }
    }

    #[tokio::test]
    async fn before_the_first_count_no_upload_is_refused() {
        let store = TestStore::new();
        let quotas = quotas(config::Quotas {
            max_backups: Some(1),
            max_total_bytes: Some(1),
            ..config::Quotas::default()
        });

        let first = store.admit(&quotas, 100, Existing::None).await.unwrap();
        first.stored(Put::Created);
        quotas.set_usage(1, 100);

        let second = store.admit(&quotas, 100, Existing::None).await;
        assert_eq!(second.err(), Some(OverQuota));
    }

    #[tokio::test(start_paused = true)]
    async fn new_backups_are_counted_for_each_account_and_refilled_within_a_day() {
        let store = TestStore::new();
        let quotas = quotas(config::Quotas {
            new_backups_per_account: NonZeroU32::new(4),
            ..config::Quotas::default()
        });
        let [phones, office] =
            ["phones", "office"].map(|name| name.parse::<AccountName>().unwrap());
        let new = async |account: &AccountName| {
            let admitted = quotas
                .admit(&store.files, Some(account), 1, Existing::None)
                .await;
            admitted
                .map(|admission| admission.stored(Put::Created))
                .is_ok()
        };

        for _ in 0..4 {
            assert!(new(&phones).await);
        }
        assert!(!new(&phones).await);
        assert!(new(&office).await);
        tokio::time::advance(DAY / 4).await;
        assert!(new(&phones).await);
        assert!(!new(&phones).await);
    }
}
