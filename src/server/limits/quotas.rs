//! How much may be kept. Beyond a quota no new backup is taken; a backup that is there is always renewed.
//!
//! Nothing is listed for an upload. What there is was counted by the last sweep and is corrected by every upload and
//! every removal since. Exact to the backup while this server works alone; until the next sweep, so for an hour at the
//! most, it is off by what other commands did (`prune`, `trash`), by what was uploaded or removed while the sweep was
//! listing, and by uploads whose phone went away at the very end. Before the first sweep of a run has ended there is no
//! count, and `maxBackups` and `maxTotalBytes` stop nobody.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::account::AccountName;
use crate::config;
use crate::server::limits::log_throttle::Notices;
use crate::server::limits::token_buckets::{Buckets, MOST};
use crate::server::metrics::Metrics;
use crate::server::metrics::limit::Limit;
use crate::store::{Put, Store};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The quotas, and what is known of how far they are used.
pub(crate) struct Quotas {
    limits: config::Quotas,
    /// `None` until the first sweep has ended.
    used: Mutex<Option<Used>>,
    keys: RandomState,
    new_backups: Option<Mutex<Buckets>>,
    notices: Notices,
    metrics: Arc<Metrics>,
}

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Used {
    /// Backups, without the trash.
    backups: u64,
    /// Bytes of the backups and of the trash: both take the disk.
    bytes: u64,
}

/// What there was under an id before its upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Nothing,
    /// A backup of so many bytes.
    Backup(u64),
    /// The storage did not say: this may be a renewal, and no quota stops it.
    Unclear,
}

/// An upload that no quota stops. Its place is given back when it is dropped before it has [ended](Self::ended).
#[must_use]
pub(crate) struct Admission<'a> {
    quotas: &'a Quotas,
    before: Before,
    length: u64,
    account: u64,
    is_pending: bool,
}

/// No quota leaves room for this new backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverQuota;

impl Quotas {
    pub(crate) fn new(limits: config::Quotas, metrics: Arc<Metrics>) -> Self {
        Self {
            limits,
            used: Mutex::default(),
            keys: RandomState::new(),
            new_backups: limits
                .new_backups_per_account
                .map(|tokens| Mutex::new(Buckets::new(tokens, DAY, MOST))),
            notices: Notices::default(),
            metrics,
        }
    }

    /// Which quota would refuse a new backup now; the number of new ones of an account is not looked at.
    pub(crate) fn used_up(&self, free_bytes: Option<u64>) -> Option<&'static str> {
        let used = *self.used();
        let is_over = |most: Option<u64>, of: fn(Used) -> u64| {
            used.zip(most).is_some_and(|(used, most)| of(used) >= most)
        };
        if is_over(self.limits.max_backups, |used| used.backups) {
            return Some("maxBackups");
        }
        if is_over(self.limits.max_total_bytes, |used| used.bytes) {
            return Some("maxTotalBytes");
        }
        let least = self.limits.min_free_bytes;
        let is_low = free_bytes
            .zip(least)
            .is_some_and(|(free, least)| free < least);
        is_low.then_some("minFreeBytes")
    }

    /// Takes over what others quotas have counted.
    pub(crate) fn know_what(&self, others: &Self) {
        let used = *others.used();
        *self.used() = used;
    }

    /// A sweep has counted everything.
    pub(crate) fn counted(&self, backups: u64, bytes: u64) {
        *self.used() = Some(Used { backups, bytes });
    }

    /// A backup went into the trash.
    pub(crate) fn removed(&self) {
        if let Some(used) = &mut *self.used() {
            used.backups = used.backups.saturating_sub(1);
        }
    }

    /// Asks whether an upload of `length` bytes may be stored, and keeps its place.
    pub(crate) async fn admit(
        &self,
        store: &dyn Store,
        account: Option<&AccountName>,
        length: u64,
        before: Before,
    ) -> Result<Admission<'_>, OverQuota> {
        let mut admission = Admission {
            quotas: self,
            before,
            length,
            account: self.keys.hash_one(account),
            is_pending: false,
        };
        if before == Before::Nothing {
            self.leaves_enough_free(store, length).await?;
            self.take_new_backup(admission.account)?;
            if let Err(over) = self.keep_place(length) {
                self.give_new_backup_back(admission.account);
                return Err(over);
            }
            admission.is_pending = true;
        }
        Ok(admission)
    }

    async fn leaves_enough_free(&self, store: &dyn Store, length: u64) -> Result<(), OverQuota> {
        let Some(least) = self.limits.min_free_bytes else {
            return Ok(());
        };
        // What cannot be measured stops nobody; the disk itself will.
        let free = store.free_bytes().await.ok().flatten();
        match free {
            Some(free) if free.saturating_sub(length) < least => {
                Err(self.refuse(Limit::MinFreeBytes))
            }
            _ => Ok(()),
        }
    }

    fn keep_place(&self, length: u64) -> Result<(), OverQuota> {
        let mut used = self.used();
        let Some(used) = &mut *used else {
            return Ok(());
        };
        let more = Used {
            backups: used.backups.saturating_add(1),
            bytes: used.bytes.saturating_add(length),
        };
        if self
            .limits
            .max_backups
            .is_some_and(|most| more.backups > most)
        {
            return Err(self.refuse(Limit::MaxBackups));
        }
        if self
            .limits
            .max_total_bytes
            .is_some_and(|most| more.bytes > most)
        {
            return Err(self.refuse(Limit::MaxTotalBytes));
        }
        *used = more;
        Ok(())
    }

    fn take_new_backup(&self, account: u64) -> Result<(), OverQuota> {
        let Some(buckets) = &self.new_backups else {
            return Ok(());
        };
        let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = buckets.take(account, Instant::now(), Duration::ZERO);
        taken
            .map(|_| ())
            .map_err(|_| self.refuse(Limit::NewBackupsPerAccountAndDay))
    }

    fn give_new_backup_back(&self, account: u64) {
        if let Some(buckets) = &self.new_backups {
            let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
            buckets.give_back(account, Instant::now());
        }
    }

    fn refuse(&self, limit: Limit) -> OverQuota {
        self.metrics.refusals().count(limit);
        if self.notices.is_due(limit, Instant::now()) {
            let word = limit.word();
            if limit == Limit::MinFreeBytes {
                tracing::warn!(
                    limit = word,
                    "the disk is nearly full: new backups are refused, others are renewed"
                );
            } else {
                tracing::warn!(
                    limit = word,
                    "a quota is used up: new backups are refused, others are renewed"
                );
            }
        }
        OverQuota
    }

    fn used(&self) -> std::sync::MutexGuard<'_, Option<Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission<'_> {
    /// The upload is stored.
    pub(crate) fn ended(mut self, put: Put) {
        match (self.before, put) {
            // Its place is kept.
            (Before::Nothing, Put::Created) => self.is_pending = false,
            // Somebody else created it meanwhile, and has the place.
            (Before::Nothing, Put::Replaced) => {}
            (Before::Backup(before), Put::Replaced) => self.grew(0, self.length, before),
            // It expired or was removed meanwhile, and is in the trash.
            (Before::Backup(_) | Before::Unclear, Put::Created) => self.grew(1, self.length, 0),
            // The next sweep knows.
            (Before::Unclear, Put::Replaced) => {}
        }
    }

    fn grew(&self, backups: u64, more: u64, less: u64) {
        if let Some(used) = &mut *self.quotas.used() {
            used.backups = used.backups.saturating_add(backups);
            used.bytes = used.bytes.saturating_add(more).saturating_sub(less);
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if !self.is_pending {
            return;
        }
        if let Some(used) = &mut *self.quotas.used() {
            used.backups = used.backups.saturating_sub(1);
            used.bytes = used.bytes.saturating_sub(self.length);
        }
        self.quotas.give_new_backup_back(self.account);
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

    fn used(quotas: &Quotas) -> (u64, u64) {
        let used = quotas.used().unwrap();
        (used.backups, used.bytes)
    }

    struct Shelf {
        store: FileStore,
        _folder: tempfile::TempDir,
    }

    impl Shelf {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self {
                store: FileStore::open(folder.path()).unwrap(),
                _folder: folder,
            }
        }

        async fn admit<'a>(
            &self,
            quotas: &'a Quotas,
            length: u64,
            before: Before,
        ) -> Result<Admission<'a>, OverQuota> {
            quotas.admit(&self.store, None, length, before).await
        }
    }

    #[tokio::test]
    async fn every_end_of_an_upload_corrects_the_count() {
        let shelf = Shelf::new();
        let quotas = quotas(config::Quotas::default());
        quotas.counted(10, 1_000);
        for (before, put, expected) in [
            (Before::Nothing, Some(Put::Created), (11, 1_100)),
            (Before::Nothing, Some(Put::Replaced), (11, 1_100)),
            (Before::Nothing, None, (11, 1_100)),
            (Before::Backup(30), Some(Put::Replaced), (11, 1_170)),
            (Before::Backup(300), Some(Put::Replaced), (11, 970)),
            (Before::Backup(30), Some(Put::Created), (12, 1_070)),
            (Before::Backup(30), None, (12, 1_070)),
            (Before::Unclear, Some(Put::Created), (13, 1_170)),
            (Before::Unclear, Some(Put::Replaced), (13, 1_170)),
        ] {
            let admission = shelf.admit(&quotas, 100, before).await.unwrap();
            if let Some(put) = put {
                admission.ended(put);
            } else {
                drop(admission);
            }
            assert_eq!(used(&quotas), expected, "{before:?} {put:?}");
        }

        quotas.removed();
        assert_eq!(
            used(&quotas),
            (12, 1_170),
            "what is in the trash takes space"
        );
    }

    #[tokio::test]
    async fn over_a_quota_new_backups_are_refused_and_others_are_renewed() {
        let shelf = Shelf::new();
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
            quotas.counted(0, 0);
            let first = shelf.admit(&quotas, 100, Before::Nothing).await.unwrap();
            let second = shelf.admit(&quotas, 100, Before::Nothing).await.unwrap();

            // Also while they are under way.
            let third = shelf.admit(&quotas, 100, Before::Nothing).await;
            assert_eq!(third.err(), Some(OverQuota), "{limit}");
            first.ended(Put::Created);
            drop(second);
            let third = shelf.admit(&quotas, 100, Before::Nothing).await.unwrap();
            third.ended(Put::Created);
            let fourth = shelf.admit(&quotas, 100, Before::Nothing).await;
            assert_eq!(fourth.err(), Some(OverQuota), "{limit}");
            for before in [Before::Backup(100), Before::Unclear] {
                let renewal = shelf.admit(&quotas, 10_000, before).await.unwrap();
                renewal.ended(Put::Replaced);
            }
            let line = format!("safe_refused_total{{limit=\"{limit}\"}} 2\n");
            assert!(quotas.metrics.text().contains(&line), "{limit}");
        }
    }

    #[tokio::test]
    async fn a_new_backup_leaves_bytes_free_on_the_disk() {
        let shelf = Shelf::new();
        let all = 1 << 60;
        for (least, is_new, refused) in [
            (Some(all), true, true),
            (Some(all), false, false),
            (Some(1), true, false),
            (None, true, false),
        ] {
            let quotas = quotas(config::Quotas {
                min_free_bytes: least,
                ..config::Quotas::default()
            });
            let before = if is_new {
                Before::Nothing
            } else {
                Before::Backup(1)
            };
            let admitted = shelf.admit(&quotas, 100, before).await;
            assert_eq!(admitted.is_err(), refused, "{least:?} {before:?}");
        }
    }

    #[tokio::test]
    async fn before_anything_was_counted_nobody_is_refused() {
        let shelf = Shelf::new();
        let quotas = quotas(config::Quotas {
            max_backups: Some(1),
            max_total_bytes: Some(1),
            ..config::Quotas::default()
        });

        let first = shelf.admit(&quotas, 100, Before::Nothing).await.unwrap();
        first.ended(Put::Created);
        quotas.counted(1, 100);

        let second = shelf.admit(&quotas, 100, Before::Nothing).await;
        assert_eq!(second.err(), Some(OverQuota));
    }

    #[tokio::test(start_paused = true)]
    async fn new_backups_are_counted_for_each_account_and_come_back_within_a_day() {
        let shelf = Shelf::new();
        let quotas = quotas(config::Quotas {
            new_backups_per_account: NonZeroU32::new(4),
            ..config::Quotas::default()
        });
        let [phones, office] =
            ["phones", "office"].map(|name| name.parse::<AccountName>().unwrap());
        let new = async |account: &AccountName| {
            let admitted = quotas
                .admit(&shelf.store, Some(account), 1, Before::Nothing)
                .await;
            admitted
                .map(|admission| admission.ended(Put::Created))
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
