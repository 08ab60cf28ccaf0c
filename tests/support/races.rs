//! Two operations on one backup at the same time, on real files and over real TLS, in a chosen
//! order.
//!
//! Both contenders begin, and wait for the lock on the old file, which the test holds as another
//! program would. The one that has to come second is in a process of its own: a signal stops it,
//! and it no longer waits. When it goes on, the first is done, and it asks for the lock of a file
//! that has lost its name.

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
use threema_safe_server::store::{FileStore, Restored, Store, TrashKind, Trashed};
use tokio::task::yield_now;

use crate::support::commands::command;
use crate::support::process::{ServerProcess, waiters_for_the_lock_of};
use crate::support::wire::{Client, Protocol, soon};
use crate::support::{ID, Listening, Site, TestServer, backup_path, names, now};

pub(crate) const OLD: &str = "the old backup, of which every byte counts and no byte may be lost";
pub(crate) const A: &str = "the first of two, and it is shorter than the old one";
pub(crate) const B: &str =
    "the second of two, and this one is longer than the old one and than the first";
/// Less than half of the old one.
pub(crate) const WRONG: &str = "much smaller than the old one";
/// Less than half of that.
pub(crate) const WORSE: &str = "and smaller";
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Older than any backup that is kept.
pub(crate) const EXPIRED: Duration = Duration::from_secs(200 * 24 * 60 * 60);

/// What a contender does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
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
pub(crate) enum End {
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

pub(crate) use Act::{Delete, Empty, Get, Prune, Put, Restore};

pub(crate) use End::{Answered, Erased, Pruned, Read};

/// An operation under way, in this process or in another.
pub(crate) struct Contender<'a> {
    pub(crate) process: Pid,
    pub(crate) ends: Pin<Box<dyn Future<Output = End> + 'a>>,
}

impl Contender<'_> {
    /// Works until something has happened; it must not end before.
    pub(crate) async fn works_until(&mut self, event: impl Future<Output = ()>) {
        tokio::select! {
            end = &mut self.ends => panic!("it did not wait: {end:?}"),
            () = soon(event) => {}
        }
    }

    pub(crate) fn is_waiting_for(&self, inode: u64) -> bool {
        let process = self.process.as_raw_nonzero().get().cast_unsigned();
        waiters_for_the_lock_of(inode).contains(&process)
    }

    /// Works until it waits for the lock on the file of this inode.
    pub(crate) async fn works_up_to_the_lock(&mut self, inode: u64) {
        let process = self.process.as_raw_nonzero().get().cast_unsigned();
        self.works_until(async {
            while !waiters_for_the_lock_of(inode).contains(&process) {
                yield_now().await;
            }
        })
        .await;
    }

    /// Stops while it waits for a lock, and waits for it no longer.
    pub(crate) async fn stops_waiting(&self, inode: u64) {
        kill_process(self.process, Signal::STOP).unwrap();
        soon(async {
            while self.is_waiting_for(inode) {
                yield_now().await;
            }
        })
        .await;
    }

    /// Goes on to its end.
    pub(crate) async fn ends(&mut self) -> End {
        kill_process(self.process, Signal::CONT).unwrap();
        soon(&mut self.ends).await
    }
}

/// A command at work beside the servers; killed when dropped.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(site: &Site, arguments: &[&str]) -> Self {
        let mut command = command(site, arguments);
        let command = command.arg("--json").stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// What it prints, when it has ended.
    pub(crate) async fn report(mut self) -> Value {
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
pub(crate) struct Stage {
    pub(crate) process: ServerProcess,
    pub(crate) beside: TestServer,
    pub(crate) store: FileStore,
}

impl Stage {
    pub(crate) async fn set() -> Self {
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
    pub(crate) async fn with_old(age: Duration) -> Self {
        let stage = Self::set().await;
        stage.site().place_backup(ID, OLD.as_bytes(), now() - age);
        stage
    }

    /// There is a backup in the trash, which was uploaded a day before it was removed.
    pub(crate) async fn with_old_in_the_trash() -> Self {
        let stage = Self::with_old(DAY).await;
        let removed = stage.store.remove(ID.parse().unwrap(), now()).await;
        assert!(removed.unwrap());
        stage
    }

    /// An upload that looks wrong has replaced a backup, which is in the trash.
    pub(crate) async fn with_old_replaced() -> Self {
        let stage = Self::set().await;
        let mut phone = stage.beside.phone(Protocol::Http1).await;
        for (body, status) in [(OLD, 201), (WRONG, 204)] {
            let put = phone.send("PUT", &backup_path(), &[], body).await;
            assert_eq!(put.status, status);
        }
        assert_eq!(stage.trash(), [OLD]);
        stage
    }

    pub(crate) fn site(&self) -> &Site {
        self.process.site()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.site().backup_file(ID)
    }

    pub(crate) fn trash_files(&self) -> Vec<PathBuf> {
        let trash = self.site().data().join("trash");
        names(&trash).iter().map(|name| trash.join(name)).collect()
    }

    /// The versions in the trash, in the order in which they were removed.
    pub(crate) fn trash(&self) -> Vec<String> {
        let files = self.trash_files();
        files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect()
    }

    pub(crate) async fn trashed(&self) -> Trashed {
        let mut trash = self.store.list_trash();
        let trashed = trash.next().await.unwrap().unwrap();
        assert!(trash.next().await.is_none());
        trashed
    }

    /// A contender in this process, but for `prune`.
    pub(crate) async fn first(&self, act: Act) -> Contender<'_> {
        let phone = self.beside.phone(Protocol::Http2).await;
        let trashed = if [Restore, Empty].contains(&act) {
            Some(self.trashed().await)
        } else {
            None
        };
        match (act, trashed) {
            (Restore, Some(trashed)) => self.in_this_process(async move {
                let restored = match trashed.kind {
                    TrashKind::Removed => self.store.restore(trashed, now()).await,
                    TrashKind::Replaced | TrashKind::RolledBack => {
                        self.store.roll_back(trashed, now(), false).await
                    }
                };
                End::Restored(restored.unwrap())
            }),
            (Empty, Some(trashed)) => self.in_this_process(async move {
                Erased(self.store.erase_trashed(trashed).await.unwrap().into())
            }),
            (Prune, _) => self.command(act),
            _ => self.in_this_process(request(phone, act)),
        }
    }

    /// A contender in a process that can be stopped.
    pub(crate) async fn second(&self, act: Act) -> Contender<'_> {
        if [Prune, Restore, Empty].contains(&act) {
            return self.command(act);
        }
        let phone = self.process.phone(Protocol::Http1).await;
        Contender {
            process: self.process.pid(),
            ends: Box::pin(request(phone, act)),
        }
    }

    pub(crate) fn in_this_process<'a>(
        &self,
        ends: impl Future<Output = End> + 'a,
    ) -> Contender<'a> {
        Contender {
            process: rustix::process::getpid(),
            ends: Box::pin(ends),
        }
    }

    pub(crate) fn command(&self, act: Act) -> Contender<'_> {
        let arguments: &[_] = match act {
            Prune => &["prune", "--force"],
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
    pub(crate) async fn read(&self, phone: &mut Client) -> Option<String> {
        let read = phone.ask("GET", &backup_path(), &[]).await;
        match read.status {
            200 => Some(read.text().to_owned()),
            404 => None,
            _ => panic!("{read:?}"),
        }
    }

    /// The backup as a phone gets it that comes now.
    pub(crate) async fn seen_now(&self) -> Option<String> {
        let mut phone = self.beside.phone(Protocol::Http1).await;
        self.read(&mut phone).await
    }

    /// Both begin and wait for the lock on this file; then `first` runs to its end, and after it
    /// `second`.
    pub(crate) async fn in_order(&self, gate: &Path, first: Act, second: Act) -> Race {
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

    pub(crate) async fn one_after_the_other(
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
        // A client that reads all the time sees the same versions in the same order, or fewer.
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
pub(crate) struct Race {
    pub(crate) ends: [End; 2],
    pub(crate) seen: [Option<String>; 3],
}

impl Race {
    #[track_caller]
    pub(crate) fn assert(&self, ends: [End; 2], seen: [Option<&str>; 3]) {
        assert_eq!(self.ends, ends);
        let all: Vec<_> = self.seen.iter().map(Option::as_deref).collect();
        assert_eq!(all, seen);
    }
}

/// Holds the lock on a file.
pub(crate) fn lock(path: &Path) -> File {
    let file = File::open(path).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}

pub(crate) fn inode(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}

pub(crate) async fn request(mut phone: Client, act: Act) -> End {
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
