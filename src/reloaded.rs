//! Reloadable values: read from files, and read again when the files are replaced.
//!
//! Callers get the value from memory, without a system call. The files are checked on a blocking
//! thread: every [`INTERVAL`], and on demand. If they cannot be used, the last good value stays in
//! force, and the error is reported once for each version of the files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::error_chain::with_causes;
use crate::lock::lock;

/// Time between two checks of the files: a change is in force after this time at the latest.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Files, and how a value is read from them.
pub trait FileSource: Send + Sync + 'static {
    /// The value.
    type Value: Send + Sync + 'static;
    /// Why the value cannot be read.
    type Error: std::error::Error;

    /// The files that the value is read from.
    fn files(&self) -> Vec<&Path>;

    /// Reads the value. Blocks.
    ///
    /// # Errors
    /// When the files cannot be used.
    fn read(&self) -> Result<Self::Value, Self::Error>;

    /// Carries over what was learned about `old` and is still true of `new`: once before `new` is in
    /// force, and once after.
    fn carry_over(&self, _old: &Self::Value, _new: &Self::Value) {}

    /// Logs that `new` has replaced `old`.
    fn reloaded(&self, old: &Self::Value, new: &Self::Value);

    /// Logs why the files cannot be used.
    fn failed(&self, error: &Self::Error);
}

/// A value and the files that it is reloaded from.
pub struct Reloaded<S: FileSource> {
    source: S,
    current: ArcSwap<S::Value>,
    /// Why the current files cannot be used.
    problem: ArcSwapOption<String>,
    /// Locked while the files are read: one reload at a time.
    last_read: Mutex<LastRead>,
    done: AtomicU64,
    failed: AtomicU64,
    /// Locked during a check on a blocking thread: one at a time.
    checking: Arc<tokio::sync::Mutex<()>>,
    /// The number of checks that have started.
    started: AtomicU64,
}

/// The versions of the files that were read last.
#[derive(Default)]
struct LastRead {
    /// The version of the value in force; `None` before the first.
    good: Option<FileVersions>,
    /// A later version that cannot be used.
    bad: Option<FileVersions>,
}

/// The state of several files at one time; `None` for each that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileVersions(Vec<Option<FileVersion>>);

/// What distinguishes one state of a file from the next. A file that is replaced by a rename has
/// another inode; a symbolic link is followed. Owner and mode count, as files with secrets are
/// refused where others may read them. So does the time of the last change of either, which no
/// program can set: a copy that keeps length and modification time is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    owner: (u32, u32),
    mode: u32,
}

impl FileVersions {
    /// The current state of the files. Callers take it before they read the files, so that a change
    /// in between is detected by the next check.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        Self(files.into_iter().map(FileVersion::of).collect())
    }

    /// True if none of the files exists.
    #[must_use]
    pub fn are_missing(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl FileVersion {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
            owner: (found.uid(), found.gid()),
            mode: found.mode(),
        })
    }
}

impl<S: FileSource> Reloaded<S> {
    /// Reads the files.
    ///
    /// # Errors
    /// As [`FileSource::read`].
    pub fn open(source: S) -> Result<Self, S::Error> {
        let versions = FileVersions::of(source.files());
        let value = source.read()?;
        Ok(Self::with(source, value, Some(versions)))
    }

    /// Creates a value that stays in force until one of the files exists.
    pub fn without_files(source: S, value: S::Value) -> Self {
        Self::with(source, value, None)
    }

    /// Creates a value that the caller has read from these versions of the files.
    pub fn already_read(source: S, value: S::Value, versions: FileVersions) -> Self {
        Self::with(source, value, Some(versions))
    }

    fn with(source: S, value: S::Value, good: Option<FileVersions>) -> Self {
        Self {
            source,
            current: ArcSwap::from_pointee(value),
            problem: ArcSwapOption::empty(),
            last_read: Mutex::new(LastRead { good, bad: None }),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            checking: Arc::default(),
            started: AtomicU64::new(0),
        }
    }

    /// The value in force. Makes no system call.
    #[must_use]
    pub fn current(&self) -> Arc<S::Value> {
        self.current.load_full()
    }

    /// Why the files could not be used at the last check; `None` if they could.
    #[must_use]
    pub fn problem(&self) -> Option<Arc<String>> {
        self.problem.load_full()
    }

    /// Reloads since the start: those that succeeded, and those that failed.
    #[must_use]
    pub fn reloads(&self) -> [u64; 2] {
        [&self.done, &self.failed].map(|count| count.load(Ordering::Relaxed))
    }

    /// Reads the files if they were replaced. Blocks.
    pub fn reload_if_replaced(&self) {
        self.load(false);
    }

    /// Reads the files, whether they were replaced or not. Blocks.
    pub fn reread(&self) {
        self.load(true);
    }

    /// True if the files are not the versions that were read last. Blocks.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        let last_read = lock(&self.last_read);
        !last_read.is_up_to_date(&FileVersions::of(self.source.files()))
    }

    fn load(&self, always: bool) {
        let mut last_read = lock(&self.last_read);
        let versions = FileVersions::of(self.source.files());
        if last_read.awaits_files(&versions) {
            // There is no problem with files that are gone.
            last_read.bad = None;
            self.problem.store(None);
            return;
        }
        if !always && last_read.is_up_to_date(&versions) {
            return;
        }
        match self.source.read() {
            Ok(value) => {
                *last_read = LastRead {
                    good: Some(versions),
                    bad: None,
                };
                self.problem.store(None);
                self.done.fetch_add(1, Ordering::Relaxed);
                let value = Arc::new(value);
                self.source.carry_over(&self.current(), &value);
                let old = self.current.swap(Arc::clone(&value));
                self.source.carry_over(&old, &value);
                self.source.reloaded(&old, &value);
            }
            Err(error) => {
                last_read.bad = Some(versions);
                self.problem.store(Some(Arc::new(with_causes(&error))));
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.source.failed(&error);
            }
        }
    }

    /// As [`Reloaded::reload_if_replaced`], on a blocking thread. Callers that arrive during a
    /// check share the next one, so that a file system that hangs blocks one thread only. Changes
    /// made before the call are detected: a check that started before the call does not count.
    pub async fn refresh(self: &Arc<Self>) {
        let before = self.started.load(Ordering::SeqCst);
        let checking = Arc::clone(&self.checking).lock_owned().await;
        if self.started.load(Ordering::SeqCst) != before {
            return;
        }
        self.started.fetch_add(1, Ordering::SeqCst);
        let this = Arc::clone(self);
        let check = spawn_blocking(move || {
            // Released when the check ends, not when the caller is cancelled.
            let _checking = checking;
            this.reload_if_replaced();
        });
        // The panic hook has logged a panic; the last good value stays in force.
        drop(check.await);
    }

    /// Refreshes the value every [`INTERVAL`] until this future is dropped.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut checks = interval(INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            checks.tick().await;
            self.refresh().await;
        }
    }
}

impl LastRead {
    /// Whether these versions were read last, with success or without. Good ones that come back
    /// after bad ones are read again: the problem is over, and that is reported.
    fn is_up_to_date(&self, versions: &FileVersions) -> bool {
        let last = self.bad.as_ref().or(self.good.as_ref());
        self.awaits_files(versions) || last == Some(versions)
    }

    /// True if no version has been good yet, and there are no files now.
    fn awaits_files(&self, versions: &FileVersions) -> bool {
        self.good.is_none() && versions.are_missing()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// A number in a file.
    struct Number {
        path: PathBuf,
        reads: AtomicU64,
        reported: AtomicU64,
        gate: Option<(SyncSender<()>, Mutex<Receiver<()>>)>,
        is_gated: AtomicBool,
    }

    impl FileSource for Number {
        type Value = u32;
        type Error = io::Error;

        fn files(&self) -> Vec<&Path> {
            vec![&self.path]
        }

        fn read(&self) -> io::Result<u32> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let text = fs::read_to_string(&self.path)?;
            if let Some((entered, leave)) = &self.gate
                && self.is_gated.swap(false, Ordering::Relaxed)
            {
                entered.send(()).unwrap();
                leave.lock().unwrap().recv().unwrap();
            }
            text.parse().map_err(io::Error::other)
        }

        fn reloaded(&self, _: &u32, _: &u32) {}

        fn failed(&self, _: &io::Error) {
            self.reported.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn number(folder: &Path) -> Number {
        Number {
            path: folder.join("number"),
            reads: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            gate: None,
            is_gated: AtomicBool::new(false),
        }
    }

    fn write(folder: &Path, text: &str) {
        crate::durable::replace(&folder.join("number"), text.as_bytes()).unwrap();
    }

    #[test]
    fn the_value_is_read_only_after_the_file_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "1");
        let reloaded = Reloaded::open(number(folder.path())).unwrap();
        for _ in 0..3 {
            reloaded.reload_if_replaced();
            assert_eq!(*reloaded.current(), 1);
        }
        assert_eq!(reloaded.source.reads.load(Ordering::Relaxed), 1);

        write(folder.path(), "2");
        assert!(reloaded.is_replaced());
        assert_eq!(*reloaded.current(), 1);
        reloaded.reload_if_replaced();
        assert_eq!(*reloaded.current(), 2);
        assert!(!reloaded.is_replaced());
        assert_eq!(reloaded.reloads(), [1, 0]);
    }

    #[test]
    fn a_change_that_keeps_length_and_modification_time_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "1");
        let reloaded = Reloaded::open(number(folder.path())).unwrap();
        let file = fs::File::options()
            .write(true)
            .open(folder.path().join("number"))
            .unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        // The clock of the file system advances in steps.
        loop {
            std::os::unix::fs::FileExt::write_all_at(&file, b"2", 0).unwrap();
            file.set_modified(modified).unwrap();
            if reloaded.is_replaced() {
                break;
            }
        }

        reloaded.reload_if_replaced();

        assert_eq!(*reloaded.current(), 2);
    }

    #[test]
    fn a_bad_file_is_reported_once_and_the_last_good_value_stays() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "1");
        let reloaded = Reloaded::open(number(folder.path())).unwrap();
        for (failures, bad) in [Some("x"), None, Some("y")].into_iter().enumerate() {
            match bad {
                Some(text) => write(folder.path(), text),
                None => fs::remove_file(folder.path().join("number")).unwrap(),
            }
            for _ in 0..3 {
                reloaded.reload_if_replaced();
                assert_eq!(*reloaded.current(), 1);
                assert!(reloaded.problem().is_some());
            }
            let failures = failures as u64 + 1;
            assert_eq!(reloaded.reloads(), [0, failures]);
            assert_eq!(reloaded.source.reported.load(Ordering::Relaxed), failures);
        }

        write(folder.path(), "2");
        reloaded.reload_if_replaced();
        assert_eq!((*reloaded.current(), reloaded.problem()), (2, None));
    }

    #[test]
    fn restoring_the_good_file_reloads_it_and_clears_the_problem() {
        let folder = tempfile::tempdir().unwrap();
        let [file, other] = ["number", "other"].map(|name| folder.path().join(name));
        write(folder.path(), "1");
        let reloaded = Reloaded::open(number(folder.path())).unwrap();
        fs::rename(&file, &other).unwrap();
        reloaded.reload_if_replaced();
        assert!(reloaded.problem().is_some());

        fs::rename(&other, &file).unwrap();
        assert!(reloaded.is_replaced());
        reloaded.reload_if_replaced();

        assert_eq!(reloaded.problem(), None);
        assert_eq!(reloaded.reloads(), [1, 1]);
        assert!(!reloaded.is_replaced());
    }

    #[test]
    fn a_first_value_stays_until_there_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let reloaded = Reloaded::without_files(number(folder.path()), 7);
        reloaded.reload_if_replaced();
        reloaded.reread();
        assert_eq!(reloaded.reloads(), [0, 0]);
        assert_eq!((*reloaded.current(), reloaded.problem()), (7, None));

        write(folder.path(), "x");
        reloaded.reload_if_replaced();
        assert!(reloaded.problem().is_some());
        fs::remove_file(folder.path().join("number")).unwrap();
        reloaded.reload_if_replaced();
        assert_eq!((*reloaded.current(), reloaded.problem()), (7, None));
        write(folder.path(), "8");
        reloaded.reload_if_replaced();
        assert_eq!(*reloaded.current(), 8);
    }

    #[tokio::test]
    async fn a_refresh_detects_changes_made_during_another_refresh() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "1");
        let (entered, is_entered) = sync_channel(0);
        let (leave, may_leave) = sync_channel(0);
        let mut source = number(folder.path());
        source.gate = Some((entered, Mutex::new(may_leave)));
        let reloaded = Arc::new(Reloaded::open(source).unwrap());
        reloaded.source.is_gated.store(true, Ordering::Relaxed);
        write(folder.path(), "2");
        let refresh = |reloaded: &Arc<Reloaded<Number>>| {
            let reloaded = Arc::clone(reloaded);
            tokio::spawn(async move { reloaded.refresh().await })
        };
        let first = refresh(&reloaded);
        spawn_blocking(move || is_entered.recv().unwrap())
            .await
            .unwrap();

        // The first check has read 2 and is blocked.
        write(folder.path(), "3");
        let later: Vec<_> = (0..20).map(|_| refresh(&reloaded)).collect();
        tokio::task::yield_now().await;
        spawn_blocking(move || leave.send(()).unwrap())
            .await
            .unwrap();
        first.await.unwrap();
        for refresh in later {
            refresh.await.unwrap();
        }

        assert_eq!(*reloaded.current(), 3);
        assert_eq!(reloaded.started.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_in_force_after_the_interval() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "1");
        let reloaded = Arc::new(Reloaded::open(number(folder.path())).unwrap());
        let fresh = tokio::spawn(Arc::clone(&reloaded).keep_fresh());
        tokio::time::sleep(INTERVAL / 2).await;
        write(folder.path(), "2");

        // The paused clock advances while all tasks wait.
        tokio::time::sleep(INTERVAL).await;

        assert_eq!(*reloaded.current(), 2);
        assert_eq!(reloaded.started.load(Ordering::Relaxed), 2);
        fresh.abort();
    }
}
