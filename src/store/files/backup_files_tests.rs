//! Unit tests of the file operations, on real files. What every store promises is tested by its
//! contract in `tests/it/store`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use tempfile::TempDir;

use super::{MAX_LENGTH, erase, read_whole};
use crate::backup::BackupId;
use crate::durable;
use crate::store::{Contents, FileStore, OpenError, Put, Store, Upload};

const ID: BackupId = BackupId::from_bytes([0xab; 32]);

fn store() -> (TempDir, FileStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    (folder, store)
}

fn time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

async fn put(store: &FileStore) {
    let upload = Upload::new("backup".into(), time());
    assert_eq!(store.put(ID, upload).await.unwrap(), Put::Created);
}

#[test]
fn a_command_opens_no_directory_without_backups_and_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("data");
    let error = FileStore::open_existing(&missing).unwrap_err();
    let expected = format!("data directory {}/backups", missing.display());
    assert!(matches!(error, OpenError::Missing { place } if place == expected));
    assert!(!missing.exists());

    // Another error does not mean that there are no backups.
    durable::replace(&missing, b"a file").unwrap();
    let error = FileStore::open_existing(&missing).unwrap_err();
    assert!(matches!(error, OpenError::Unusable { .. }), "{error:?}");
}

#[test]
fn a_server_erases_the_incomplete_uploads_of_the_one_before() {
    let (folder, _) = store();
    let tmp = folder.path().join("tmp");
    durable::replace(&tmp.join("upload"), b"half of it").unwrap();
    fs::create_dir(tmp.join("directory")).unwrap();

    FileStore::claim(folder.path()).unwrap();

    let left: Vec<_> = fs::read_dir(&tmp).unwrap().map(Result::unwrap).collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].file_name(), "directory");
}

#[tokio::test]
async fn trash_is_listed_under_canonical_names_alone() {
    let (folder, store) = store();
    for suffix in ["0", "7", "07", "00", "+7", "-7", "", "7.7"] {
        let name = format!("trash/{}.{suffix}", ID.to_hex());
        durable::replace(&folder.path().join(name), b"").unwrap();
    }

    let listed: Vec<_> = store.list_trash().map(Result::unwrap).collect().await;

    let mut times: Vec<_> = listed.iter().map(|trashed| trashed.removed_at).collect();
    times.sort_unstable();
    assert_eq!(times, [0, 7]);
}

#[tokio::test]
async fn a_backup_that_cannot_be_moved_to_the_trash_stays() {
    let (folder, store) = store();
    put(&store).await;
    let trash = folder.path().join("trash");
    fs::remove_dir(&trash).unwrap();
    // What cannot be created again: a file, and a link that leads nowhere.
    durable::replace(&trash, b"").unwrap();
    assert!(store.remove(ID, time()).await.is_err());
    fs::remove_file(&trash).unwrap();
    std::os::unix::fs::symlink("nowhere", &trash).unwrap();

    assert!(store.remove(ID, time()).await.is_err());

    assert!(store.get(ID).await.unwrap().is_some());
}

#[test]
fn a_second_name_that_a_failed_removal_leaves_is_taken_back_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let [backup, trashed] = ["backup", "trashed"].map(|name| folder.path().join(name));
    durable::replace(&backup, b"1").unwrap();
    super::BackupFiles::undo_link(&backup, &trashed).unwrap();
    durable::replace(&trashed, b"2").unwrap();
    super::BackupFiles::undo_link(&backup, &trashed).unwrap();
    assert_eq!(fs::read(&trashed).unwrap(), b"2");
    fs::remove_file(&trashed).unwrap();

    fs::hard_link(&backup, &trashed).unwrap();
    super::BackupFiles::undo_link(&backup, &trashed).unwrap();

    assert!(!trashed.exists());
    assert_eq!(fs::read(&backup).unwrap(), b"1");
}

#[tokio::test]
async fn verification_tells_changed_contents_from_a_new_version() {
    let (folder, store) = store();
    put(&store).await;
    let path = folder.path().join("backups").join(ID.to_hex());
    let contents = async || store.verify(ID).await.unwrap().unwrap().contents;
    // In place, so that the extended attribute stays.
    let write = |bytes: &[u8], at: SystemTime| {
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        file.set_modified(at).unwrap();
    };
    assert_eq!(contents().await, Contents::Same);

    write(b"backuq", time());
    assert_eq!(contents().await, Contents::Changed);
    write(b"backup", time());
    assert_eq!(contents().await, Contents::Same);
    write(b"backup and more", time());
    assert_eq!(contents().await, Contents::Changed);

    // A program that writes a new version gives it a new time.
    write(b"another backup.", time() + Duration::from_nanos(1));
    assert_eq!(contents().await, Contents::FirstSeen);
    assert_eq!(contents().await, Contents::Same);
}

#[tokio::test]
async fn a_trial_write_fails_without_backups_and_free_space_is_known() {
    let (folder, store) = store();
    store.try_write().await.unwrap();
    assert!(store.free_bytes().await.unwrap().is_some());

    fs::remove_dir(folder.path().join("backups")).unwrap();
    assert!(store.try_write().await.is_err());
}

#[test]
fn only_a_file_that_is_missing_counts_as_erased_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    durable::replace(&path, b"").unwrap();

    assert!(erase(&path).unwrap());
    assert!(!erase(&path).unwrap());
    assert!(erase(folder.path()).is_err());
}

#[test]
fn a_file_is_read_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup");
    for (length, contents) in [
        (0, Some("")),
        (9, None),
        (10, Some("0123456789")),
        (11, None),
        (MAX_LENGTH, None),
    ] {
        let stored = if length == 0 { "" } else { "0123456789" };
        durable::replace(&path, stored.as_bytes()).unwrap();
        let file = File::open(&path).unwrap();

        let read = read_whole(&file, length).unwrap();

        let expected = contents.map(str::as_bytes);
        assert_eq!(read.as_deref(), expected, "{length}");
    }
    let file = File::open(&path).unwrap();
    assert!(
        read_whole(&file, u64::MAX).is_err(),
        "no memory is that large"
    );
}
