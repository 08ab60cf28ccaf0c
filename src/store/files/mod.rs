//! File storage: one file per backup, `backups/<64 hex>`, mode 0600, with the time of the upload as
//! modification time.
//!
//! The layout is that of any WebDAV server: an existing directory is taken over by configuring its
//! path, and any tool that copies files can copy it. There is no index: the files are the only
//! state.
//!
//! Invariants: a name in `backups/` always points to a complete, synced file. Every operation that
//! replaces or removes an existing backup holds an exclusive `flock` on its file, so that retention
//! cannot remove a backup that is being replaced, in this process or by another one. An operation
//! whose request is cancelled runs to its end, and leaves the old backup or the new one.
//!
//! Beside `backups/` are `trash/`, with removed backups until they are erased, and `tmp/`, with
//! incomplete uploads; the one server that may use the directory holds an exclusive `flock` on
//! `tmp/`. Each backup carries its checksum in an extended attribute, where the file system has
//! them.

mod backup_files;
mod checksum;
mod error;
mod large_reads;
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

use self::backup_files::{BackupFiles, Found, erase, meta};
use self::large_reads::{LargeReads, ReadPermit, SMALL};
use self::listing::read_directory;
use crate::backup::BackupId;
use crate::durable::{self, TempFile};
use crate::store::{Error, Meta, OpenError, Put, Restored, Store, Trashed, Upload, Verified};

/// Name of the file that a start creates to test whether a directory is writable.
const TRIAL_NAME: &str = ".trial.tmp";

/// A store of backups as files in a data directory.
#[derive(Debug)]
pub struct FileStore {
    files: Arc<BackupFiles>,
    large_reads: LargeReads,
    /// The server's exclusive lock on the directory.
    _claim: Option<File>,
}

impl FileStore {
    /// Opens `directory` for a command, while a server may be using it.
    ///
    /// # Errors
    /// When it contains no `backups/`; as [`FileStore::open`].
    pub fn open_existing(directory: &Path) -> Result<Self, OpenError> {
        let backups = directory.join("backups");
        match backups.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::Missing {
                place: place(&backups),
            }),
            _ => Self::open(directory),
        }
    }

    /// Opens `directory`, while a server may be using it. Creates what is missing.
    ///
    /// # Errors
    /// When the files cannot be created or written.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let files = BackupFiles {
            backups: directory.join("backups"),
            trash: directory.join("trash"),
            tmp: directory.join("tmp"),
        };
        for path in [directory, &files.tmp, &files.backups, &files.trash] {
            let unusable = |error: durable::Error| OpenError::Unusable {
                place: place(path),
                source: error.into(),
            };
            durable::create_directory(path).map_err(unusable)?;
            if path != directory {
                try_rename(&files.tmp, path).map_err(unusable)?;
            }
        }
        Ok(Self {
            files: Arc::new(files),
            large_reads: LargeReads::new(),
            _claim: None,
        })
    }

    /// Opens `directory` for the one server that may use it, and removes leftovers of an earlier
    /// server from `tmp/`.
    ///
    /// # Errors
    /// As [`FileStore::open`], and when another server is using the directory.
    pub fn claim(directory: &Path) -> Result<Self, OpenError> {
        if !directory.join("backups").exists() {
            // A warning, because the cause may also be a disk that is not mounted.
            tracing::warn!(directory = %directory.display(), "new data directory: it contains no backups");
        }
        let mut store = Self::open(directory)?;
        let unusable = |operation| {
            move |source| OpenError::Unusable {
                place: place(directory),
                source: durable::Error { operation, source }.into(),
            }
        };
        let claim = File::open(&store.files.tmp).map_err(unusable("open tmp"))?;
        match flock(&claim, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(OpenError::InUse {
                    place: place(directory),
                });
            }
            // A file system without locks: the operator has to ensure that only one server uses it.
            Err(error) => {
                tracing::warn!(%error, "data directory: file system has no locks");
            }
        }
        sweep_leftovers(&store.files.tmp).map_err(unusable("sweep tmp"))?;
        store._claim = Some(claim);
        Ok(store)
    }

    async fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BackupFiles) -> Result<T, durable::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let files = Arc::clone(&self.files);
        // Once started, the work runs to its end even if its future is dropped: a request that is
        // cancelled in the middle leaves the old backup or the new one.
        tokio::task::spawn_blocking(move || work(&files))
            .await
            .unwrap_or_else(|_| {
                // Without the panic message, which may contain anything; the panic hook logs the
                // location.
                let source = io::Error::other("it panicked");
                Err(durable::Error::at("task")(source))
            })
            .map_err(Error::from)
    }
}

impl Store for FileStore {
    fn put(&self, id: BackupId, upload: Upload) -> BoxFuture<'_, Result<Put, Error>> {
        Box::pin(self.spawn_blocking(move |files| files.put(id, &upload)))
    }

    fn get(&self, id: BackupId) -> BoxFuture<'_, Result<Option<(Meta, Bytes)>, Error>> {
        Box::pin(async move {
            let (mut limit, mut permit) = (SMALL, None);
            loop {
                let found = self.spawn_blocking(move |files| files.get(id, limit));
                match found.await? {
                    Found::None => return Ok(None),
                    Found::Whole(meta, body) => {
                        let body = match permit.take() {
                            None => body,
                            Some(permit) => ReadPermit::keep_with(permit, body),
                        };
                        return Ok(Some((meta, body)));
                    }
                    Found::Larger(length) => {
                        // An upload may have made it larger than what was waited for.
                        drop(permit.take());
                        permit = Some(self.large_reads.acquire(length).await?);
                        limit = length;
                    }
                }
            }
        })
    }

    fn stat(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Meta>, Error>> {
        Box::pin(self.spawn_blocking(move |files| files.stat(id)))
    }

    fn remove(&self, id: BackupId, now: SystemTime) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.spawn_blocking(move |files| files.remove(id, now)))
    }

    fn expire(
        &self,
        id: BackupId,
        not_before: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.spawn_blocking(move |files| files.expire(id, not_before, now)))
    }

    fn list(&self) -> BoxStream<'static, Result<(BackupId, Meta), Error>> {
        read_directory(&self.files.backups, |name, found| {
            Some((name.parse().ok()?, meta(found)))
        })
    }

    fn list_trash(&self) -> BoxStream<'static, Result<Trashed, Error>> {
        read_directory(&self.files.trash, |name, found| {
            let (id, removed_at) = name.split_once('.')?;
            // Only the canonical form, from which the file name can be rebuilt.
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
        Box::pin(self.spawn_blocking(move |files| files.restore(trashed, now)))
    }

    fn verify(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Verified>, Error>> {
        Box::pin(self.spawn_blocking(move |files| files.verify(id)))
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.spawn_blocking(BackupFiles::try_write))
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        Box::pin(self.spawn_blocking(BackupFiles::free_bytes))
    }

    fn erase_trashed(&self, trashed: Trashed) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.spawn_blocking(move |files| files.erase_trashed(trashed)))
    }
}

fn place(directory: &Path) -> String {
    format!("data directory {}", directory.display())
}

/// Creates and renames an empty file as an upload does, so that errors are reported at the start.
fn try_rename(from: &Path, to: &Path) -> Result<(), durable::Error> {
    // Always the same name: the next start replaces and removes what a crash leaves.
    let target = to.join(TRIAL_NAME);
    TempFile::create_in(from)?.rename_to(&target)?;
    // Another process that starts at the same time may have removed it already.
    erase(&target).map(drop)
}

fn sweep_leftovers(tmp: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tmp)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            // A concurrent command may just have renamed the file.
            erase(&entry.path()).map_err(|error| error.source)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_large_backup_waits_for_memory_and_others_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path()).unwrap();
        let lengths = [256 << 20, SMALL + 1, SMALL];
        for (id, length) in (1..).zip(lengths) {
            let path = directory.path().join("backups").join(format!("{id:064x}"));
            let created = File::options().write(true).create_new(true).open(path);
            created.unwrap().set_len(length).unwrap();
        }
        let read = async |id: u8| {
            let id = format!("{id:064x}").parse().unwrap();
            store.get(id).await.map(|found| found.unwrap().1)
        };

        let largest = read(1).await.unwrap();
        assert_eq!(largest.len(), 256 << 20);
        assert_eq!(read(3).await.unwrap().len() as u64, SMALL);
        let part = largest.slice(..1);
        drop(largest);
        assert!(matches!(read(2).await, Err(Error::Unavailable(_))));
        drop(part);

        let large = read(2).await.unwrap();
        assert_eq!(large.len() as u64, SMALL + 1);
        assert!(matches!(read(1).await, Err(Error::Unavailable(_))));
        drop(large);
        assert!(read(1).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_without_the_panic_message() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path()).unwrap();

        let work = |_: &BackupFiles| -> Result<(), durable::Error> { panic!("hunter2") };
        let error = store.spawn_blocking(work).await.unwrap_err();

        let cause = error.source().unwrap().source().unwrap().to_string();
        assert_eq!(cause, "it panicked");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
