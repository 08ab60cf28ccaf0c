//! Steps of the file operations that some file systems need in another form: lock, rename, sync and
//! set the time. Each notes what the file system lacks.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use crate::durable::{self, TempFile};
use crate::file_system::{self, Lock};
use crate::store::files::backup_files::{BackupFiles, erase, open_existing, stat_path};

impl BackupFiles {
    /// Opens the backup with this name and locks it against replacement and removal. Every operation
    /// of another thread or process on the name waits for the lock, or happened before it. `None` if
    /// the name does not exist, or is none of a file.
    pub(super) fn lock_existing(&self, path: &Path) -> Result<Option<Lock>, durable::Error> {
        loop {
            let Some(file) = open_existing(path)? else {
                return Ok(None);
            };
            let lock = match file_system::lock(file, path) {
                Ok(lock) => lock,
                Err(error) => return Err(durable::Error::at("lock backup")(error)),
            };
            self.lacking.note(lock.replaced());
            let stat = lock.file().metadata();
            let locked = stat.map_err(durable::Error::at("stat backup"))?;
            if !locked.is_file() {
                return Ok(None);
            }
            let named = stat_path(path)?;
            if named.is_some_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino()))
            {
                return Ok(Some(lock));
            }
        }
    }

    /// Creates an empty file in `tmp/`, and that directory if another program has removed it.
    pub(super) fn create_temp_file(&self) -> Result<TempFile, durable::Error> {
        match TempFile::create_in(&self.tmp) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                self.create_missing()?;
                TempFile::create_in(&self.tmp)
            }
            created => created,
        }
    }

    /// Creates `tmp/` and `trash/` if they are missing. Fails if `backups/` is missing: its disk may
    /// not be mounted.
    pub(super) fn create_missing(&self) -> Result<(), durable::Error> {
        fs::metadata(&self.backups).map_err(durable::Error::at("stat backups"))?;
        for directory in [&self.tmp, &self.trash] {
            durable::create_directory(directory)?;
        }
        Ok(())
    }

    /// Sets the time of an upload. The clock of the file system may differ from the server's, above
    /// all on a network storage. If the file system refuses, the upload keeps the time of that
    /// clock: it must not fail because of its time.
    pub(super) fn set_upload_time(&self, file: &File, at: SystemTime) {
        if let Ok(replaced) = file_system::set_modified(file, at) {
            self.lacking.note(replaced);
        }
    }

    /// Renames `from` to `to` unless `to` exists.
    pub(super) fn rename_to_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lacking.note(file_system::rename_to_new(from, to)?);
        Ok(())
    }

    /// Removes the second name that a backup keeps in the trash if renaming by link and unlink fails
    /// half-way, as in a directory with the sticky bit: each attempt would leave one more. The caller
    /// holds the lock of the backup, so that nothing else has taken or renamed it.
    pub(super) fn undo_link(backup: &Path, trashed: &Path) -> Result<(), durable::Error> {
        if let (Some(backup), Some(found)) = (stat_path(backup)?, stat_path(trashed)?)
            && (backup.dev(), backup.ino()) == (found.dev(), found.ino())
        {
            erase(trashed)?;
        }
        Ok(())
    }

    /// Flushes the names in one of the directories to disk.
    pub(super) fn sync_directory(&self, directory: &Path) -> Result<(), durable::Error> {
        self.lacking.note(durable::sync_directory(directory)?);
        Ok(())
    }
}
