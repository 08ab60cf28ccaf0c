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
//! Beside `backups/` are `trash/`, with removed and replaced backups until they are erased, and
//! `tmp/`, with incomplete uploads; the one server that may write to the directory holds exclusive
//! locks on `backups/` and `tmp/` (`claim.rs`). Each backup carries its checksum and the tag of its
//! uploader in an extended attribute, where the file system has
//! them.

mod backup_files;
mod checksum;
mod claim;
mod error;
mod lacking;
mod large_reads;
mod listing;
mod permissions;
mod replaced;
mod steps;
mod trial;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use self::backup_files::{BackupFiles, Found, meta};
use self::claim::{Claim, is_in_use};
use self::large_reads::{LargeReads, ReadPermit, SMALL};
use self::listing::read_directory;
use crate::backup::BackupId;
use crate::durable;
use crate::file_system::Call;
use crate::store::{
    Error, Mended, Meta, OpenError, Put, Restored, Scope, Store, Trashed, Upload, Verified,
};

/// A store of backups as files in a data directory.
#[derive(Debug)]
pub struct FileStore {
    files: Arc<BackupFiles>,
    large_reads: LargeReads,
    claim: Arc<Claim>,
    /// Held during a trial, so that a file system that hangs blocks one thread only.
    trial: Arc<tokio::sync::Mutex<()>>,
}

impl FileStore {
    /// Opens `directory` for a command that only reads, or that makes room. Writes nothing.
    ///
    /// # Errors
    /// When it contains no `backups/`, or they cannot be examined.
    pub fn open_read_only(directory: &Path) -> Result<Self, OpenError> {
        let files = BackupFiles::in_directory(directory);
        match files.backups.metadata() {
            Ok(_) => Ok(Self::with(files, Claim::of_command())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::Missing {
                place: place(&files.backups),
            }),
            Err(error) => {
                let error = durable::Error::at("stat backups")(error);
                Err(unusable(&files.backups, error))
            }
        }
    }

    /// Opens `directory` for a command, while a server may be using it.
    ///
    /// # Errors
    /// As [`FileStore::open_read_only`] and [`FileStore::open`].
    pub fn open_existing(directory: &Path) -> Result<Self, OpenError> {
        Self::open_read_only(directory)?;
        Self::open(directory)
    }

    /// Opens `directory`, while a server may be using it. Creates what is missing.
    ///
    /// # Errors
    /// When the directories cannot be created.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let files = BackupFiles::in_directory(directory);
        for path in [directory, &files.tmp, &files.backups, &files.trash] {
            durable::create_directory(path).map_err(|error| unusable(path, error))?;
        }
        Ok(Self::with(files, Claim::of_command()))
    }

    /// Opens `directory` for the one server that may write to it, and removes leftovers of an
    /// earlier server from `tmp/`. If there are backups, but nothing can be written at the moment,
    /// they can be read, and the rest is made up for by the first write that succeeds.
    ///
    /// # Errors
    /// When another server is using the directory; when `backups/` cannot be created or read; when
    /// the trial of a write fails for another reason than a full or read-only storage.
    pub fn claim(directory: &Path) -> Result<Self, OpenError> {
        let files = BackupFiles::in_directory(directory);
        if !files.backups.exists() {
            // A warning, because the cause may also be a disk that is not mounted.
            tracing::warn!(directory = %directory.display(), "new data directory: it contains no backups");
        }
        for path in [directory, &files.backups] {
            durable::create_directory(path).map_err(|error| unusable(path, error))?;
        }
        let store = Self::with(files, Claim::of_server());
        let (files, claim) = (&store.files, &store.claim);
        match claim.prepare(files).and_then(|()| files.try_write()) {
            Ok(()) => {}
            Err(error) if is_in_use(&error) => {
                return Err(OpenError::InUse {
                    place: place(directory),
                });
            }
            Err(error) => {
                let error = Error::from(error);
                if !matches!(error, Error::Full(_) | Error::ReadOnly(_)) {
                    return Err(OpenError::Unusable {
                        place: place(directory),
                        source: error.into(),
                    });
                }
                // Without them nothing at all could be served.
                fs::read_dir(&files.backups)
                    .map_err(durable::Error::at("list"))
                    .map_err(|error| unusable(&files.backups, error))?;
                claim.cannot_write();
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "storage not writable: only restores are served"
                );
            }
        }
        files.lacking.log();
        for exposure in files.exposures(Scope::Directories) {
            tracing::warn!(%exposure, "data directory accessible to other users");
        }
        Ok(store)
    }

    fn with(files: BackupFiles, claim: Claim) -> Self {
        Self {
            files: Arc::new(files),
            large_reads: LargeReads::new(),
            claim: Arc::new(claim),
            trial: Arc::default(),
        }
    }

    /// Runs `work`, which changes the directory, once it is prepared.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BackupFiles) -> Result<T, durable::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let claim = Arc::clone(&self.claim);
        self.spawn_blocking(move |files| {
            claim.prepare(files)?;
            work(files)
        })
        .await
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
        Box::pin(async move {
            let put = self.change(move |files| files.put(id, &upload)).await?;
            self.claim.has_written(&self.files);
            Ok(put)
        })
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
        Box::pin(self.change(move |files| files.remove(id, now)))
    }

    fn expire(
        &self,
        id: BackupId,
        not_before: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.change(move |files| files.expire(id, not_before, now)))
    }

    fn list(&self) -> BoxStream<'static, Result<(BackupId, Meta), Error>> {
        read_directory(&self.files.backups, |name, found| {
            Some((name.parse().ok()?, meta(found)))
        })
    }

    fn list_trash(&self) -> BoxStream<'static, Result<Trashed, Error>> {
        read_directory(&self.files.trash, |name, found| {
            let (id, kind, removed_at) = replaced::parse_name(name)?;
            Some(Trashed {
                id,
                kind,
                removed_at,
                length: found.len(),
                last_upload: meta(found).last_upload,
            })
        })
    }

    fn restore(&self, trashed: Trashed, now: SystemTime) -> BoxFuture<'_, Result<Restored, Error>> {
        Box::pin(self.change(move |files| files.restore(trashed, now)))
    }

    fn roll_back(
        &self,
        trashed: Trashed,
        now: SystemTime,
        forced: bool,
    ) -> BoxFuture<'_, Result<Restored, Error>> {
        Box::pin(self.change(move |files| files.roll_back(trashed, now, forced)))
    }

    fn pass_over(&self, trashed: Trashed) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.change(move |files| files.pass_over(trashed)))
    }

    fn verify(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Verified>, Error>> {
        Box::pin(self.spawn_blocking(move |files| files.verify(id)))
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let trying = Arc::clone(&self.trial).lock_owned().await;
            self.change(move |files| {
                // Released when the trial ends, not when the caller is cancelled.
                let _trying = trying;
                files.try_write()
            })
            .await?;
            self.claim.has_written(&self.files);
            Ok(())
        })
    }

    fn limitations(&self) -> Vec<&'static str> {
        let calls = self.files.lacking.calls();
        calls.into_iter().map(Call::consequence).collect()
    }

    fn exposures(&self, scope: Scope) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(self.spawn_blocking(move |files| Ok(files.exposures(scope))))
    }

    fn make_private(&self) -> BoxFuture<'_, Result<Vec<Mended>, Error>> {
        Box::pin(self.spawn_blocking(|files| {
            files
                .make_private()
                .map_err(durable::Error::at("examine permissions"))
        }))
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        Box::pin(self.spawn_blocking(BackupFiles::free_bytes))
    }

    fn erase_trashed(&self, trashed: Trashed) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.change(move |files| files.erase_trashed(trashed)))
    }
}

fn place(directory: &Path) -> String {
    format!("data directory {}", directory.display())
}

fn unusable(path: &Path, error: durable::Error) -> OpenError {
    OpenError::Unusable {
        place: place(path),
        source: error.into(),
    }
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
            let created = fs::File::options().write(true).create_new(true).open(path);
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
