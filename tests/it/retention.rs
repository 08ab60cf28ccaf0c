//! What expires when, and what a store promises: on real files, with the time as an argument.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};
use threema_safe_server::backup::BackupId;
use threema_safe_server::retention::{self, Ages, Mode, Report, Retention};
use threema_safe_server::state::StateFile;
use threema_safe_server::store::{Error, FileStore, Meta, Put, Restored, Store, Trashed, Verified};

use crate::support::{ID, OTHER_ID, Site, contents, names, now};
use crate::wire::soon;

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

/// One sweep over the site's store; the ages of the report are left out.
async fn sweep(site: &Site, store: &dyn Store, now: SystemTime, mode: Mode) -> Report {
    let state = StateFile::in_directory(&site.data());
    let report = retention::sweep(store, &state, retention(), now, mode).await;
    Report {
        ages: Ages::default(),
        ..report.unwrap()
    }
}

async fn put(store: &dyn Store, digits: &str, body: &'static str) -> Put {
    store.put(id(digits), Bytes::from(body)).await.unwrap()
}

async fn read(store: &dyn Store, digits: &str) -> Option<Bytes> {
    store.get(id(digits)).await.unwrap().map(|(_, body)| body)
}

#[tokio::test]
async fn a_backup_expires_when_it_is_older_than_retention_and_margin() {
    let site = Site::new();
    let kept = today() - DAY * 187;
    site.place_backup(ID, b"exactly as old as allowed", kept);
    site.place_backup(OTHER_ID, b"older", kept - Duration::from_nanos(1));
    let store = open(&site);

    let dry = sweep(&site, &store, today(), Mode::DryRun).await;
    assert_eq!(names(&site.data().join("backups")).len(), 2);
    let wet = sweep(&site, &store, today(), Mode::Remove).await;

    let found = Report {
        kept: 1,
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
                ..found
            }
        )
    );
    assert_eq!(names(&site.data().join("backups")), [ID]);
    // A clock that was wrong can be mended: what expired is in the trash for as long as what a phone removed.
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

    let before = contents(&site.data());
    let dry = sweep(&site, &store, today(), Mode::DryRun).await;
    assert_eq!(contents(&site.data()), before);
    let wet = sweep(&site, &store, today(), Mode::Remove).await;

    let expected = Report {
        trash_kept: 1,
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
        store.get(id(OTHER_ID)).await.is_err(),
        "a symbolic link was followed"
    );
}

/// A store in which a phone renews every backup after it was listed and before it is erased.
struct Renewing(FileStore);

impl Store for Renewing {
    fn put(&self, id: BackupId, body: Bytes) -> BoxFuture<'_, Result<Put, Error>> {
        self.0.put(id, body)
    }
    fn get(&self, id: BackupId) -> BoxFuture<'_, Result<Option<(Meta, Bytes)>, Error>> {
        self.0.get(id)
    }
    fn stat(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Meta>, Error>> {
        self.0.stat(id)
    }
    fn remove(&self, id: BackupId, now: SystemTime) -> BoxFuture<'_, Result<bool, Error>> {
        self.0.remove(id, now)
    }
    fn expire(
        &self,
        id: BackupId,
        not_before: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            self.0.put(id, Bytes::from_static(b"renewed")).await?;
            self.0.expire(id, not_before, now).await
        })
    }
    fn list(&self) -> BoxStream<'static, Result<(BackupId, Meta), Error>> {
        self.0.list()
    }
    fn list_trash(&self) -> BoxStream<'static, Result<Trashed, Error>> {
        self.0.list_trash()
    }
    fn restore(&self, trashed: Trashed, now: SystemTime) -> BoxFuture<'_, Result<Restored, Error>> {
        self.0.restore(trashed, now)
    }
    fn verify(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Verified>, Error>> {
        self.0.verify(id)
    }
    fn erase_trashed(&self, trashed: Trashed) -> BoxFuture<'_, Result<bool, Error>> {
        self.0.erase_trashed(trashed)
    }
}

#[tokio::test]
async fn a_backup_renewed_between_listing_and_erasing_survives() {
    let site = Site::new();
    site.place_backup(ID, b"old", UNIX_EPOCH);
    let store = Renewing(open(&site));

    let report = sweep(&site, &store, now(), Mode::Remove).await;

    assert_eq!(
        report,
        Report {
            kept: 1,
            ..Report::default()
        }
    );
    assert_eq!(read(&store, ID).await.unwrap(), "renewed");
}

/// An upload waits while somebody holds the lock of the backup that it replaces, and then takes its place.
#[tokio::test]
async fn an_upload_and_retention_take_turns_on_one_backup() {
    let site = Site::new();
    site.place_backup(ID, b"old", UNIX_EPOCH);
    let store = Arc::new(open(&site));
    let lock = fs::File::open(site.backup_file(ID)).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();

    let uploading = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put(id(ID), Bytes::from_static(b"new")).await.unwrap() }
    });
    let erasing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.expire(id(ID), now() - DAY, now()).await.unwrap() }
    });
    assert_eq!(
        read(&*store, ID).await.unwrap(),
        "old",
        "readers wait for nobody"
    );
    drop(lock);

    // Either order is right; the new backup is there in both.
    soon(uploading).await.unwrap();
    soon(erasing).await.unwrap();
    assert_eq!(read(&*store, ID).await.unwrap(), "new");
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
