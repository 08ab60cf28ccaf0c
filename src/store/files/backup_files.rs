//! File operations on the backups of a data directory. They block.
//!
//! Each function is a linear sequence of steps, and leaves the old version or the new one wherever
//! it is interrupted. docs/DURABILITY.md lists for every step what a failure and a crash leave
//! behind; a new step here needs a row there and in `tests/system/faults.rs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::fs::{Advice, FlockOperation, OFlags, fadvise, flock, statvfs};

use crate::backup::BackupId;
use crate::durable::{self, TempFile};
use crate::store::files::checksum::{self, Checksum};
use crate::store::{Contents, Meta, Put, Restored, Trashed, Upload, Verified, Version};

/// The subdirectories of a data directory, and the file operations on them.
#[derive(Debug)]
pub(super) struct BackupFiles {
    pub(super) backups: PathBuf,
    pub(super) trash: PathBuf,
    pub(super) tmp: PathBuf,
}

impl BackupFiles {
    fn backup(&self, id: BackupId) -> PathBuf {
        self.backups.join(id.to_hex())
    }

    fn trashed(&self, id: BackupId, removed_at: u64) -> PathBuf {
        self.trash.join(format!("{}.{removed_at}", id.to_hex()))
    }

    /// Stores a backup: a synced temporary file replaces the existing file under its lock, or is
    /// renamed to a new name.
    pub(super) fn put(&self, id: BackupId, upload: &Upload) -> Result<Put, durable::Error> {
        let target = self.backup(id);
        let mut file = TempFile::create_in(&self.tmp)?;
        file.write(&upload.body)?;
        set_upload_time(file.file(), upload.at);
        checksum::write_attribute(file.file(), checksum::of(&upload.body));
        file.sync()?;
        let put = loop {
            if let Some(_lock) = lock_existing(&target)? {
                file.rename_to(&target)?;
                break Put::Replaced;
            }
            match file.rename_to_new(&target)? {
                None => break Put::Created,
                // A concurrent upload created the file first: lock it, and replace it.
                Some(unchanged) => file = unchanged,
            }
        };
        durable::sync_directory(&self.backups)?;
        Ok(put)
    }

    /// Reads one whole version: an open file stays readable after it is replaced.
    pub(super) fn get(&self, id: BackupId) -> Result<Option<(Meta, Bytes)>, durable::Error> {
        let Some(mut file) = open_existing(&self.backup(id))? else {
            return Ok(None);
        };
        let found = file.metadata().map_err(durable::Error::at("stat backup"))?;
        let mut body = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
        file.read_to_end(&mut body)
            .map_err(durable::Error::at("read backup"))?;
        Ok(Some((meta(&found), body.into())))
    }

    /// The metadata of a backup; `None` if there is none.
    pub(super) fn stat(&self, id: BackupId) -> Result<Option<Meta>, durable::Error> {
        let found = stat_path(&self.backup(id))?;
        Ok(found.filter(fs::Metadata::is_file).as_ref().map(meta))
    }

    /// Moves a backup to the trash; returns whether there was one.
    pub(super) fn remove(&self, id: BackupId, now: SystemTime) -> Result<bool, durable::Error> {
        let target = self.backup(id);
        let Some(_lock) = lock_existing(&target)? else {
            return Ok(false);
        };
        self.move_to_trash(id, now)
    }

    /// Moves a backup to the trash unless it was uploaded at `not_before` or later; returns whether
    /// it was moved.
    pub(super) fn expire(
        &self,
        id: BackupId,
        not_before: SystemTime,
        now: SystemTime,
    ) -> Result<bool, durable::Error> {
        let target = self.backup(id);
        let Some(lock) = lock_existing(&target)? else {
            return Ok(false);
        };
        let found = lock.metadata().map_err(durable::Error::at("stat backup"))?;
        if meta(&found).last_upload >= not_before {
            return Ok(false);
        }
        self.move_to_trash(id, now)
    }

    /// Moves a backup to the trash; the caller holds its lock.
    fn move_to_trash(&self, id: BackupId, now: SystemTime) -> Result<bool, durable::Error> {
        let target = self.backup(id);
        let mut removed_at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        loop {
            match durable::rename_to_new(&target, &self.trashed(id, removed_at)) {
                Ok(()) => break,
                // The same id was removed in the same second. Nothing in the trash is ever
                // replaced.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => removed_at += 1,
                Err(error) => return Err(durable::Error::at("rename into trash")(error)),
            }
        }
        durable::sync_directory(&self.trash)?;
        durable::sync_directory(&self.backups)?;
        Ok(true)
    }

    /// Moves a backup out of the trash with the modification time `now`, unless a newer one exists.
    pub(super) fn restore(
        &self,
        trashed: Trashed,
        now: SystemTime,
    ) -> Result<Restored, durable::Error> {
        let source = self.trashed(trashed.id, trashed.removed_at);
        let target = self.backup(trashed.id);
        let Some(file) = lock_existing(&source)? else {
            return Ok(Restored::Gone);
        };
        if stat_path(&target)?.is_some() {
            return Ok(Restored::Newer);
        }
        let set_time = |time| {
            file.set_modified(time)
                .map_err(durable::Error::at("set the time"))
        };
        // The time is set before the rename: no sweep may see the restored backup with its old
        // time.
        let recorded = checksum::read_attribute(&file);
        set_time(now)?;
        if let Some(sum) = recorded {
            checksum::write_attribute(&file, sum);
        }
        file.sync_all()
            .map_err(durable::Error::at("fsync trashed backup"))?;
        match durable::rename_to_new(&source, &target) {
            Ok(()) => {}
            Err(error) => {
                set_time(trashed.last_upload)?;
                if let Some(sum) = recorded {
                    checksum::write_attribute(&file, sum);
                }
                if error.kind() == io::ErrorKind::AlreadyExists {
                    return Ok(Restored::Newer);
                }
                return Err(durable::Error::at("rename out of the trash")(error));
            }
        }
        durable::sync_directory(&self.backups)?;
        durable::sync_directory(&self.trash)?;
        Ok(Restored::Back)
    }

    /// Reads a backup from the disk and compares it with its checksum, which is written if it is
    /// missing; `None` if there is no backup.
    pub(super) fn verify(&self, id: BackupId) -> Result<Option<Verified>, durable::Error> {
        let Some(mut file) = open_existing(&self.backup(id))? else {
            return Ok(None);
        };
        let state = |file: &File| {
            let found = file.metadata().map_err(durable::Error::at("stat backup"))?;
            Ok((found.len(), found.mtime(), found.mtime_nsec()))
        };
        let before = state(&file)?;
        // Drop the page cache: cached data says nothing about the data on disk.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let sum = Checksum::of_file(&mut file).map_err(durable::Error::at("read backup"))?;
        let recorded = checksum::read_attribute(&file);
        let contents = match recorded {
            // The file changed while it was read: the recorded checksum is for another version.
            _ if state(&file)? != before => Contents::FirstSeen,
            Some(recorded) if recorded == sum => Contents::Same,
            Some(_) => Contents::Changed,
            None => {
                checksum::write_attribute(&file, sum);
                Contents::FirstSeen
            }
        };
        Ok(Some(Verified {
            length: sum.length,
            contents,
        }))
    }

    /// Writes a file of one byte to disk, and removes it. Fails if `backups/` is missing.
    pub(super) fn try_write(&self) -> Result<(), durable::Error> {
        fs::metadata(&self.backups).map_err(durable::Error::at("stat backups"))?;
        let file = TempFile::create_in(&self.tmp)?;
        file.write(&[0])?;
        file.sync()
    }

    /// Free bytes of the file system for users other than root; `None` on a file system without a
    /// size (ramfs, some FUSE file systems).
    pub(super) fn free_bytes(&self) -> Result<Option<u64>, durable::Error> {
        let space = statvfs(&self.tmp)
            .map_err(|error| durable::Error::at("measure free space")(error.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        Ok((space.f_blocks > 0).then_some(free))
    }

    /// Erases one file of the trash, unless a concurrent restore holds its lock first. The removal
    /// is not flushed to disk, because no client relies on it: after a power cut the file may be
    /// back, and the next sweep erases it.
    pub(super) fn erase_trashed(&self, trashed: Trashed) -> Result<bool, durable::Error> {
        let path = self.trashed(trashed.id, trashed.removed_at);
        let Some(_lock) = lock_existing(&path)? else {
            return Ok(false);
        };
        erase(&path)
    }
}

/// Sets the time of an upload. The clock of the file system may differ from the server's, above all
/// on a network storage. If the file system refuses, the upload keeps the time of that clock: it
/// must not fail because of its time.
fn set_upload_time(file: &File, at: SystemTime) {
    drop(file.set_modified(at));
}

/// Erases a file; returns whether it existed.
pub(super) fn erase(path: &Path) -> Result<bool, durable::Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(durable::Error::at("erase")(error)),
    }
}

/// Opens the backup with this name and locks it against replacement and removal. Every operation of
/// another thread or process on the name waits for the lock, or happened before it.
fn lock_existing(path: &Path) -> Result<Option<File>, durable::Error> {
    loop {
        let Some(file) = open_existing(path)? else {
            return Ok(None);
        };
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(durable::Error::at("lock backup")(error.into())),
        }
        let locked = file.metadata().map_err(durable::Error::at("stat backup"))?;
        let named = stat_path(path)?;
        if named.is_some_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
            return Ok(Some(file));
        }
    }
}

/// Opens a file for reading; `None` if the name does not exist. A symbolic link is an error.
fn open_existing(path: &Path) -> Result<Option<File>, durable::Error> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_absent(&error, path) => Ok(None),
        Err(error) => Err(durable::Error::at("open backup")(error)),
    }
}

/// The metadata of the file with this name; `None` if the name does not exist.
fn stat_path(path: &Path) -> Result<Option<fs::Metadata>, durable::Error> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absent(&error, path) => Ok(None),
        Err(error) => Err(durable::Error::at("stat backup")(error)),
    }
}

/// True if an error means that the backup does not exist, and not that the whole directory is
/// missing (an unmounted disk), for which clients must not receive 404.
fn is_absent(error: &io::Error, path: &Path) -> bool {
    error.kind() == io::ErrorKind::NotFound && durable::parent(path).is_dir()
}

/// Converts a file's metadata: length, modification time as time of the upload, and version.
pub(super) fn meta(found: &fs::Metadata) -> Meta {
    let seconds = Duration::from_secs(found.mtime().unsigned_abs());
    let last_upload = if found.mtime() < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or_default();
    let last_upload = last_upload.unwrap_or(UNIX_EPOCH) + Duration::from_nanos(nanoseconds.into());
    // Every upload is a new file: inode number and time distinguish it from the one before.
    let time = last_upload
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    Meta {
        length: found.len(),
        last_upload,
        version: Version(time << 64 | u128::from(found.ino())),
    }
}
