//! File operations on the backups of a data directory. They block.
//!
//! Each function is a linear sequence of steps, and leaves the old version or the new one wherever
//! it is interrupted. docs/DURABILITY.md lists for every step what a failure and a crash leave
//! behind; a new step here needs a row there and in `tests/system/faults.rs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, OFlags, fadvise, statvfs};

use crate::backup::BackupId;
use crate::durable::{self, RenamedToNew, TempFile};
use crate::file_system;
use crate::store::files::checksum::{self, Checksum};
use crate::store::files::lacking::Lacking;
use crate::store::{Contents, Meta, Put, Restored, TrashKind, Trashed, Upload, Verified, Version};
use crate::time::printable;

/// The length in bytes that no backup exceeds: the upper bound of `maxBackupBytes`, so that backups
/// stay readable when that is lowered. A longer file (a sparse one takes no space) is damage, and
/// is not read: that would take the memory of everything else.
pub(super) const MAX_LENGTH: u64 = 256 << 20;
/// How often a backup is read that another program changes meanwhile.
const READ_ATTEMPTS: usize = 3;

/// Name of the directory with the backups.
pub(super) const BACKUPS: &str = "backups";

/// Step: a backup is moved into the trash.
pub(super) const RENAME_INTO_TRASH: &str = "rename into trash";
/// Step: a backup is moved out of the trash.
pub(super) const RENAME_OUT_OF_TRASH: &str = "rename out of the trash";
/// Step: a file is erased.
pub(super) const ERASE: &str = "erase";
/// Step: a file of this program that is no backup is erased.
pub(super) const ERASE_LEFTOVER: &str = "erase leftover";

/// The subdirectories of a data directory, and the file operations on them.
#[derive(Debug)]
pub(super) struct BackupFiles {
    pub(super) backups: PathBuf,
    pub(super) trash: PathBuf,
    pub(super) tmp: PathBuf,
    /// What their file system has turned out to lack.
    pub(super) lacking: Lacking,
}

/// What a read found.
pub(super) enum Found {
    /// There is no backup.
    None,
    /// The whole backup.
    Whole(Meta, Bytes),
    /// A backup of this length, which is larger than the limit.
    Larger(u64),
}

impl BackupFiles {
    /// The subdirectories of `directory`, which may be missing.
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self {
            backups: directory.join(BACKUPS),
            trash: directory.join("trash"),
            tmp: directory.join("tmp"),
            lacking: Lacking::default(),
        }
    }

    pub(super) fn backup(&self, id: BackupId) -> PathBuf {
        self.backups.join(id.to_hex())
    }

    /// Stores a backup.
    pub(super) fn put(&self, id: BackupId, upload: &Upload) -> Result<Put, durable::Error> {
        self.store_as(&self.backup(id), upload)
    }

    /// Stores an upload as the file `target` in `backups/`: a synced temporary file replaces the
    /// existing file under its lock, or is renamed to a new name. If the change looks wrong, the
    /// existing file is in the trash before.
    ///
    /// Anything else than a file that has the name is moved out of the way: a phone could never
    /// upload again, and nobody would notice.
    pub(super) fn store_as(&self, target: &Path, upload: &Upload) -> Result<Put, durable::Error> {
        let file = self.create_temp_file()?;
        self.store_in(file, target, upload)
    }

    /// Stores an upload as the file `target` in `backups/`, by way of an empty temporary file.
    pub(super) fn store_in(
        &self,
        mut file: TempFile,
        target: &Path,
        upload: &Upload,
    ) -> Result<Put, durable::Error> {
        file.write(&upload.body)?;
        self.set_upload_time(file.file(), upload.at);
        let sum = checksum::of(&upload.body);
        checksum::write_attribute(file.file(), sum, upload.uploader);
        file.sync()?;
        let put = loop {
            if let Some(lock) = self.lock_existing(target)? {
                let previous = self.keep_if_wrong(target, lock.file(), upload)?;
                file.rename_to(target)?;
                break previous.map_or(Put::Replaced, Put::Suspicious);
            }
            match file.rename_to_new(target)? {
                RenamedToNew::Done(replaced) => {
                    self.lacking.note(replaced);
                    break Put::Created;
                }
                // A concurrent upload created the file first: lock it, and replace it.
                RenamedToNew::Exists(unchanged) => file = unchanged,
            }
            self.clear_name(target)?;
        };
        self.sync_directory(&self.backups)?;
        Ok(put)
    }

    /// Reads one whole version of at most `limit` bytes: an open file stays readable after it is
    /// replaced.
    pub(super) fn get(&self, id: BackupId, limit: u64) -> Result<Found, durable::Error> {
        for _ in 0..READ_ATTEMPTS {
            let Some(file) = open_existing(&self.backup(id))? else {
                return Ok(Found::None);
            };
            let found = file.metadata().map_err(durable::Error::at("stat backup"))?;
            let length = found.len();
            if !found.is_file() {
                return Ok(Found::None);
            }
            if length > MAX_LENGTH {
                return Err(too_long());
            }
            if length > limit {
                return Ok(Found::Larger(length));
            }
            if let Some(body) = read_whole(&file, length)? {
                return Ok(Found::Whole(meta(&found), body));
            }
            // Another program writes into the file in place.
        }
        let source = io::Error::other("its length changes while it is read");
        Err(durable::Error::at("read backup")(source))
    }

    /// The metadata of a backup; `None` if there is none.
    pub(super) fn stat(&self, id: BackupId) -> Result<Option<Meta>, durable::Error> {
        let found = stat_path(&self.backup(id))?;
        Ok(found.filter(fs::Metadata::is_file).as_ref().map(meta))
    }

    /// Moves a backup to the trash; returns whether there was one.
    pub(super) fn remove(&self, id: BackupId, now: SystemTime) -> Result<bool, durable::Error> {
        let target = self.backup(id);
        let Some(_lock) = self.lock_existing(&target)? else {
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
        let Some(lock) = self.lock_existing(&target)? else {
            return Ok(false);
        };
        let found = lock
            .file()
            .metadata()
            .map_err(durable::Error::at("stat backup"))?;
        if meta(&found).last_upload >= not_before {
            return Ok(false);
        }
        self.move_to_trash(id, now)
    }

    /// Moves a backup to the trash; the caller holds its lock.
    fn move_to_trash(&self, id: BackupId, now: SystemTime) -> Result<bool, durable::Error> {
        let target = self.backup(id);
        let mut removed_at = self.free_second(id, now)?;
        loop {
            let trashed = self.trashed(id, TrashKind::Removed, removed_at);
            match self.rename_to_new(&target, &trashed) {
                Ok(()) => break,
                // The same id was removed in the same second. Nothing in the trash is ever
                // replaced.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => removed_at += 1,
                Err(error) if is_absent(&error, &target) && !self.trash.exists() => {
                    self.create_missing()?;
                }
                Err(error) => {
                    Self::undo_link(&target, &trashed)?;
                    return Err(durable::Error::at(RENAME_INTO_TRASH)(error));
                }
            }
        }
        self.sync_directory(&self.trash)?;
        self.sync_directory(&self.backups)?;
        Ok(true)
    }

    /// Moves what has the name of a backup and is no file (a directory, a link, a FIFO) into the
    /// trash, under a name that is none of a removed backup: it is neither listed nor erased.
    fn clear_name(&self, target: &Path) -> Result<(), durable::Error> {
        let is_in_the_way = || Ok(stat_path(target)?.is_some_and(|found| !found.is_file()));
        if !is_in_the_way()? {
            return Ok(());
        }
        self.create_missing()?;
        // Another upload may have moved it, and stored its backup under the name.
        let _lock = durable::lock_directory(&self.trash)?;
        if !is_in_the_way()? {
            return Ok(());
        }
        for number in 0_u64.. {
            let mut aside = target.file_name().unwrap_or_default().to_owned();
            aside.push(format!(".no-backup.{number}"));
            match self.rename_to_new(target, &self.trash.join(aside)) {
                Ok(()) => {
                    tracing::warn!("no backup under its name: moved to trash");
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if is_absent(&error, target) => break,
                Err(error) => return Err(durable::Error::at(RENAME_INTO_TRASH)(error)),
            }
        }
        self.sync_directory(&self.trash)
    }

    /// Moves a backup out of the trash with the modification time `now`, unless a newer one exists.
    pub(super) fn restore(
        &self,
        trashed: Trashed,
        now: SystemTime,
    ) -> Result<Restored, durable::Error> {
        let source = self.path_in_trash(trashed);
        let target = self.backup(trashed.id);
        let Some(lock) = self.lock_existing(&source)? else {
            return Ok(Restored::Gone);
        };
        self.clear_name(&target)?;
        let file = lock.file();
        if stat_path(&target)?.is_some() {
            return Ok(Restored::Newer);
        }
        if !self.renew(file, now)? {
            return self.restore_copy(file, (&source, &target), now);
        }
        match self.rename_to_new(&source, &target) {
            Ok(()) => {}
            Err(error) => {
                self.set_time(file, trashed.last_upload)?;
                if error.kind() == io::ErrorKind::AlreadyExists {
                    return Ok(Restored::Newer);
                }
                return Err(durable::Error::at(RENAME_OUT_OF_TRASH)(error));
            }
        }
        self.sync_directory(&self.backups)?;
        self.sync_directory(&self.trash)?;
        Ok(Restored::Back)
    }

    /// Sets the modification time of a backup in the trash to `now`, and flushes it to disk; false
    /// if the file system cannot set times. This comes before the rename: no sweep may see the
    /// restored backup with its old time.
    pub(super) fn renew(&self, file: &File, now: SystemTime) -> Result<bool, durable::Error> {
        if !self.set_time(file, now)? {
            return Ok(false);
        }
        file.sync_all()
            .map_err(durable::Error::at("fsync trashed backup"))?;
        Ok(true)
    }

    /// Sets the modification time of a backup, for which its checksum is valid again; false if the
    /// file system cannot set times.
    pub(super) fn set_time(&self, file: &File, time: SystemTime) -> Result<bool, durable::Error> {
        let recorded = checksum::read_attribute(file);
        let replaced =
            file_system::set_modified(file, time).map_err(durable::Error::at("set the time"))?;
        self.lacking.note(replaced);
        checksum::rewrite_attribute(file, recorded);
        Ok(replaced.is_none())
    }

    /// Restores a file whose time cannot be set as a copy, which has at least the time at which it is
    /// written; the caller holds the lock of the file.
    fn restore_copy(
        &self,
        file: &File,
        (source, target): (&Path, &Path),
        now: SystemTime,
    ) -> Result<Restored, durable::Error> {
        let body = read_to_copy(file)?;
        let copy = self.create_temp_file()?;
        // The command may run as root: the server has to be able to read and to lock the copy.
        durable::copy_ownership(copy.file(), &[source])?;
        copy.write(&body)?;
        self.set_upload_time(copy.file(), now);
        let uploader = checksum::read_attribute(file).uploader;
        checksum::write_attribute(copy.file(), checksum::of(&body), uploader);
        copy.sync()?;
        match copy.rename_to_new(target)? {
            RenamedToNew::Done(_) => {}
            RenamedToNew::Exists(_) => return Ok(Restored::Newer),
        }
        self.sync_directory(&self.backups)?;
        // Only now: until the copy is on disk, the trash has the backup.
        erase(source)?;
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
            let is_file = found.is_file();
            Ok((is_file, found.len(), found.mtime(), found.mtime_nsec()))
        };
        let before = state(&file)?;
        let (is_file, length, ..) = before;
        if !is_file {
            return Ok(None);
        }
        if length > MAX_LENGTH {
            return Err(too_long());
        }
        // Drop the page cache: cached data says nothing about the data on disk.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
        // A file that grows meanwhile is not followed beyond that.
        let sum = Checksum::of_reader((&mut file).take(MAX_LENGTH));
        let sum = sum.map_err(durable::Error::at("read backup"))?;
        let checksum::Recorded {
            checksum: recorded,
            uploader,
        } = checksum::read_attribute(&file);
        let contents = match recorded {
            // The file changed while it was read: the recorded checksum is for another version.
            _ if state(&file)? != before => Contents::FirstSeen,
            Some(recorded) if recorded == sum => Contents::Same,
            Some(_) => Contents::Changed,
            None => {
                checksum::write_attribute(&file, sum, uploader);
                Contents::FirstSeen
            }
        };
        Ok(Some(Verified {
            length: sum.length,
            contents,
        }))
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
        let path = self.path_in_trash(trashed);
        let Some(_lock) = self.lock_existing(&path)? else {
            return Ok(false);
        };
        erase(&path)
    }
}

/// Erases a file of this program that is no backup.
pub(super) fn erase_leftover(path: &Path) -> Result<(), durable::Error> {
    erase(path).map(drop).map_err(|error| durable::Error {
        operation: ERASE_LEFTOVER,
        ..error
    })
}

/// Erases a file; returns whether it existed.
pub(super) fn erase(path: &Path) -> Result<bool, durable::Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(durable::Error::at(ERASE)(error)),
    }
}

/// Opens a file for reading; `None` if the name does not exist, or is one of a symbolic link or a
/// socket, which cannot be opened here. A directory, a FIFO and a device can; the caller has to look
/// at the type. Does not wait for a writer of a FIFO.
pub(super) fn open_existing(path: &Path) -> Result<Option<File>, durable::Error> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_absent(&error, path) => Ok(None),
        Err(error) => match stat_path(path) {
            Ok(Some(found)) if !found.is_file() => Ok(None),
            _ => Err(durable::Error::at("open backup")(error)),
        },
    }
}

/// Reads a file of `length` bytes; `None` if it has more or fewer at its end.
fn read_whole(file: &File, length: u64) -> Result<Option<Bytes>, durable::Error> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut body = Vec::new();
    // Room for one byte more, which shows that the file has grown. An error, and not the end of the
    // process, where the memory is short.
    let reserved = body.try_reserve_exact(length.saturating_add(1));
    reserved.map_err(|error| durable::Error::at("allocate memory for backup")(error.into()))?;
    while body.len() <= length {
        match rustix::io::read(file, spare_capacity(&mut body)) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(durable::Error::at("read backup")(error.into())),
        }
    }
    Ok((body.len() == length).then(|| body.into()))
}

/// Reads a file of which a copy is made. An error if it is longer than any backup, or changes
/// meanwhile.
pub(super) fn read_to_copy(file: &File) -> Result<Bytes, durable::Error> {
    let found = file.metadata().map_err(durable::Error::at("stat backup"))?;
    let body = read_whole(file, found.len().min(MAX_LENGTH))?;
    let wrong_length = || io::Error::other("its length is not that of a backup");
    body.ok_or_else(|| durable::Error::at("read backup")(wrong_length()))
}

fn too_long() -> durable::Error {
    let text = format!("it is longer than {MAX_LENGTH} bytes, which no backup is");
    durable::Error::at("read backup")(io::Error::other(text))
}

/// The metadata of the file with this name; `None` if the name does not exist.
pub(super) fn stat_path(path: &Path) -> Result<Option<fs::Metadata>, durable::Error> {
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

/// Converts a file's metadata: length, modification time as time of the upload, and version. Nothing
/// else reads the time of a backup, so that no part of the program sees one that cannot be printed.
pub(super) fn meta(found: &fs::Metadata) -> Meta {
    // Every upload is a new file: inode number and time distinguish it from the one before. The
    // time as the file has it: two times that cannot be printed are two versions.
    let time = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
    Meta {
        length: found.len(),
        last_upload: printable(found.mtime(), found.mtime_nsec()),
        version: Version(time.cast_unsigned() << 64 | u128::from(found.ino())),
    }
}

#[cfg(test)]
#[path = "backup_files_tests.rs"]
mod tests;
