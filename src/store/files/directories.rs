//! What is done to the files of one backup, on a blocking thread: each function reads top to bottom and leaves
//! the old version or the new one, wherever it ends. docs/DURABILITY.md says of every step what a failure and a crash
//! leave behind; a step that is added here needs a row there and in `tests/system/faults.rs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::fs::{Advice, FlockOperation, OFlags, fadvise, flock, statvfs};

use super::super::{Contents, Meta, Put, Restored, Trashed, Verified, Version};
use super::checksum::{self, Checksum};
use crate::backup::BackupId;
use crate::durable::{self, TempFile};

/// Where the parts of a data directory are.
#[derive(Debug)]
pub(super) struct Directories {
    pub(super) backups: PathBuf,
    pub(super) trash: PathBuf,
    pub(super) tmp: PathBuf,
}

impl Directories {
    fn backup(&self, id: BackupId) -> PathBuf {
        self.backups.join(id.to_hex())
    }

    fn trashed(&self, id: BackupId, removed_at: u64) -> PathBuf {
        self.trash.join(format!("{}.{removed_at}", id.to_hex()))
    }

    pub(super) fn put(&self, id: BackupId, body: &[u8]) -> Result<Put, durable::Error> {
        let target = self.backup(id);
        let mut file = TempFile::create_in(&self.tmp)?;
        file.write(body)?;
        checksum::remember(file.file(), checksum::of(body));
        file.sync()?;
        let put = loop {
            if let Some(_lock) = lock_existing(&target)? {
                file.rename_to(&target)?;
                break Put::Replaced;
            }
            match file.rename_to_new(&target)? {
                None => break Put::Created,
                // Somebody else was faster: look again, and replace that one.
                Some(unchanged) => file = unchanged,
            }
        };
        durable::sync_directory(&self.backups)?;
        Ok(put)
    }

    /// Reads one whole version: a replaced file lives on for whoever has opened it.
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

    pub(super) fn stat(&self, id: BackupId) -> Result<Option<Meta>, durable::Error> {
        let found = look(&self.backup(id))?;
        Ok(found.filter(fs::Metadata::is_file).as_ref().map(meta))
    }

    pub(super) fn remove(&self, id: BackupId, now: SystemTime) -> Result<bool, durable::Error> {
        let target = self.backup(id);
        let Some(_lock) = lock_existing(&target)? else {
            return Ok(false);
        };
        self.discard(id, now)
    }

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
        self.discard(id, now)
    }

    /// Moves a backup into the trash; the caller holds its lock.
    fn discard(&self, id: BackupId, now: SystemTime) -> Result<bool, durable::Error> {
        let target = self.backup(id);
        let mut removed_at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        loop {
            match durable::rename_to_new(&target, &self.trashed(id, removed_at)) {
                Ok(()) => break,
                // The same id was removed in the same second already; nothing in the trash is replaced.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => removed_at += 1,
                Err(error) => return Err(durable::Error::at("rename into trash")(error)),
            }
        }
        durable::sync_directory(&self.trash)?;
        durable::sync_directory(&self.backups)?;
        Ok(true)
    }

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
        if look(&target)?.is_some() {
            return Ok(Restored::Newer);
        }
        let set_time = |time| {
            file.set_modified(time)
                .map_err(durable::Error::at("set the time"))
        };
        // Before it has its name: no sweep may see it there with its old time.
        let remembered = checksum::remembered(&file);
        set_time(now)?;
        if let Some(sum) = remembered {
            checksum::remember(&file, sum);
        }
        file.sync_all()
            .map_err(durable::Error::at("fsync trashed backup"))?;
        match durable::rename_to_new(&source, &target) {
            Ok(()) => {}
            Err(error) => {
                set_time(trashed.last_upload)?;
                if let Some(sum) = remembered {
                    checksum::remember(&file, sum);
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

    pub(super) fn verify(&self, id: BackupId) -> Result<Option<Verified>, durable::Error> {
        let Some(mut file) = open_existing(&self.backup(id))? else {
            return Ok(None);
        };
        let state = |file: &File| {
            let found = file.metadata().map_err(durable::Error::at("stat backup"))?;
            Ok((found.len(), found.mtime(), found.mtime_nsec()))
        };
        let before = state(&file)?;
        // What is in memory says nothing of what is on the disk.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        let sum = Checksum::of_file(&mut file).map_err(durable::Error::at("read backup"))?;
        let remembered = checksum::remembered(&file);
        let contents = match remembered {
            // Somebody writes to it in place, or has given it a new time: what was remembered is of another version.
            _ if state(&file)? != before => Contents::FirstSeen,
            Some(remembered) if remembered == sum => Contents::Same,
            Some(_) => Contents::Changed,
            None => {
                checksum::remember(&file, sum);
                Contents::FirstSeen
            }
        };
        Ok(Some(Verified {
            length: sum.length,
            contents,
        }))
    }

    /// Writes a file of one byte to the disk, and removes it.
    pub(super) fn try_write(&self) -> Result<(), durable::Error> {
        let file = TempFile::create_in(&self.tmp)?;
        file.write(&[0])?;
        file.sync()
    }

    /// What the file system has for those who are not root. One that has no size (ramfs, some of FUSE) does not know.
    pub(super) fn free_bytes(&self) -> Result<Option<u64>, durable::Error> {
        let space = statvfs(&self.tmp)
            .map_err(|error| durable::Error::at("measure free space")(error.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        Ok((space.f_blocks > 0).then_some(free))
    }

    /// Erases one file for good, unless it is being brought back. Nobody was promised that it is gone: after a
    /// power cut it may be back, and the next sweep erases it.
    pub(super) fn erase_trashed(&self, trashed: Trashed) -> Result<bool, durable::Error> {
        let path = self.trashed(trashed.id, trashed.removed_at);
        let Some(_lock) = lock_existing(&path)? else {
            return Ok(false);
        };
        erase(&path)
    }
}

/// Erases a file; says whether it was there.
pub(super) fn erase(path: &Path) -> Result<bool, durable::Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(durable::Error::at("erase")(error)),
    }
}

/// Opens the backup that has this name and locks it against being replaced or removed. Whatever another
/// thread or process does to the name waits for the lock, or happened before it.
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
        let named = look(path)?;
        if named.is_some_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
            return Ok(Some(file));
        }
    }
}

/// Opens a regular file for reading; `None` if there is none of this name. Symbolic links are errors.
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

fn look(path: &Path) -> Result<Option<fs::Metadata>, durable::Error> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absent(&error, path) => Ok(None),
        Err(error) => Err(durable::Error::at("stat backup")(error)),
    }
}

/// Whether an error means that there is no such backup, and not that the directory itself is gone (a disk that
/// was unmounted): a phone would be told that its backup does not exist.
fn is_absent(error: &io::Error, path: &Path) -> bool {
    error.kind() == io::ErrorKind::NotFound && durable::parent(path).is_dir()
}

/// What a file's inode says of a backup.
pub(super) fn meta(found: &fs::Metadata) -> Meta {
    let seconds = Duration::from_secs(found.mtime().unsigned_abs());
    let last_upload = if found.mtime() < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or_default();
    let last_upload = last_upload.unwrap_or(UNIX_EPOCH) + Duration::from_nanos(nanoseconds.into());
    // Every upload is a new file: its inode number and time tell it from the one before.
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
