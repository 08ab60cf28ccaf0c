//! Trial of a data directory: it leaves nothing behind, changes no backup, and trials at the same
//! time do not disturb each other. What it finds out: `tests/system/lacking_calls.rs`.

use futures_util::StreamExt;
use futures_util::future::join_all;
use threema_safe_server::store::{FileStore, Store};

use crate::store::contract::{body, id, listed, put, read};
use crate::support::{names, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trials_at_the_same_time_do_not_disturb_each_other_or_the_backups() {
    const ROUNDS: usize = 30;
    let folder = tempfile::tempdir().unwrap();
    // As in several processes: a store lets one trial begin after the other.
    let stores: Vec<_> = (0..4)
        .map(|_| FileStore::open(folder.path()).unwrap())
        .collect();
    put(&stores[0], id(1), body(1, 50)).await;
    let trials = stores.iter().map(|store| async move {
        for _ in 0..ROUNDS {
            store.try_write().await.unwrap();
            // No listing takes the trial file for a backup.
            assert_eq!(listed(store).await.len(), 1);
            assert_eq!(store.list_trash().count().await, 0);
        }
    });

    join_all(trials).await;

    assert_eq!(names(&folder.path().join("backups")), [id(1).to_hex()]);
    for directory in ["trash", "tmp"] {
        assert!(names(&folder.path().join(directory)).is_empty());
    }
    assert_eq!(read(&stores[0], id(1)).await.unwrap().1, body(1, 50));
}

#[tokio::test]
async fn a_trial_needs_the_backups_and_removes_what_a_killed_one_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    for directory in ["backups", "trash"] {
        write(&folder.path().join(directory).join(".trial.tmp"), "1");
    }
    store.try_write().await.unwrap();
    assert!(names(&folder.path().join("backups")).is_empty());
    assert!(names(&folder.path().join("trash")).is_empty());

    // As when a disk is not mounted any more: nothing is created in its place.
    for directory in ["backups", "trash", "tmp"] {
        std::fs::remove_dir(folder.path().join(directory)).unwrap();
    }
    store.try_write().await.unwrap_err();
    assert!(names(folder.path()).is_empty());
}
