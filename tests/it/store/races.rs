//! Operations on one backup at the same time, on real files and over real TLS, each pair in both orders: the last one
//! wins, a renewed backup is never pruned, and whoever reads gets one whole version.
//!
//! Both contenders begin, and wait for the lock on the old file, which the test holds as another program would. The one
//! that has to come second is in a process of its own: a signal stops it, and it no longer waits. When it goes on, the
//! first is done, and it asks for the lock of a file that has lost its name. Where there is no lock to wait for, strace
//! stops it after a system call.

use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use threema_safe_server::store::{FileStore, Restored, Store, Trashed};
use tokio::task::yield_now;

use crate::support::commands::command;
use crate::support::process::{ServerProcess, waiters_for_the_lock_of};
use crate::support::strace::{Strace, can_trace};
use crate::support::wire::{Client, Protocol, soon};
use crate::support::{ID, Listening, Site, TestServer, backup_path, names, now};

const OLD: &str = "the old backup, of which every byte counts and no byte may be lost";
const A: &str = "the first of two, and it is shorter than the old one";
const B: &str = "the second of two, and this one is longer than the old one and than the first";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Older than any backup that is kept.
const EXPIRED: Duration = Duration::from_secs(200 * 24 * 60 * 60);

/// What a contender does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Get,
    Put(&'static str),
    Delete,
    /// `prune`
    Prune,
    /// `trash restore`
    Restore,
    /// `trash empty`
    Empty,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With this status.
    Answered(u16),
    /// With this version of the backup.
    Read(String),
    /// With so many backups that are kept and so many that were removed.
    Pruned { kept: u64, removed: u64 },
    /// Of one backup.
    Restored(Restored),
    /// With so many backups that were erased.
    Erased(u64),
}

use Act::{Delete, Empty, Get, Prune, Put, Restore};
use End::{Answered, Erased, Pruned, Read};

/// Somebody at work, in this process or in another.
struct Contender<'a> {
    process: Pid,
    ends: Pin<Box<dyn Future<Output = End> + 'a>>,
}

impl Contender<'_> {
    /// Works until something has happened; it must not end before.
    async fn works_until(&mut self, event: impl Future<Output = ()>) {
        tokio::select! {
            end = &mut self.ends => panic!("it did not wait: {end:?}"),
            () = soon(event) => {}
        }
    }

    fn is_waiting_for(&self, inode: u64) -> bool {
        let process = self.process.as_raw_nonzero().get().cast_unsigned();
        waiters_for_the_lock_of(inode).contains(&process)
    }

    /// Works until it waits for the lock on the file of this inode.
    async fn works_up_to_the_lock(&mut self, inode: u64) {
        let process = self.process.as_raw_nonzero().get().cast_unsigned();
        self.works_until(async {
            while !waiters_for_the_lock_of(inode).contains(&process) {
                yield_now().await;
            }
        })
        .await;
    }

    /// Stops while it waits for a lock, and waits for it no longer.
    async fn stops_waiting(&self, inode: u64) {
        kill_process(self.process, Signal::STOP).unwrap();
        soon(async {
            while self.is_waiting_for(inode) {
                yield_now().await;
            }
        })
        .await;
    }

    /// Works up to the end of its first system call of this name on this path, once it is let go on, and stops there.
    async fn stops_after(
        &mut self,
        (call, path): (&str, &Path),
        folder: &Path,
        let_go: impl FnOnce(),
    ) -> Strace {
        let trace = format!("trace={call}");
        let inject = format!("inject={call}:signal=STOP:when=1");
        let path = path.to_str().unwrap();
        let arguments = ["-e", &trace, "-e", &inject, "-e", "signal=STOP", "-P", path];
        let strace = Strace::attach_to(self.process, folder, &arguments);
        let_go();
        self.works_until(strace.says("stopped by SIGSTOP")).await;
        strace
    }

    /// Goes on to its end.
    async fn ends(&mut self) -> End {
        kill_process(self.process, Signal::CONT).unwrap();
        soon(&mut self.ends).await
    }
}

/// A command at work beside the servers; killed when dropped.
struct Program(Child);

impl Program {
    fn start(site: &Site, arguments: &[&str]) -> Self {
        let mut command = command(site, arguments);
        let command = command.arg("--json").stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// What it prints, when it has ended.
    async fn report(mut self) -> Value {
        while self.0.try_wait().unwrap().is_none() {
            yield_now().await;
        }
        serde_json::from_reader(self.0.stdout.take().unwrap()).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A server in a process of its own, and one in this process on the same files.
struct Stage {
    process: ServerProcess,
    beside: TestServer,
    store: FileStore,
}

impl Stage {
    async fn set() -> Self {
        // The phones of some hundred contests look for what was removed.
        let budget = json!({ "limits": { "unknownBackupsPerAddressAndHour": 1_000_000 } });
        let process = ServerProcess::start(Site::new().with(budget.clone()));
        let open = || FileStore::open(&process.site().data()).unwrap();
        let beside = Site::new().with(budget).start_over(open()).await;
        beside.settled().await;
        Self {
            beside,
            store: open(),
            process,
        }
    }

    /// There is a backup that was uploaded so long ago.
    async fn with_old(age: Duration) -> Self {
        let stage = Self::set().await;
        stage.site().place_backup(ID, OLD.as_bytes(), now() - age);
        stage
    }

    /// There is a backup in the trash, which was uploaded a day before it was removed.
    async fn with_old_in_the_trash() -> Self {
        let stage = Self::with_old(DAY).await;
        let removed = stage.store.remove(ID.parse().unwrap(), now()).await;
        assert!(removed.unwrap());
        stage
    }

    fn site(&self) -> &Site {
        self.process.site()
    }

    fn file(&self) -> PathBuf {
        self.site().backup_file(ID)
    }

    fn trash_files(&self) -> Vec<PathBuf> {
        let trash = self.site().data().join("trash");
        names(&trash).iter().map(|name| trash.join(name)).collect()
    }

    /// The versions in the trash, in the order in which they were removed.
    fn trash(&self) -> Vec<String> {
        let files = self.trash_files();
        files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect()
    }

    async fn trashed(&self) -> Trashed {
        let mut trash = self.store.list_trash();
        let trashed = trash.next().await.unwrap().unwrap();
        assert!(trash.next().await.is_none());
        trashed
    }

    /// Somebody in this process, but for `prune`.
    async fn first(&self, act: Act) -> Contender<'_> {
        let phone = self.beside.phone(Protocol::Http2).await;
        let trashed = if [Restore, Empty].contains(&act) {
            Some(self.trashed().await)
        } else {
            None
        };
        match (act, trashed) {
            (Restore, Some(trashed)) => self.in_this_process(async move {
                End::Restored(self.store.restore(trashed, now()).await.unwrap())
            }),
            (Empty, Some(trashed)) => self.in_this_process(async move {
                Erased(self.store.erase_trashed(trashed).await.unwrap().into())
            }),
            (Prune, _) => self.command(act),
            _ => self.in_this_process(request(phone, act)),
        }
    }

    /// Somebody in a process that can be stopped.
    async fn second(&self, act: Act) -> Contender<'_> {
        if [Prune, Restore, Empty].contains(&act) {
            return self.command(act);
        }
        let phone = self.process.phone(Protocol::Http1).await;
        Contender {
            process: self.process.pid(),
            ends: Box::pin(request(phone, act)),
        }
    }

    fn in_this_process<'a>(&self, ends: impl Future<Output = End> + 'a) -> Contender<'a> {
        Contender {
            process: rustix::process::getpid(),
            ends: Box::pin(ends),
        }
    }

    fn command(&self, act: Act) -> Contender<'_> {
        let arguments: &[_] = match act {
            Prune => &["prune"],
            Restore => &["trash", "restore", "--all"],
            Empty => &["trash", "empty", "--yes"],
            Get | Put(_) | Delete => panic!("{act:?} is no command"),
        };
        let program = Program::start(self.site(), arguments);
        Contender {
            process: Pid::from_child(&program.0),
            ends: Box::pin(async move {
                let report = program.report().await;
                let count = |key: &str| report[key].as_u64().unwrap();
                match act {
                    Prune => Pruned {
                        kept: count("kept"),
                        removed: count("removed"),
                    },
                    Empty => Erased(count("erased")),
                    Get | Put(_) | Delete | Restore => End::Restored(
                        match ["restored", "newer", "missing", "failed"].map(count) {
                            [1, 0, 0, 0] => Restored::Back,
                            [0, 1, 0, 0] => Restored::Newer,
                            // Also one that was gone when the trash was listed.
                            [0, 0, 1, 0] => Restored::Gone,
                            _ => panic!("{report}"),
                        },
                    ),
                }
            }),
        }
    }

    /// The backup as a phone gets it.
    async fn read(&self, phone: &mut Client) -> Option<String> {
        let read = phone.ask("GET", &backup_path(), &[]).await;
        match read.status {
            200 => Some(read.text().to_owned()),
            404 => None,
            _ => panic!("{read:?}"),
        }
    }

    /// The backup as a phone gets it that comes now.
    async fn seen_now(&self) -> Option<String> {
        let mut phone = self.beside.phone(Protocol::Http1).await;
        self.read(&mut phone).await
    }

    /// Both begin and wait for the lock on this file; then `first` has its turn, to its end, and after it `second`.
    async fn in_order(&self, gate: &Path, first: Act, second: Act) -> Race {
        let lock = lock(gate);
        let inode = inode(&lock);
        let mut second = self.second(second).await;
        second.works_up_to_the_lock(inode).await;
        second.stops_waiting(inode).await;
        let before = self.seen_now().await;
        // An upload under a name that nothing has needs no lock.
        let needs_lock = self.file().exists() || [Restore, Empty].contains(&first);
        let mut first = self.first(first).await;
        if needs_lock {
            first.works_up_to_the_lock(inode).await;
        }

        self.one_after_the_other(before, Some(lock), first, second)
            .await
    }

    /// `second` is stopped after its first system call of this name on this path; then `first` has its turn, and after
    /// it `second`. `None` where nothing can be traced.
    async fn while_stopped(
        &self,
        (call, path): (&str, &Path),
        first: Act,
        second: Act,
    ) -> Option<Race> {
        let test = format!("{first:?} while {second:?} is under way");
        if !can_trace(&self.process, &test) {
            return None;
        }
        let mut second = self.second(second).await;
        let folder = self.site().folder();
        let strace = second.stops_after((call, path), folder, || ()).await;
        // A command begins as soon as it is there.
        let before = self.seen_now().await;
        let first = self.first(first).await;

        let race = self.one_after_the_other(before, None, first, second).await;
        drop(strace);
        Some(race)
    }

    async fn one_after_the_other(
        &self,
        before: Option<String>,
        lock: Option<File>,
        mut first: Contender<'_>,
        mut second: Contender<'_>,
    ) -> Race {
        let mut witness = self.beside.phone(Protocol::Http1).await;
        let is_over = Cell::new(false);
        let race = async {
            drop(lock);
            let first = soon(&mut first.ends).await;
            let between = self.read(&mut witness).await;
            let second = second.ends().await;
            let after = self.read(&mut witness).await;
            is_over.set(true);
            Race {
                ends: [first, second],
                seen: [before, between, after],
            }
        };
        let look_all_the_time = async {
            let mut reader = self.beside.phone(Protocol::Http2).await;
            let mut seen = Vec::new();
            while !is_over.get() {
                seen.push(self.read(&mut reader).await);
            }
            seen
        };
        let (race, mut looks) = tokio::join!(race, look_all_the_time);
        // Whoever looks all the time sees the same versions in the same order, or fewer.
        looks.dedup();
        let mut versions = race.seen.iter();
        for look in &looks {
            let is_next = versions.any(|version| version == look);
            assert!(is_next, "{looks:?} beside {:?}", race.seen);
        }
        assert!(names(&self.site().data().join("tmp")).is_empty());
        race
    }
}

/// How two contenders ended, and the backup before, between and after.
struct Race {
    ends: [End; 2],
    seen: [Option<String>; 3],
}

impl Race {
    #[track_caller]
    fn assert(&self, ends: [End; 2], seen: [Option<&str>; 3]) {
        assert_eq!(self.ends, ends);
        let all: Vec<_> = self.seen.iter().map(Option::as_deref).collect();
        assert_eq!(all, seen);
    }
}

/// Holds the lock on a file.
fn lock(path: &Path) -> File {
    let file = File::open(path).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}

fn inode(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}

async fn request(mut phone: Client, act: Act) -> End {
    let (method, body) = match act {
        Get => ("GET", ""),
        Put(body) => ("PUT", body),
        Delete => ("DELETE", ""),
        Prune | Restore | Empty => panic!("{act:?} is no request"),
    };
    let answer = phone.send(method, &backup_path(), &[], body).await;
    if act == Get && answer.status == 200 {
        assert_eq!(
            answer.header("content-length"),
            Some(&*answer.body.len().to_string())
        );
        return Read(answer.text().to_owned());
    }
    Answered(answer.status)
}

/// The race, and what is in the trash afterwards. There is a backup of this age.
async fn race_for_the_backup(age: Duration, first: Act, second: Act) -> (Race, Vec<String>) {
    let stage = Stage::with_old(age).await;
    let race = stage.in_order(&stage.file(), first, second).await;
    let here = names(&stage.site().data().join("backups"));
    assert_eq!(here.is_empty(), race.seen[2].is_none());
    (race, stage.trash())
}

#[tokio::test]
async fn of_two_uploads_the_last_one_wins() {
    let (race, trash) = race_for_the_backup(DAY, Put(A), Put(B)).await;

    race.assert(
        [Answered(204), Answered(204)],
        [Some(OLD), Some(A), Some(B)],
    );
    assert!(trash.is_empty());
}

#[tokio::test]
async fn a_removal_after_an_upload_removes_what_was_uploaded() {
    let (race, trash) = race_for_the_backup(DAY, Put(A), Delete).await;

    race.assert([Answered(204), Answered(204)], [Some(OLD), Some(A), None]);
    assert_eq!(trash, [A]);
}

#[tokio::test]
async fn an_upload_after_a_removal_is_there_and_is_a_new_one() {
    let (race, trash) = race_for_the_backup(DAY, Delete, Put(B)).await;

    race.assert([Answered(204), Answered(201)], [Some(OLD), None, Some(B)]);
    assert_eq!(trash, [OLD]);
}

#[tokio::test]
async fn of_two_removals_the_first_one_removes() {
    let (race, trash) = race_for_the_backup(DAY, Delete, Delete).await;

    race.assert([Answered(204), Answered(404)], [Some(OLD), None, None]);
    assert_eq!(trash, [OLD]);
}

#[tokio::test]
async fn a_backup_that_is_renewed_before_it_would_be_pruned_stays() {
    let (race, trash) = race_for_the_backup(EXPIRED, Put(A), Prune).await;

    let pruned = Pruned {
        kept: 1,
        removed: 0,
    };
    race.assert([Answered(204), pruned], [Some(OLD), Some(A), Some(A)]);
    assert!(trash.is_empty());
}

#[tokio::test]
async fn a_backup_that_is_renewed_after_it_was_pruned_is_there() {
    let (race, trash) = race_for_the_backup(EXPIRED, Prune, Put(B)).await;

    let pruned = Pruned {
        kept: 0,
        removed: 1,
    };
    race.assert([pruned, Answered(201)], [Some(OLD), None, Some(B)]);
    assert_eq!(trash, [OLD]);
}

#[tokio::test]
async fn a_backup_that_is_removed_before_it_would_be_pruned_is_in_the_trash_once() {
    let (race, trash) = race_for_the_backup(EXPIRED, Delete, Prune).await;

    let pruned = Pruned {
        kept: 1,
        removed: 0,
    };
    race.assert([Answered(204), pruned], [Some(OLD), None, None]);
    assert_eq!(trash, [OLD]);
}

#[tokio::test]
async fn a_backup_that_was_pruned_before_it_is_removed_is_in_the_trash_once() {
    let (race, trash) = race_for_the_backup(EXPIRED, Prune, Delete).await;

    let pruned = Pruned {
        kept: 0,
        removed: 1,
    };
    race.assert([pruned, Answered(404)], [Some(OLD), None, None]);
    assert_eq!(trash, [OLD]);
}

/// The file in the trash is the one that is locked.
async fn race_for_the_trash(first: Act, second: Act) -> (Race, Stage) {
    let stage = Stage::with_old_in_the_trash().await;
    let gate = stage.trash_files().remove(0);
    let race = stage.in_order(&gate, first, second).await;
    (race, stage)
}

#[tokio::test]
async fn a_restore_after_an_upload_leaves_the_upload_and_the_trash_as_they_are() {
    let (race, stage) = race_for_the_trash(Put(A), Restore).await;

    let newer = End::Restored(Restored::Newer);
    race.assert([Answered(201), newer], [None, Some(A), Some(A)]);
    assert_eq!(stage.trash(), [OLD]);
    let age = now().duration_since(stage.trashed().await.last_upload);
    assert!(age.unwrap() >= DAY, "also its time is as it was");
}

#[tokio::test]
async fn an_upload_after_a_restore_replaces_it() {
    let stage = Stage::with_old_in_the_trash().await;
    let Some(race) = stage
        .while_stopped(("openat", &stage.file()), Restore, Put(B))
        .await
    else {
        return;
    };

    // When the upload looked, there was nothing; it has looked again.
    let back = End::Restored(Restored::Back);
    race.assert([back, Answered(204)], [None, Some(OLD), Some(B)]);
    assert!(stage.trash().is_empty());
}

#[tokio::test]
async fn an_upload_in_the_middle_of_a_restore_stays() {
    let stage = Stage::with_old_in_the_trash().await;
    let before = stage.trashed().await;
    if !can_trace(&stage.process, "an upload in the middle of a restore") {
        return;
    }
    // The restore has seen that nothing is in its place, and has given the file its new time.
    let gate = stage.trash_files().remove(0);
    let lock = lock(&gate);
    let mut restore = stage.second(Restore).await;
    restore.works_up_to_the_lock(inode(&lock)).await;
    let folder = stage.site().folder();
    let let_go = || drop(lock);
    let strace = restore.stops_after(("fsync", &gate), folder, let_go).await;
    let upload = stage.first(Put(A)).await;

    let seen = stage.seen_now().await;
    let race = stage.one_after_the_other(seen, None, upload, restore).await;

    let newer = End::Restored(Restored::Newer);
    race.assert([Answered(201), newer], [None, Some(A), Some(A)]);
    assert_eq!(stage.trash(), [OLD]);
    assert_eq!(stage.trashed().await, before, "also its time");
    drop(strace);
}

#[tokio::test]
async fn what_is_restored_first_is_not_erased() {
    let (race, stage) = race_for_the_trash(Restore, Empty).await;

    let back = End::Restored(Restored::Back);
    race.assert([back, Erased(0)], [None, Some(OLD), Some(OLD)]);
    assert!(stage.trash().is_empty());
}

#[tokio::test]
async fn what_is_erased_first_is_not_restored() {
    let (race, stage) = race_for_the_trash(Empty, Restore).await;

    let gone = End::Restored(Restored::Gone);
    race.assert([Erased(1), gone], [None, None, None]);
    assert!(stage.trash().is_empty());
}

#[tokio::test]
async fn of_two_restores_of_one_version_the_first_one_restores() {
    let (race, stage) = race_for_the_trash(Restore, Restore).await;

    let ends = [Restored::Back, Restored::Gone].map(End::Restored);
    race.assert(ends, [None, Some(OLD), Some(OLD)]);
    assert!(stage.trash().is_empty());
}

#[tokio::test]
async fn of_two_first_uploads_the_last_one_wins_and_replaces() {
    let stage = Stage::set().await;
    let Some(race) = stage
        .while_stopped(("openat", &stage.file()), Put(A), Put(B))
        .await
    else {
        return;
    };

    race.assert([Answered(201), Answered(204)], [None, Some(A), Some(B)]);
    assert!(stage.trash().is_empty());
}

#[tokio::test]
async fn whoever_has_opened_a_backup_reads_it_whole_whatever_becomes_of_it() {
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
        let Some(race) = stage
            .while_stopped(("openat", &stage.file()), act, Get)
            .await
        else {
            return;
        };

        race.assert([end, Read(OLD.to_owned())], [Some(OLD), left, left]);
        assert_eq!(stage.trash(), trash);
    }
}
