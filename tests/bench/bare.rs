//! Baseline of the store benchmark: the store's system calls alone.

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, StatxFlags, Timespec, Timestamps,
    XattrFlags, flock, fsetxattr, fstat, fsync, ftruncate, futimens, open, rename, renameat_with,
    statx,
};
use rustix::io::pwrite;

/// The paths of one backup, as C strings.
pub(crate) struct BackupPaths {
    temporary: CString,
    spare: CString,
    target: CString,
    directory: CString,
}

impl BackupPaths {
    /// Creates directories like those of the store, with the backup and its spare file.
    pub(crate) fn make(folder: &Path, number: u32) -> Self {
        let [tmp, backups] = ["tmp", "backups"].map(|name| folder.join(name));
        fs::create_dir_all(&tmp).unwrap();
        fs::create_dir_all(&backups).unwrap();
        let name = format!("{number:064x}");
        let in_tmp = |suffix| tmp.join(format!(".{number:024x}.{suffix}"));
        fs::write(backups.join(&name), b"old").unwrap();
        fs::write(in_tmp("spare"), b"older").unwrap();
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
        Self {
            temporary: text(&in_tmp("tmp")),
            spare: text(&in_tmp("spare")),
            target: text(&backups.join(name)),
            directory: text(&backups),
        }
    }

    /// The system calls of `FileStore::put` when it replaces a backup, in the same order.
    pub(crate) fn overwrite(&self, body: &[u8]) {
        // As for the name of the temporary file.
        getrandom::fill(&mut [0; 12]).unwrap();
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = open(&self.temporary, create, Mode::RUSR | Mode::WUSR).unwrap();
        fill(&file, body);
        fsync(&file).unwrap();
        let old = self.lock();
        rename(&self.temporary, &self.target).unwrap();
        drop((file, old));
        self.sync_directory();
    }

    /// The same with a permanent spare file, which is overwritten and exchanged with the backup.
    pub(crate) fn exchange(&self, body: &[u8]) {
        let file = open(&self.spare, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        fill(&file, body);
        ftruncate(&file, body.len() as u64).unwrap();
        fsync(&file).unwrap();
        let old = self.lock();
        renameat_with(CWD, &self.spare, CWD, &self.target, RenameFlags::EXCHANGE).unwrap();
        drop((file, old));
        self.sync_directory();
    }

    fn lock(&self) -> OwnedFd {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let old = open(&self.target, flags, Mode::empty()).unwrap();
        flock(&old, FlockOperation::LockExclusive).unwrap();
        stat(&old);
        statx(
            CWD,
            &self.target,
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS | StatxFlags::BTIME,
        )
        .unwrap();
        old
    }

    fn sync_directory(&self) {
        let directory = open(&self.directory, OFlags::CLOEXEC, Mode::empty()).unwrap();
        fsync(&directory).unwrap();
        stat(&directory);
    }
}

fn fill(file: &OwnedFd, body: &[u8]) {
    assert_eq!(pwrite(file, body, 0).unwrap(), body.len());
    futimens(file, &now()).unwrap();
    let found = fstat(file).unwrap();
    let value = format!(
        "{:08x} {} {}.{:09}",
        0x1234_5678,
        body.len(),
        found.st_mtime,
        found.st_mtime_nsec
    );
    fsetxattr(file, "user.safe", value.as_bytes(), XattrFlags::empty()).unwrap();
}

/// The current time as both times of a file.
fn now() -> Timestamps {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let time = Timespec {
        tv_sec: now.as_secs().cast_signed(),
        tv_nsec: now.subsec_nanos().into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn stat(file: &OwnedFd) {
    let what = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    statx(file, c"", AtFlags::EMPTY_PATH, what).unwrap();
}

/// Reads the metadata of every entry of a directory; returns the number of files.
pub(crate) fn sweep(directory: &Path) -> u64 {
    let mut files = 0;
    for entry in fs::read_dir(directory).unwrap() {
        files += u64::from(entry.unwrap().metadata().unwrap().is_file());
    }
    files
}
