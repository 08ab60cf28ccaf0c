//! Trial of a data directory: it leaves nothing behind, changes no backup, and trials at the same
//! time do not disturb each other. What it finds out: `tests/system/lacking_calls.rs`. And
//! directories that another program removes while the store is in use.

use futures_util::StreamExt;
use futures_util::future::join_all;
use threema_safe_server::store::{FileStore, KeepReplaced, Store, Upload};

use crate::store::contract::{body, id, listed, put, read};
use crate::support::{mode, names, now, write};

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

#[tokio::test]
async fn what_another_program_removes_is_created_again_without_a_trial_but_never_the_backups() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::claim(folder.path()).unwrap();
    let remove = |name: &str| std::fs::remove_dir_all(folder.path().join(name)).unwrap();
    put(&store, id(1), body(1, 50)).await;

    // A first upload, a renewal, a removal, and what has the name of a backup.
    remove("tmp");
    put(&store, id(2), body(2, 60)).await;
    remove("tmp");
    put(&store, id(1), body(3, 70)).await;
    assert_eq!(read(&store, id(1)).await.unwrap().1, body(3, 70));
    remove("trash");
    assert!(store.remove(id(1), now()).await.unwrap());
    assert_eq!(store.list_trash().count().await, 1);
    remove("trash");
    let upload = Upload {
        keep: Some(KeepReplaced {
            every: true,
            room: 1_000,
            min_free: 0,
        }),
        ..Upload::new(body(6, 20), now())
    };
    store.put(id(2), upload).await.unwrap();
    assert_eq!(store.list_trash().count().await, 1, "the replaced version");
    remove("trash");
    std::fs::create_dir(folder.path().join("backups").join(id(3).to_hex())).unwrap();
    put(&store, id(3), body(4, 80)).await;
    assert_eq!(mode(&folder.path().join("tmp")), 0o700);
    assert_eq!(mode(&folder.path().join("trash")), 0o700);

    // As when a disk is not mounted any more.
    for name in ["tmp", "trash", "backups"] {
        remove(name);
    }
    let upload = Upload::new(body(5, 90), now());
    store.put(id(1), upload).await.unwrap_err();
    store.remove(id(2), now()).await.unwrap_err();
    assert!(names(folder.path()).is_empty());
}
