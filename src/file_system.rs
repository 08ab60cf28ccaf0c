//! System calls that some file systems lack, and what replaces them.
//!
//! Network, FUSE and FAT file systems lack calls that a local disk has, and a sandbox may deny
//! them. [`Call::is_lacking`] is the one place that tells such an error from a failure; each
//! function here then does the next best thing, and returns the call that is lacking, so that the
//! storage can log once what it does without (docs/DURABILITY.md).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use crate::lock::lock as lock_mutex;

/// An error number of the kernel (`ENOTSUPP`) that is not meant for programs. NFS and some drivers
/// return it where they should return EOPNOTSUPP.
const KERNEL_NOT_SUPPORTED: i32 = 524;

/// A call that a file system may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `flock`.
    Lock,
    /// `renameat2` with `RENAME_NOREPLACE`.
    RenameToNew,
    /// `link`.
    Link,
    /// `fsync` of a directory.
    SyncDirectory,
    /// `utimensat`.
    SetTime,
    /// `fchown`.
    SetOwner,
}

/// The call that the file system lacks, if something else was done in its place.
pub type Replaced = Option<Call>;

impl Call {
    /// True if `error` means that the file system lacks this call, and not that the call failed.
    ///
    /// EINVAL, EPERM, EACCES and EBADF have other meanings elsewhere. They are accepted for a call
    /// only if they cannot have another meaning here, or if what replaces the call then fails
    /// itself.
    #[must_use]
    pub fn is_lacking(self, error: &io::Error) -> bool {
        const BY_ANY: [Errno; 3] = [Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL];
        let by_this: &[Errno] = match self {
            // ENOLCK: no lock service. EBADF: NFS locks only files that are open for writing.
            // EPERM: a sandbox denies the call.
            Self::Lock => &[Errno::NOLCK, Errno::BADF, Errno::PERM],
            // EPERM: a sandbox. What replaces the call fails if renaming is not permitted at all.
            Self::RenameToNew => &[Errno::PERM],
            // EPERM: FAT, or a file of another user. EXDEV: AFS, between directories.
            Self::Link => &[Errno::PERM, Errno::ACCESS, Errno::MLINK, Errno::XDEV],
            // EBADF: a descriptor that is open for reading only.
            Self::SyncDirectory => &[Errno::BADF],
            // The owner alone may set a time or a group, root alone an owner.
            Self::SetTime | Self::SetOwner => &[Errno::PERM, Errno::ACCESS],
        };
        let Some(number) = error.raw_os_error() else {
            return false;
        };
        let is = |errno: &Errno| errno.raw_os_error() == number;
        number == KERNEL_NOT_SUPPORTED || BY_ANY.iter().any(is) || by_this.iter().any(is)
    }

    /// Turns the error of a file system that lacks this call into the call.
    fn replaced(self, result: io::Result<()>) -> io::Result<Replaced> {
        match result {
            Ok(()) => Ok(None),
            Err(error) if self.is_lacking(&error) => Ok(Some(self)),
            Err(error) => Err(error),
        }
    }

    /// The call and the consequence of its absence, for an operator.
    #[must_use]
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Lock => {
                "flock: two programs that change backups at the same time are not kept apart; stop the server \
                 before `prune` and `trash restore`, and never run two servers"
            }
            Self::RenameToNew => "renameat2: replaced by link and unlink",
            Self::Link => {
                "renameat2 and link: a file that another program creates at the same moment may be replaced"
            }
            Self::SyncDirectory => {
                "fsync of a directory: replaced by syncfs; whether a power cut undoes the last uploads depends on \
                 the file server"
            }
            Self::SetTime => {
                "utimensat: uploads have the time of the file system's clock, and a restore from the trash copies the backup"
            }
            Self::SetOwner => "fchown: files that root writes belong to root",
        }
    }
}

/// The exclusive lock of a file, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    /// The locked file.
    file: File,
    /// Held where the file system has no locks.
    in_process: Option<InProcess>,
}

impl Lock {
    /// The locked file, open for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// [`Call::Lock`] if only this process excludes its own threads.
    #[must_use]
    pub fn replaced(&self) -> Replaced {
        self.in_process.as_ref().map(|_| Call::Lock)
    }
}

/// Waits for the exclusive lock of `file`, which was opened for reading at `path`. Where the file
/// system has no locks, the lock excludes the other threads of this process alone. The name may
/// lead to another file afterwards.
///
/// # Errors
/// When locking fails for another reason.
pub fn lock(file: File, path: &Path) -> io::Result<Lock> {
    let (file, replaced) = flock_or_reopen(file, path, FlockOperation::LockExclusive)?;
    let in_process = match replaced {
        None => None,
        Some(_) => Some(InProcess::wait(&file)?),
    };
    Ok(Lock { file, in_process })
}

/// As [`lock`], but does not wait.
///
/// # Errors
/// `WouldBlock` when another process or thread has the lock; as [`lock`].
pub fn try_lock(file: File, path: &Path) -> io::Result<Lock> {
    let (file, replaced) = flock_or_reopen(file, path, FlockOperation::NonBlockingLockExclusive)?;
    let in_process = match replaced {
        None => None,
        Some(_) => Some(InProcess::try_now(&file)?),
    };
    Ok(Lock { file, in_process })
}

/// Does `work` while an open file is locked; the file stays open.
///
/// # Errors
/// When the lock fails.
pub fn while_locked<T>(file: &File, work: impl FnOnce() -> T) -> io::Result<T> {
    let locked = flock_uninterrupted(file, FlockOperation::LockExclusive);
    match Call::Lock.replaced(locked)? {
        None => {
            let done = work();
            // Closing the file would unlock it too.
            let _ = flock(file, FlockOperation::Unlock);
            Ok(done)
        }
        Some(_) => {
            let _locked = InProcess::wait(file)?;
            Ok(work())
        }
    }
}

/// Locks the file; if that needs a descriptor open for writing, the file that `path` leads to now.
fn flock_or_reopen(
    file: File,
    path: &Path,
    operation: FlockOperation,
) -> io::Result<(File, Replaced)> {
    match flock_uninterrupted(&file, operation) {
        Err(error) if error.raw_os_error() == Some(Errno::BADF.raw_os_error()) => {}
        other => return Ok((file, Call::Lock.replaced(other)?)),
    }
    // NFSv4. Read-only files and directories cannot be locked there.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.custom_flags(flags.cast_signed()).open(path) {
        Ok(writable) => {
            let replaced = Call::Lock.replaced(flock_uninterrupted(&writable, operation))?;
            Ok((writable, replaced))
        }
        Err(_) => Ok((file, Some(Call::Lock))),
    }
}

fn flock_uninterrupted(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Device and inode number of a file.
type Identity = (u64, u64);

/// The files that are locked within this process.
static LOCKED: Mutex<BTreeSet<Identity>> = Mutex::new(BTreeSet::new());
/// Signalled when one of them is unlocked.
static UNLOCKED: Condvar = Condvar::new();

/// The lock of a file within this process. As `flock`, it belongs to the file and not to its name.
#[derive(Debug)]
struct InProcess(Identity);

impl InProcess {
    fn wait(file: &File) -> io::Result<Self> {
        let identity = identity(file)?;
        let mut locked = lock_mutex(&LOCKED);
        while !locked.insert(identity) {
            locked = UNLOCKED
                .wait(locked)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Self(identity))
    }

    fn try_now(file: &File) -> io::Result<Self> {
        let identity = identity(file)?;
        if lock_mutex(&LOCKED).insert(identity) {
            Ok(Self(identity))
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        lock_mutex(&LOCKED).remove(&self.0);
        UNLOCKED.notify_all();
    }
}

fn identity(file: &File) -> io::Result<Identity> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino()))
}

/// Renames `from` to `to` unless `to` exists, atomically: with `renameat2`, else with `link` and
/// `unlink`. Where the file system lacks both, the function checks for `to` first and then renames,
/// which excludes the other threads of this process alone.
///
/// # Errors
/// `AlreadyExists` when `to` exists, and every other error of `rename(2)` and `unlink(2)`. If
/// `unlink` fails, the file has both names.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<Replaced> {
    let renamed = renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    match Call::RenameToNew.replaced(renamed.map_err(io::Error::from))? {
        None => Ok(None),
        Some(_) => rename_by_link(from, to),
    }
}

/// Returns [`Call::RenameToNew`], or [`Call::Link`] where the file system lacks both.
fn rename_by_link(from: &Path, to: &Path) -> io::Result<Replaced> {
    /// Held between the check and the rename.
    static CHECKED: Mutex<()> = Mutex::new(());
    let lacking = Call::Link.replaced(fs::hard_link(from, to))?;
    if lacking.is_some() {
        let _checked = lock_mutex(&CHECKED);
        if fs::symlink_metadata(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        return fs::rename(from, to).map(|()| lacking);
    }
    // The new name is not removed if this fails: another process may have replaced its file.
    match fs::remove_file(from) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(Some(Call::RenameToNew)),
    }
}

/// Flushes the names in an open directory to disk.
///
/// # Errors
/// When that fails.
pub fn sync_directory(directory: &File) -> io::Result<Replaced> {
    let lacking = Call::SyncDirectory.replaced(directory.sync_all())?;
    if lacking.is_some() {
        // Everything that this file system has not written, and with it the names. A file system
        // that lacks this too leaves the names to its server.
        let synced = rustix::fs::syncfs(directory).map_err(io::Error::from);
        Call::SyncDirectory.replaced(synced)?;
    }
    Ok(lacking)
}

/// Sets the modification time of a file; if the call is lacking, it has not changed.
///
/// # Errors
/// When that fails for another reason than a file system that cannot, or a file of another user.
pub fn set_modified(file: &File, time: SystemTime) -> io::Result<Replaced> {
    Call::SetTime.replaced(file.set_modified(time))
}

/// Sets owner and group of a file; if the call is lacking, they have not changed.
///
/// # Errors
/// When that fails for another reason than a lacking call or a missing right.
pub fn set_owner(file: &File, owner: u32, group: u32) -> io::Result<Replaced> {
    let changed = std::os::unix::fs::fchown(file, Some(owner), Some(group));
    Call::SetOwner.replaced(changed)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const CALLS: [Call; 6] = [
        Call::Lock,
        Call::RenameToNew,
        Call::Link,
        Call::SyncDirectory,
        Call::SetTime,
        Call::SetOwner,
    ];

    fn lacking(errno: Errno) -> Vec<Call> {
        let error = io::Error::from(errno);
        let mut calls = CALLS.to_vec();
        calls.retain(|call| call.is_lacking(&error));
        calls
    }

    #[test]
    fn not_supported_is_understood_the_same_way_at_every_call() {
        use Call::{Link, Lock, RenameToNew, SetOwner, SetTime, SyncDirectory};
        for errno in [
            Errno::NOSYS,
            Errno::OPNOTSUPP,
            Errno::NOTSUP,
            Errno::INVAL,
            Errno::from_raw_os_error(KERNEL_NOT_SUPPORTED),
        ] {
            assert_eq!(lacking(errno), CALLS, "{errno}");
        }
        assert_eq!(lacking(Errno::NOLCK), [Lock]);
        assert_eq!(lacking(Errno::BADF), [Lock, SyncDirectory]);
        assert_eq!(
            lacking(Errno::PERM),
            [Lock, RenameToNew, Link, SetTime, SetOwner]
        );
        assert_eq!(lacking(Errno::ACCESS), [Link, SetTime, SetOwner]);
        for failure in [
            Errno::IO,
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::ROFS,
            Errno::NOENT,
            Errno::EXIST,
            Errno::STALE,
            Errno::WOULDBLOCK,
            Errno::INTR,
            Errno::NOMEM,
        ] {
            assert_eq!(lacking(failure), [], "{failure}");
        }
    }

    #[test]
    fn a_lock_within_the_process_belongs_to_the_file_and_ends_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let [file, other, link] = ["file", "other", "link"].map(|name| folder.path().join(name));
        for path in [&file, &other] {
            crate::durable::replace(path, b"").unwrap();
        }
        fs::hard_link(&file, &link).unwrap();
        let open = |path| File::open(path).unwrap();

        let held = InProcess::wait(&open(&file)).unwrap();
        let refused = InProcess::try_now(&open(&link)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(InProcess::try_now(&open(&other)).unwrap());

        let (locked, is_locked) = channel();
        let waiting = open(&link);
        let thread = std::thread::spawn(move || {
            let _held = InProcess::wait(&waiting).unwrap();
            locked.send(()).unwrap();
        });
        assert!(is_locked.try_recv().is_err());
        drop(held);
        is_locked.recv().unwrap();
        thread.join().unwrap();
        drop(InProcess::try_now(&open(&file)).unwrap());
    }

    #[test]
    fn a_file_that_has_to_be_open_for_writing_is_opened_again_and_really_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        crate::durable::replace(&path, b"").unwrap();
        // EBADF, as NFS answers for a descriptor that is open for reading.
        let unlockable = |path: &Path| {
            let mut options = OpenOptions::new();
            let options = options.read(true);
            let flags = OFlags::PATH.bits().cast_signed();
            options.custom_flags(flags).open(path).unwrap()
        };
        let now = FlockOperation::NonBlockingLockExclusive;

        let held = lock(unlockable(&path), &path).unwrap();
        assert_eq!(held.replaced(), None);
        let other = File::open(&path).unwrap();
        assert_eq!(flock(&other, now), Err(Errno::WOULDBLOCK));
        let refused = try_lock(unlockable(&path), &path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        flock(&other, now).unwrap();

        // A directory cannot be opened for writing.
        let held = lock(unlockable(folder.path()), folder.path()).unwrap();
        assert_eq!(held.replaced(), Some(Call::Lock));
        let refused = try_lock(unlockable(folder.path()), folder.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn renaming_by_link_never_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        crate::durable::replace(&from, b"1").unwrap();
        let lacking = rename_by_link(&from, &to).unwrap();
        assert_eq!(lacking, Some(Call::RenameToNew));
        assert!(!from.exists());

        crate::durable::replace(&from, b"2").unwrap();
        let refused = rename_by_link(&from, &to).unwrap_err();

        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&from).unwrap(), b"2");
        assert_eq!(fs::read(&to).unwrap(), b"1");
    }
}
