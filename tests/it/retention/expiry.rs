//! Expiry of backups, and the files of a store: on real files, with the time as an argument.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream::StreamExt;
use threema_safe_server::backup::BackupId;
use threema_safe_server::retention::{self, AgeHistogram, Mode, Report, Retention, SizeHistogram};
use threema_safe_server::state::StateFile;
use threema_safe_server::store::{FileStore, Put, Store};

use crate::support::stores::upload;
use crate::support::wire::{Protocol, soon};
use crate::support::{ID, OTHER_ID, Site, contents, digits, names, now};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A day on which tests take place.
fn today() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn id(digits: &str) -> BackupId {
    digits.parse().unwrap()
}

fn open(site: &Site) -> FileStore {
    FileStore::open(&site.data()).unwrap()
}

fn retention() -> Retention {
    Retention::of_days(180, 7, 7)
}

/// One sweep over the site's store; the ages and sizes of the report are left out.
async fn sweep(site: &Site, store: &dyn Store, now: SystemTime, mode: Mode) -> Report {
    if mode != Mode::DryRun {
        site.swept_at(now);
    }
    let state = StateFile::in_directory(&site.data());
    let report = retention::sweep(store, &state, retention(), now, mode).await;
    Report {
        ages: AgeHistogram::default(),
        sizes: SizeHistogram::default(),
        expiring_in_14_days: 0,
        expiring_in_30_days: 0,
        ..report.unwrap()
    }
}

async fn put(store: &dyn Store, digits: &str, body: &'static str) -> Put {
    store.put(id(digits), upload(body)).await.unwrap()
}

#[tokio::test]
async fn a_backup_expires_when_it_is_older_than_retention_and_margin() {
    let site = Site::new();
    let kept = today() - DAY * 187;
    site.place_backup(ID, b"exactly as old as allowed", kept);
    site.place_backup(OTHER_ID, b"older", kept - Duration::from_nanos(1));
    site.place_backup(&digits(1), b"new", today());
    site.swept_at(today());
    let store = open(&site);

    let dry = sweep(&site, &store, today(), Mode::DryRun).await;
    assert_eq!(names(&site.data().join("backups")).len(), 3);
    let wet = sweep(&site, &store, today(), Mode::Remove).await;

    let found = Report {
        kept: 2,
        kept_bytes: 28,
        removed: 1,
        removed_bytes: 5,
        ..Report::default()
    };
    assert_eq!(
        (dry, wet),
        (
            found.clone(),
            Report {
                trash_kept: 1,
                trash_bytes: 5,
                ..found
            }
        )
    );
    assert_eq!(
        names(&site.data().join("backups")),
        [digits(1), ID.to_owned()]
    );
    // A clock that was wrong can be mended: what expired is in the trash for as long as what a
    // phone removed.
    assert!(names(&site.data().join("trash"))[0].starts_with(OTHER_ID));
    let later = sweep(&site, &store, today() + DAY * 8, Mode::Remove).await;
    assert_eq!((later.removed, later.trash_erased), (1, 1));
}

#[tokio::test]
async fn trash_is_erased_when_its_days_are_over() {
    let site = Site::new();
    let store = open(&site);
    for (digits, removed) in [
        (ID, today() - DAY * 7),
        (OTHER_ID, today() - DAY * 7 - DAY / 86_400),
    ] {
        put(&store, digits, "backup").await;
        assert!(store.remove(id(digits), removed).await.unwrap());
    }

    site.swept_at(today());
    let before = contents(&site.data());
    let dry = sweep(&site, &store, today(), Mode::DryRun).await;
    assert_eq!(contents(&site.data()), before);
    let wet = sweep(&site, &store, today(), Mode::Remove).await;

    let expected = Report {
        trash_kept: 1,
        trash_bytes: 6,
        trash_erased: 1,
        ..Report::default()
    };
    assert_eq!((&dry, &wet), (&expected, &expected));
    assert!(names(&site.data().join("trash"))[0].starts_with(ID));
}

#[tokio::test]
async fn however_many_have_expired_all_are_found() {
    // One more than a sweep keeps in mind.
    const COUNT: u64 = 1_001;
    let site = Site::new();
    let [backups, trash] = ["backups", "trash"].map(|name| site.data().join(name));
    let store = open(&site);
    site.place_backup(ID, b"new", today());
    for number in 0..COUNT {
        let name = format!("{number:064x}");
        site.place_backup(&name, b"older", UNIX_EPOCH);
        let trashed = format!("{name}.{}", 400 * 86_400);
        fs::rename(backups.join(&name), trash.join(trashed)).unwrap();
        site.place_backup(&name, b"old", UNIX_EPOCH);
    }

    let dry = sweep(&site, &store, today(), Mode::DryRun).await;

    assert_eq!((dry.kept, dry.removed), (1, COUNT));
    assert_eq!((dry.trash_kept, dry.trash_erased), (0, COUNT));
}

#[tokio::test]
async fn what_is_not_a_backup_is_neither_listed_nor_erased() {
    let site = Site::new();
    let store = open(&site);
    let backups = site.data().join("backups");
    for name in [
        "README",
        &ID.to_uppercase(),
        &format!("{ID}.tmp"),
        ".hidden",
    ] {
        site.place_backup(name, b"not ours", UNIX_EPOCH);
    }
    fs::create_dir(backups.join(ID)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", backups.join(OTHER_ID)).unwrap();
    let before = names(&backups);

    let report = sweep(&site, &store, today(), Mode::Remove).await;

    assert_eq!(report, Report::default());
    assert_eq!(names(&backups), before);
    assert!(store.stat(id(OTHER_ID)).await.unwrap().is_none());
    assert!(
        store.get(id(OTHER_ID)).await.unwrap().is_none(),
        "a symbolic link was followed"
    );
}

#[tokio::test]
async fn a_directory_that_vanished_is_an_error_and_not_an_empty_store() {
    let site = Site::new();
    let store = open(&site);
    put(&store, ID, "backup").await;
    fs::rename(site.data(), site.folder().join("elsewhere")).unwrap();

    assert!(store.get(id(ID)).await.is_err());
    assert!(store.stat(id(ID)).await.is_err());
    assert!(store.remove(id(ID), today()).await.is_err());
    assert!(store.expire(id(ID), today(), today()).await.is_err());
    assert!(
        store
            .list()
            .any(|listed| async move { listed.is_err() })
            .await
    );
}

#[tokio::test]
async fn a_server_sweeps_when_it_starts() {
    let site = Site::new();
    site.place_backup(ID, b"expired", now() - DAY * 188);
    site.place_backup(OTHER_ID, b"fresh", now());
    site.swept_at(now());
    let backups = site.data().join("backups");
    let server = site.start().await;

    // The sweep runs beside the first requests; its end is when the file is gone.
    soon(async {
        while names(&backups).len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    assert_eq!(names(&backups), [OTHER_ID]);
    server.stop().await;
}

/// A server of its own process would not differ: the clock is that of its system.
#[tokio::test]
async fn a_server_that_boots_in_1970_loses_nothing() {
    fn in_1970() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(60)
    }
    for had_state in [false, true] {
        let site = Site::new().clock(in_1970);
        if had_state {
            site.swept_at(now() - DAY / 24);
        }
        let server = site.start().await;
        server.swept().await;
        let mut phone = server.phone(Protocol::Http1).await;
        for id in [ID, OTHER_ID] {
            let path = format!("/backups/{id}");
            assert_eq!(phone.send("PUT", &path, &[], "backup").await.status, 201);
        }
        let path = format!("/backups/{OTHER_ID}");
        assert_eq!(phone.ask("DELETE", &path, &[]).await.status, 204);
        drop(phone);
        let site = server.stop().await.clock(now);
        let stored = fs::metadata(site.backup_file(ID)).unwrap();
        assert!(stored.modified().unwrap() >= UNIX_EPOCH + DAY * 19_723);

        let server = site.start().await;
        server.swept().await;
        let status = server.admin("/status.json").await;
        assert!(status.contains("\"refused\":null"), "{status}");
        assert_eq!(names(&server.site().data().join("backups")), [ID]);
        assert_eq!(names(&server.site().data().join("trash")).len(), 1);
        server.stop().await;
    }
}
