//! Trial of a data directory: one file goes through an upload, a renewal and a removal.
//!
//! The trial makes the calls of the real operations in the real directories, under a name that no
//! listing takes for a backup, and leaves nothing behind. A directory that passes takes uploads,
//! renewals and removals; what its file system lacks is then known.

use std::io::ErrorKind::{AlreadyExists, NotFound};
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use crate::durable;
use crate::store::Upload;
use crate::store::files::backup_files::{BackupFiles, erase_leftover};

/// Name of the trial file, in `backups/` and then in `trash/`. Always the same: what a killed trial
/// leaves is removed by the next one. Trials of several processes at the same time may take each
/// other's file, which they understand as they understand it of a backup.
const NAME: &str = ".trial.tmp";
/// Step: the trial file is moved into the trash.
pub(super) const RENAME_TRIAL: &str = "rename trial into trash";
/// Another length than that of the file that it replaces.
const CONTENTS: [&[u8]; 2] = [b"1", b"22"];

impl BackupFiles {
    /// Carries out an upload, a renewal and a removal. Fails if `backups/` is missing; creates the
    /// other directories.
    pub(super) fn try_write(&self) -> Result<(), durable::Error> {
        self.create_missing()?;
        self.remove_trial()?;
        let tried = self.try_operations();
        let removed = self.remove_trial();
        tried.and(removed)
    }

    fn try_operations(&self) -> Result<(), durable::Error> {
        let (backup, trashed) = (self.backups.join(NAME), self.trash.join(NAME));
        for contents in CONTENTS {
            let upload = Upload::new(Bytes::from_static(contents), UNIX_EPOCH);
            let file = self.create_temp_file()?;
            // Beside the trial of a server that is not root: it must be able to open the file.
            durable::copy_ownership(file.file(), &[&self.backups])?;
            self.store_in(file, &backup, &upload)?;
        }
        let Some(_lock) = self.lock_existing(&backup)? else {
            return Ok(());
        };
        match self.rename_to_new(&backup, &trashed) {
            Ok(()) => {}
            // A trial of another process has put its file there, or has removed this one.
            Err(error) if [AlreadyExists, NotFound].contains(&error.kind()) => {}
            Err(error) => return Err(durable::Error::at(RENAME_TRIAL)(error)),
        }
        self.sync_directory(&self.trash)?;
        self.sync_directory(&self.backups)?;
        Ok(())
    }

    /// Removes what a trial leaves if it fails or is killed.
    fn remove_trial(&self) -> Result<(), durable::Error> {
        for directory in [&self.backups, &self.trash] {
            erase_leftover(&directory.join(NAME))?;
        }
        Ok(())
    }
}
