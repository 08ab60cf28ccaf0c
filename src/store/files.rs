//! Backups as files: `backups/<64 hex>`, mode 0600, whose modification time is the time of the upload.
//!
//! The directory looks like one made by hand for any WebDAV server, so an existing one is taken over by
//! pointing at it, and any tool that copies files copies it. There is no index: what is on disk is the
//! truth.
//!
//! Invariants: a name in `backups/` only ever points at a complete, synced file. Whoever replaces or
//! removes an existing backup holds an exclusive `flock` on that file, so that retention cannot erase a
//! backup that is being renewed, in this process or from another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use rustix::fs::{FlockOperation, OFlags, flock};

use super::{Error, Meta, Put, Store, Trashed, Version};
use crate::backup::BackupId;
use crate::durable::{self, TempFile};

/// How many directory entries are read in one go on a blocking thread: memory stays bounded however
/// many backups there are.
const LIST_CHUNK: usize = 256;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory cannot be created, written or synced.
    #[error("data directory {}: cannot be used", .path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What failed.
        #[source]
        source: durable::Error,
    },
    /// Another server runs on this directory.
    #[error("data directory {}: another server is using it; stop that one first", .0.display())]
    InUse(PathBuf),
}

/// Backups in a directory.
#[derive(Debug)]
pub struct FileStore {
    directories: Arc<Directories>,
    /// Held as long as this server runs on the directory.
    _claim: Option<File>,
}

#[derive(Debug)]
struct Directories {
    backups: PathBuf,
    trash: PathBuf,
    tmp: PathBuf,
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
            let unusable = |source| OpenError::Unusable {
                path: path.to_owned(),
                source,
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
                path: directory.to_owned(),
                source: durable::Error { operation, source },
            }
        };
        let claim = File::open(&store.directories.tmp).map_err(unusable("open tmp"))?;
        match flock(&claim, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(OpenError::InUse(directory.to_owned()));
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
            .unwrap_or_else(|panic| Err(durable::Error::at("task")(io::Error::other(panic))))
            .map_err(Error::from)
    }
}

impl Store for FileStore {
    fn put(&self, id: BackupId, body: Bytes) -> BoxFuture<'_, Result<Put, Error>> {
        Box::pin(self.blocking(move |directories| directories.put(id, &body)))
    }

    fn get(&self, id: BackupId) -> BoxFuture<'_, Result<Option<(Meta, Bytes)>, Error>> {
        Box::pin(self.blocking(move |directories| {
            let Some(mut file) = open_existing(&directories.backup(id))? else {
                return Ok(None);
            };
            let found = file.metadata().map_err(durable::Error::at("stat backup"))?;
            let mut body = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
            file.read_to_end(&mut body)
                .map_err(durable::Error::at("read backup"))?;
            Ok(Some((meta(&found), body.into())))
        }))
    }

    fn stat(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Meta>, Error>> {
        Box::pin(self.blocking(move |directories| {
            let found = look(&directories.backup(id))?;
            Ok(found.filter(fs::Metadata::is_file).as_ref().map(meta))
        }))
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
            Some(Trashed {
                id: id.parse().ok()?,
                removed_at: removed_at.parse().ok()?,
                length: found.len(),
            })
        })
    }

    fn erase_trashed(&self, trashed: Trashed) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.blocking(move |directories| {
            let path = directories.trashed(trashed.id, trashed.removed_at);
            let erased = erase(&path)?;
            durable::sync_directory(&directories.trash)?;
            Ok(erased)
        }))
    }
}

impl Directories {
    fn backup(&self, id: BackupId) -> PathBuf {
        self.backups.join(id.to_hex())
    }

    fn trashed(&self, id: BackupId, removed_at: u64) -> PathBuf {
        self.trash.join(format!("{}.{removed_at}", id.to_hex()))
    }

    fn put(&self, id: BackupId, body: &[u8]) -> Result<Put, durable::Error> {
        let target = self.backup(id);
        let mut file = TempFile::create_in(&self.tmp)?;
        file.write_durably(body)?;
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

    fn remove(&self, id: BackupId, now: SystemTime) -> Result<bool, durable::Error> {
        let target = self.backup(id);
        let Some(_lock) = lock_existing(&target)? else {
            return Ok(false);
        };
        self.discard(id, now)
    }

    fn expire(
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

fn erase(path: &Path) -> Result<bool, durable::Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(durable::Error::at("erase")(error)),
    }
}

fn meta(found: &fs::Metadata) -> Meta {
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

/// Does with an empty file what an upload does: what would fail then fails at the start.
fn try_rename(from: &Path, to: &Path) -> Result<(), durable::Error> {
    let file = TempFile::create_in(from)?;
    let target = to.join(file.name());
    file.rename_to(&target)?;
    fs::remove_file(&target).map_err(durable::Error::at("remove"))
}

fn sweep_leftovers(tmp: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tmp)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Streams the regular files of a directory whose names `parse` knows; others are not ours.
fn read_directory<T: Send + 'static>(
    directory: &Path,
    parse: impl Fn(&str, &fs::Metadata) -> Option<T> + Clone + Send + 'static,
) -> BoxStream<'static, Result<T, Error>> {
    enum Position {
        Unopened(PathBuf),
        Open(fs::ReadDir),
        End,
    }
    let chunks = stream::unfold(Position::Unopened(directory.to_owned()), move |position| {
        let parse = parse.clone();
        async move {
            let chunk = tokio::task::spawn_blocking(move || {
                let at = durable::Error::at;
                let mut entries = match position {
                    Position::Unopened(path) => match fs::read_dir(path) {
                        Ok(entries) => entries,
                        Err(error) => {
                            return Some((vec![Err(at("list")(error).into())], Position::End));
                        }
                    },
                    Position::Open(entries) => entries,
                    Position::End => return None,
                };
                let mut found = Vec::new();
                for entry in entries.by_ref().take(LIST_CHUNK) {
                    let item = entry.map_err(at("list")).and_then(|entry| {
                        let name = entry.file_name();
                        match entry.metadata() {
                            Ok(stat) if stat.is_file() => {
                                Ok(name.to_str().and_then(|name| parse(name, &stat)))
                            }
                            Ok(_) => Ok(None),
                            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                            Err(error) => Err(at("stat")(error)),
                        }
                    });
                    match item {
                        Ok(None) => found.push(None),
                        Ok(Some(item)) => found.push(Some(Ok(item))),
                        Err(error) => found.push(Some(Err(error.into()))),
                    }
                }
                let next = if found.len() < LIST_CHUNK {
                    Position::End
                } else {
                    Position::Open(entries)
                };
                Some((found.into_iter().flatten().collect(), next))
            });
            chunk.await.unwrap_or_default()
        }
    });
    chunks.flat_map(stream::iter::<Vec<_>>).boxed()
}
