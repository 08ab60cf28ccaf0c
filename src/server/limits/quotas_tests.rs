//! Tests of the quotas: what each outcome of an upload counts, and what is refused.

use std::num::NonZeroU32;

use super::*;
use crate::store::FileStore;

fn quotas(limits: config::Quotas) -> Quotas {
    Quotas::new(limits, Arc::new(Metrics::new(0)))
}

fn usage(quotas: &Quotas) -> (u64, u64) {
    let usage = lock(&quotas.counts).usage.unwrap();
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
        self.admit_backup(quotas, 7, length, existing).await
    }

    async fn admit_backup<'a>(
        &self,
        quotas: &'a Quotas,
        number: u8,
        length: u64,
        existing: Existing,
    ) -> Result<Admission<'a>, OverQuota> {
        let upload = NewVersion {
            account: None,
            id: BackupId::from_bytes([number; 32]),
            length,
            existing,
        };
        quotas.admit(&self.files, upload).await
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
            max_backup_bytes: 524_288,
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
            let renewal = store.admit(&quotas, 100, existing).await.unwrap();
            renewal.stored(Put::Replaced);
        }
        let line = format!("safe_refused_total{{limit=\"{limit}\"}} 2\n");
        assert!(quotas.metrics.text().contains(&line), "{limit}");
    }
}

#[tokio::test]
async fn a_new_backup_or_a_larger_one_leaves_the_minimum_free_on_the_disk() {
    let store = TestStore::new();
    let all = 1 << 60;
    for (min_free, existing, length, refused) in [
        (Some(all), Existing::None, 100, true),
        (Some(all), Existing::Backup(100), 100, false),
        (Some(all), Existing::Backup(100), 1, false),
        (Some(all), Existing::Backup(100), 4_196, false),
        (Some(all), Existing::Backup(100), 4_197, true),
        (Some(all), Existing::Unknown, 1 << 50, false),
        (Some(1), Existing::None, 100, false),
        (Some(1), Existing::Backup(1), 10_000, false),
        (Some(1), Existing::Backup(1), 1 << 60, true),
        (None, Existing::None, 100, false),
        (None, Existing::Backup(1), 1 << 60, false),
    ] {
        let quotas = quotas(config::Quotas {
            min_free_bytes: min_free,
            ..config::Quotas::default()
        });
        let admitted = store.admit(&quotas, length, existing).await;
        assert_eq!(
            admitted.is_err(),
            refused,
            "{min_free:?} {existing:?} {length}"
        );
    }
}

#[tokio::test]
async fn uploads_in_flight_take_of_the_free_space_and_the_last_of_it_is_for_renewals() {
    const MIB: u64 = 1 << 20;
    let store = TestStore::new();
    let quotas = quotas(config::Quotas::default());
    let new = store.admit(&quotas, MIB, Existing::None).await.unwrap();
    let larger = Existing::Backup(100);
    let little = store.admit(&quotas, 4_196, larger).await.unwrap();
    let much = store.admit(&quotas, 4_197, larger).await.unwrap();
    let reserved = MIB + 4_096 + 4_097;
    assert_eq!(lock(&quotas.counts).reserved.bytes, reserved);

    let min_free = 64 * MIB;
    for (left, new_fits, much_fits, little_fits) in [
        (min_free, true, true, true),
        (min_free - 1, false, false, true),
        (4 * MIB, false, false, true),
        (4 * MIB - 1, false, false, false),
    ] {
        let fits = |of| quotas.leaves_room(min_free, left + reserved, reserved, of);
        assert_eq!(
            (fits(&new), fits(&much), fits(&little)),
            (new_fits, much_fits, little_fits),
            "{left}"
        );
    }
    let fits = |left| quotas.leaves_room(80, left, 0, &little);
    assert!(fits(10) && !fits(9), "an eighth of a small minimum");
    drop((new, little));
    much.stored(Put::Replaced);
    assert_eq!(lock(&quotas.counts).reserved, Usage::default());
    assert!(lock(&quotas.counts).in_flight.is_empty());
}

#[tokio::test]
async fn the_last_of_the_free_space_is_for_renewals_of_the_largest_backups() {
    const MIB: u64 = 1 << 20;
    let store = TestStore::new();
    for (max_backup_bytes, min_free, kept) in [
        (MIB / 2, 64 * MIB, 4 * MIB),
        (MIB / 2, MIB, MIB / 2),
        (8 * MIB, 64 * MIB, 16 * MIB),
        (32 * MIB, 64 * MIB, 32 * MIB),
        (128 * MIB, 256 * MIB, 128 * MIB),
    ] {
        let quotas = quotas(config::Quotas {
            max_backup_bytes,
            ..config::Quotas::default()
        });
        let little = store.admit(&quotas, 4_196, Existing::Backup(100)).await;
        let little = little.unwrap();
        let fits = |left| quotas.leaves_room(min_free, left, 0, &little);
        assert!(
            fits(kept) && !fits(kept - 1),
            "{max_backup_bytes} {min_free}"
        );
    }
}

#[tokio::test]
async fn what_a_backup_grows_is_charged_like_a_new_backup() {
    let store = TestStore::new();
    let limit = config::Quotas {
        max_total_bytes: Some(100_000),
        new_backups_per_account: NonZeroU32::new(1),
        ..config::Quotas::default()
    };
    let quotas = quotas(limit);
    quotas.set_usage(2, 200);
    let large = 50_000;

    // While it is in flight, too; and what is not stored is given back.
    let first = store.admit(&quotas, large, Existing::Backup(100));
    let first = first.await.unwrap();
    let second = store.admit_backup(&quotas, 8, large, Existing::Backup(100));
    let second = second.await.unwrap();
    let third = store.admit_backup(&quotas, 9, large, Existing::Backup(100));
    assert_eq!(third.await.err(), Some(OverQuota));
    let new = store.admit_backup(&quotas, 10, 1, Existing::None);
    assert_eq!(new.await.err(), Some(OverQuota));
    drop(second);
    first.stored(Put::Replaced);
    assert_eq!(usage(&quotas), (2, 50_100));

    // Beyond the quota: the same, less and a little more, however often, but not much more.
    quotas.set_usage(2, 1_000_000);
    for length in [large, 1, large + 4_096, large + 12_500, large] {
        let renewal = store.admit(&quotas, length, Existing::Backup(large));
        renewal.await.unwrap().stored(Put::Replaced);
        quotas.set_usage(2, 1_000_000);
    }
    for (before, length) in [(large, large + 12_501), (large + 12_500, large + 12_501)] {
        let larger = store.admit(&quotas, length, Existing::Backup(before)).await;
        assert_eq!(larger.err(), Some(OverQuota), "{before}");
    }
    // A larger one takes nothing of the account's new backups, and a little more is usage.
    quotas.set_usage(2, 1_000_000);
    let little = store.admit_backup(&quotas, 11, 5_000, Existing::Backup(1_000));
    little.await.unwrap().stored(Put::Replaced);
    assert_eq!(usage(&quotas), (2, 1_004_000));
    quotas.set_usage(0, 0);
    drop(store.admit(&quotas, 1, Existing::None).await.unwrap());
}

#[tokio::test]
async fn uploads_of_one_backup_at_once_count_the_one_that_stays() {
    let store = TestStore::new();
    let quotas = quotas(config::Quotas::default());
    for (existing, first, expected) in [
        (Existing::Backup(100), Put::Replaced, (1, 30_000)),
        (Existing::None, Put::Created, (2, 30_100)),
        (Existing::Unknown, Put::Replaced, (1, 10_100)),
    ] {
        quotas.set_usage(1, 100);
        let small = store.admit(&quotas, 20_000, existing).await.unwrap();
        let large = store.admit(&quotas, 30_000, existing).await.unwrap();
        let failed = store.admit(&quotas, 40_000, existing).await.unwrap();
        // A sweep counts meanwhile.
        quotas.set_usage(1, 100);
        small.stored(first);
        drop(failed);
        large.stored(Put::Replaced);

        assert_eq!(usage(&quotas), expected, "{existing:?}");
        assert_eq!(lock(&quotas.counts).reserved, Usage::default());
    }
}

#[tokio::test]
async fn an_upload_that_is_in_flight_at_a_reload_is_counted() {
    let store = TestStore::new();
    let before = Arc::new(quotas(config::Quotas::default()));
    before.set_usage(1, 100);
    let admission = store.admit(&before, 900, Existing::Backup(100));
    let admission = admission.await.unwrap();

    let after = before.reconfigured(config::Quotas {
        max_total_bytes: Some(1_000),
        ..config::Quotas::default()
    });
    let new = store.admit_backup(&after, 8, 101, Existing::None).await;
    assert_eq!(new.err(), Some(OverQuota));
    admission.stored(Put::Replaced);

    assert_eq!(usage(&after), (1, 900));
    drop(
        store
            .admit_backup(&after, 8, 100, Existing::None)
            .await
            .unwrap(),
    );
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

#[test]
fn a_quota_is_used_up_when_it_would_refuse_a_new_backup() {
    let quotas = quotas(config::Quotas {
        max_backups: Some(10),
        max_total_bytes: Some(1_000),
        min_free_bytes: Some(500),
        ..config::Quotas::default()
    });
    assert_eq!(quotas.used_up(None), None, "before the first count");
    for (backups, bytes, free, expected) in [
        (9, 999, None, None),
        (9, 999, Some(501), None),
        (9, 999, Some(499), Some("minFreeBytes")),
        (10, 999, Some(501), Some("maxBackups")),
        (11, 999, None, Some("maxBackups")),
        (9, 1_000, Some(501), Some("maxTotalBytes")),
        (9, 1_001, None, Some("maxTotalBytes")),
    ] {
        quotas.set_usage(backups, bytes);
        assert_eq!(quotas.used_up(free), expected, "{backups} {bytes} {free:?}");
    }
}

#[tokio::test]
async fn a_reload_keeps_the_usage_and_what_an_account_has_created() {
    let store = TestStore::new();
    let limits = config::Quotas {
        max_backups: Some(2),
        new_backups_per_account: NonZeroU32::new(1),
        ..config::Quotas::default()
    };
    let before = Arc::new(quotas(limits));
    before.set_usage(1, 100);
    let first = store.admit(&before, 100, Existing::None).await.unwrap();
    first.stored(Put::Created);
    before.backup_removed();

    let unchanged = before.reconfigured(limits);
    let again = store.admit(&unchanged, 100, Existing::None).await;
    assert_eq!(again.err(), Some(OverQuota), "the account has used its own");

    let changed = before.reconfigured(config::Quotas {
        max_backups: Some(1),
        ..limits
    });
    assert_eq!(usage(&changed), (1, 200));
    let over = store.admit(&changed, 100, Existing::None).await;
    assert_eq!(over.err(), Some(OverQuota), "the new limit is in force");
}

#[tokio::test(start_paused = true)]
async fn new_backups_are_counted_for_each_account_and_refilled_within_a_day() {
    let store = TestStore::new();
    let quotas = quotas(config::Quotas {
        new_backups_per_account: NonZeroU32::new(4),
        ..config::Quotas::default()
    });
    let [phones, office] = ["phones", "office"].map(|name| name.parse::<AccountName>().unwrap());
    let new = async |account: &AccountName| {
        let upload = NewVersion {
            account: Some(account),
            id: BackupId::from_bytes([7; 32]),
            length: 1,
            existing: Existing::None,
        };
        let admitted = quotas.admit(&store.files, upload).await;
        admitted
            .map(|admission| admission.stored(Put::Created))
            .is_ok()
    };

    for _ in 0..4 {
        assert!(new(&phones).await);
    }
    assert!(!new(&phones).await);
    assert!(new(&office).await);
    tokio::time::advance(Duration::from_secs(6 * 3_600 - 1)).await;
    assert!(!new(&phones).await);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(new(&phones).await);
    assert!(!new(&phones).await);
}
