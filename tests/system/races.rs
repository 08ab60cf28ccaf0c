//! Concurrent operations on one backup where there is no lock to wait for: strace stops one of them
//! after a system call.

use std::path::Path;

use threema_safe_server::store::Restored;

use crate::strace::Strace;
use crate::support::races::{
    A, Act, Answered, B, Contender, Delete, EXPIRED, End, Get, OLD, Prune, Pruned, Put, Race, Read,
    Restore, Stage, inode, lock,
};

tests! {
    an_upload_after_a_restore_replaces_it: tokio [STRACE_OF_SERVERS];
    an_upload_in_the_middle_of_a_restore_stays: tokio [STRACE_OF_SERVERS];
    of_two_first_uploads_the_last_one_wins_and_replaces: tokio [STRACE_OF_SERVERS];
    an_opened_backup_is_read_whole_whatever_becomes_of_it: tokio [STRACE_OF_SERVERS];
}

/// Works up to the end of its first system call of this name on this path, once it is let go on,
/// and stops there.
async fn stops_after(
    contender: &mut Contender<'_>,
    (call, path): (&str, &Path),
    folder: &Path,
    let_go: impl FnOnce(),
) -> Strace {
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:signal=STOP:when=1");
    let path = path.to_str().unwrap();
    let arguments = ["-e", &trace, "-e", &inject, "-e", "signal=STOP", "-P", path];
    let strace = Strace::attach_to(contender.process, folder, &arguments);
    let_go();
    contender
        .works_until(strace.says("stopped by SIGSTOP"))
        .await;
    strace
}

/// `second` is stopped after its first system call of this name on this path; then `first` has its
/// turn, and after it `second`.
async fn while_stopped(
    stage: &Stage,
    (call, path): (&str, &Path),
    first: Act,
    second: Act,
) -> Race {
    let mut second = stage.second(second).await;
    let folder = stage.site().folder();
    let strace = stops_after(&mut second, (call, path), folder, || ()).await;
    // A command begins as soon as it is there.
    let before = stage.seen_now().await;
    let first = stage.first(first).await;

    let race = stage.one_after_the_other(before, None, first, second).await;
    drop(strace);
    race
}

async fn an_upload_after_a_restore_replaces_it() {
    let stage = Stage::with_old_in_the_trash().await;
    let race = while_stopped(&stage, ("openat", &stage.file()), Restore, Put(B)).await;

    // When the upload looked, there was nothing; it has looked again.
    let back = End::Restored(Restored::Back);
    race.assert([back, Answered(204)], [None, Some(OLD), Some(B)]);
    assert!(stage.trash().is_empty());
}

async fn an_upload_in_the_middle_of_a_restore_stays() {
    let stage = Stage::with_old_in_the_trash().await;
    let before = stage.trashed().await;
    // The restore has seen that nothing is in its place, and has given the file its new time.
    let gate = stage.trash_files().remove(0);
    let lock = lock(&gate);
    let mut restore = stage.second(Restore).await;
    restore.works_up_to_the_lock(inode(&lock)).await;
    let folder = stage.site().folder();
    let let_go = || drop(lock);
    let strace = stops_after(&mut restore, ("fsync", &gate), folder, let_go).await;
    let upload = stage.first(Put(A)).await;

    let seen = stage.seen_now().await;
    let race = stage.one_after_the_other(seen, None, upload, restore).await;

    let newer = End::Restored(Restored::Newer);
    race.assert([Answered(201), newer], [None, Some(A), Some(A)]);
    assert_eq!(stage.trash(), [OLD]);
    assert_eq!(stage.trashed().await, before, "also its time");
    drop(strace);
}

async fn of_two_first_uploads_the_last_one_wins_and_replaces() {
    let stage = Stage::set().await;
    let race = while_stopped(&stage, ("openat", &stage.file()), Put(A), Put(B)).await;

    race.assert([Answered(201), Answered(204)], [None, Some(A), Some(B)]);
    assert!(stage.trash().is_empty());
}

async fn an_opened_backup_is_read_whole_whatever_becomes_of_it() {
    for (act, end, left, trash) in [
        (Put(A), Answered(204), Some(A), [].as_slice()),
        (Delete, Answered(204), None, &[OLD]),
        (
            Prune,
            Pruned {
                kept: 0,
                removed: 1,
            },
            None,
            &[OLD],
        ),
    ] {
        let stage = Stage::with_old(EXPIRED).await;
        let race = while_stopped(&stage, ("openat", &stage.file()), act, Get).await;

        race.assert([end, Read(OLD.to_owned())], [Some(OLD), left, left]);
        assert_eq!(stage.trash(), trash);
    }
}
