//! Backups as files: `backups/<64 hex>`, mode 0600, whose modification time is the time of the upload.
//!
//! The directory looks like one made by hand for any WebDAV server, so an existing one is taken over by
//! pointing at it, and any tool that copies files copies it. There is no index: what is on disk is the
//! truth.
//!
//! Invariants: a name in `backups/` only ever points at a complete, synced file. Whoever replaces or
//! removes an existing backup holds an exclusive `flock` on that file, so that retention cannot erase a
//! backup that is being renewed, in this process or from another.

mod checksum;
mod directories;
mod error;
mod listing;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use rustix::fs::{FlockOperation, flock};

use self::directories::{Directories, erase, meta};
use self::listing::read_directory;
use super::{Error, Meta, OpenError, Put, Restored, Store, Trashed, Verified};
use crate::backup::BackupId;
use crate::durable::{self, TempFile};

/// The name under which a start tries whether it can put files in a directory.
const TRIAL: &str = ".trial.tmp";

/// Backups in a directory.
#[derive(Debug)]
pub struct FileStore {
    directories: Arc<Directories>,
    /// Held as long as this server runs on the directory.
    _claim: Option<File>,
}

impl FileStore {
    /// Opens `directory` beside a server that may be running on it: for the command line. Creates what
    /// is missing.
    ///
    /// # Errors
    /// When the directories cannot be created or written.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let directories = Directories {
            backups: directory.join("backups"),
            trash: directory.join("trash"),
            tmp: directory.join("tmp"),
        };
        for path in [
            directory,
            &directories.tmp,
            &directories.backups,
            &directories.trash,
        ] {
            let unusable = |error: durable::Error| OpenError::Unusable {
                place: place(path),
                source: error.into(),
            };
            durable::create_directory(path).map_err(unusable)?;
            if path != directory {
                try_rename(&directories.tmp, path).map_err(unusable)?;
            }
        }
        Ok(Self {
            directories: Arc::new(directories),
            _claim: None,
        })
    }

    /// Opens `directory` for the one server that runs on it, and sweeps what an earlier one left in
    /// `tmp/`.
    ///
    /// # Errors
    /// As [`FileStore::open`], and when another server has the directory.
    pub fn claim(directory: &Path) -> Result<Self, OpenError> {
        if !directory.join("backups").exists() {
            // Said aloud, because it may also be a disk that is not mounted.
            tracing::warn!(directory = %directory.display(), "the data directory is new: it holds no backups");
        }
        let mut store = Self::open(directory)?;
        let unusable = |operation| {
            move |source| OpenError::Unusable {
                place: place(directory),
                source: durable::Error { operation, source }.into(),
            }
        };
        let claim = File::open(&store.directories.tmp).map_err(unusable("open tmp"))?;
        match flock(&claim, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(OpenError::InUse {
                    place: place(directory),
                });
            }
            // A file system without locks: the operator has to see to it that there is one server.
            Err(error) => {
                tracing::warn!(%error, "the file system of the data directory has no locks");
            }
        }
        sweep_leftovers(&store.directories.tmp).map_err(unusable("sweep tmp"))?;
        store._claim = Some(claim);
        Ok(store)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directories) -> Result<T, durable::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let directories = Arc::clone(&self.directories);
        // Once started, the work runs to its end, whoever is still waiting for it: a request that goes
        // away in the middle leaves the old backup or the new one.
        tokio::task::spawn_blocking(move || work(&directories))
            .await
            .unwrap_or_else(|_| {
                // A panic's own text may hold anything; the panic hook says where it was.
                let source = io::Error::other("it panicked");
                Err(durable::Error::at("task")(source))
            })
            .map_err(Error::from)
    }
}

impl Store for FileStore {
    fn put(&self, id: BackupId, body: Bytes) -> BoxFuture<'_, Result<Put, Error>> {
        Box::pin(self.blocking(move |directories| directories.put(id, &body)))
    }

    fn get(&self, id: BackupId) -> BoxFuture<'_, Result<Option<(Meta, Bytes)>, Error>> {
        Box::pin(self.blocking(move |directories| directories.get(id)))
    }

    fn stat(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Meta>, Error>> {
        Box::pin(self.blocking(move |directories| directories.stat(id)))
    }

    fn remove(&self, id: BackupId, now: SystemTime) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.blocking(move |directories| directories.remove(id, now)))
    }

    fn expire(
        &self,
        id: BackupId,
        not_before: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.blocking(move |directories| directories.expire(id, not_before, now)))
    }

    fn list(&self) -> BoxStream<'static, Result<(BackupId, Meta), Error>> {
        read_directory(&self.directories.backups, |name, found| {
            Some((name.parse().ok()?, meta(found)))
        })
    }

    fn list_trash(&self) -> BoxStream<'static, Result<Trashed, Error>> {
        read_directory(&self.directories.trash, |name, found| {
            let (id, removed_at) = name.split_once('.')?;
            // In the one spelling that the name is made of again.
            if removed_at != "0" && removed_at.starts_with(['0', '+']) {
                return None;
            }
            Some(Trashed {
                id: id.parse().ok()?,
                removed_at: removed_at.parse().ok()?,
                length: found.len(),
                last_upload: meta(found).last_upload,
            })
        })
    }

    fn restore(&self, trashed: Trashed, now: SystemTime) -> BoxFuture<'_, Result<Restored, Error>> {
        Box::pin(self.blocking(move |directories| directories.restore(trashed, now)))
    }

    fn verify(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Verified>, Error>> {
        Box::pin(self.blocking(move |directories| directories.verify(id)))
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.blocking(Directories::try_write))
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        Box::pin(self.blocking(Directories::free_bytes))
    }

    fn erase_trashed(&self, trashed: Trashed) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.blocking(move |directories| directories.erase_trashed(trashed)))
    }
}

fn place(directory: &Path) -> String {
    format!("data directory {}", directory.display())
}

/// Does with an empty file what an upload does: what would fail then fails at the start.
fn try_rename(from: &Path, to: &Path) -> Result<(), durable::Error> {
    // Always the same name: what a crash leaves of it, the next start replaces and removes.
    let target = to.join(TRIAL);
    TempFile::create_in(from)?.rename_to(&target)?;
    // Somebody who tries at the same time may have removed it already.
    erase(&target).map(drop)
}

fn sweep_leftovers(tmp: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tmp)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            // A command beside it may just have given a file its name.
            erase(&entry.path()).map_err(|error| error.source)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_that_does_not_quote_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path()).unwrap();

        let work = |_: &Directories| -> Result<(), durable::Error> { panic!("hunter2") };
        let error = store.blocking(work).await.unwrap_err();

        let cause = error.source().unwrap().source().unwrap().to_string();
        assert_eq!(cause, "it panicked");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
