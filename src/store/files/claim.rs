//! The server's claim to a data directory, taken before its first write.
//!
//! A server also starts where nothing can be written (a read-only or full disk, missing rights),
//! because it can still serve restores. Its directory is then not prepared, and each write and each
//! trial first tries to prepare it. So there are two states, and one step from the first to the
//! second: missing directories are created, the lock against other servers is taken, and leftovers
//! of an earlier server are removed.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::durable;
use crate::file_system::{self, Lock};
use crate::lock::lock;
use crate::store::files::backup_files::{BackupFiles, erase_leftover};

/// Step: the directory is locked against other servers.
pub(super) const CLAIM: &str = "lock the data directory against other servers";

/// The claim of a server, or of a command, which needs none.
#[derive(Debug)]
pub(super) struct Claim {
    is_prepared: AtomicBool,
    /// The exclusive locks of `backups/`, which exists also where nothing can be created, and of
    /// `tmp/`, which earlier versions lock.
    locks: Mutex<[Option<Lock>; 2]>,
    /// True from a start at which nothing could be written until the first write that succeeds.
    cannot_write: AtomicBool,
}

impl Claim {
    /// The claim of a server that has prepared nothing yet.
    pub(super) fn of_server() -> Self {
        Self {
            is_prepared: AtomicBool::new(false),
            locks: Mutex::default(),
            cannot_write: AtomicBool::new(false),
        }
    }

    /// No claim: the directory is used as it is, while a server may be using it.
    pub(super) fn of_command() -> Self {
        Self {
            is_prepared: AtomicBool::new(true),
            ..Self::of_server()
        }
    }

    /// Prepares the directory, unless that is done. Fails if `backups/` is missing: its disk may not
    /// be mounted.
    pub(super) fn prepare(&self, files: &BackupFiles) -> Result<(), durable::Error> {
        if self.is_prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut locks = lock(&self.locks);
        let [backups, tmp] = &mut *locks;
        claim(backups, &files.backups)?;
        durable::create_directory(&files.tmp)?;
        claim(tmp, &files.tmp)?;
        durable::create_directory(&files.trash)?;
        sweep_leftovers(&files.tmp)?;
        self.is_prepared.store(true, Ordering::Release);
        Ok(())
    }

    /// Notes that nothing can be written.
    pub(super) fn cannot_write(&self) {
        self.cannot_write.store(true, Ordering::Relaxed);
    }

    /// Notes a write that succeeded; the first one after a start without is logged, with what the
    /// start could not find out.
    pub(super) fn has_written(&self, files: &BackupFiles) {
        if self.cannot_write.load(Ordering::Relaxed)
            && self.cannot_write.swap(false, Ordering::Relaxed)
        {
            tracing::info!("storage writable again");
            files.lacking.log();
        }
    }
}

/// Locks a directory, unless this server has locked it.
fn claim(held: &mut Option<Lock>, directory: &Path) -> Result<(), durable::Error> {
    if held.is_none() {
        let opened = File::open(directory).map_err(durable::Error::at("open directory"))?;
        let locked = file_system::try_lock(opened, directory);
        *held = Some(locked.map_err(durable::Error::at(CLAIM))?);
    }
    Ok(())
}

/// True if another server has claimed the directory.
pub(super) fn is_in_use(error: &durable::Error) -> bool {
    error.operation == CLAIM && error.source.kind() == io::ErrorKind::WouldBlock
}

fn sweep_leftovers(tmp: &Path) -> Result<(), durable::Error> {
    let at = || durable::Error::at("sweep tmp");
    for entry in fs::read_dir(tmp).map_err(at())? {
        let entry = entry.map_err(at())?;
        if entry.file_type().map_err(at())?.is_file() {
            // A concurrent command may just have renamed the file.
            match erase_leftover(&entry.path()) {
                // On NFS, a file that was removed while another machine has it open.
                Err(error) if error.source.kind() == io::ErrorKind::ResourceBusy => {}
                erased => erased?,
            }
        }
    }
    Ok(())
}
