//! Where backups live: the [`Store`] trait, its implementation over files, and the one place that
//! chooses between implementations, [`open`].
//!
//! A store knows ids, bytes and times of upload. It knows nothing of HTTP, accounts or retention rules,
//! and cannot open what it keeps.

mod files;
pub mod trash;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::backup::BackupId;
use crate::config::Storage;
use crate::state::{StateFile, StateStore};

pub use files::FileStore;

/// A cause of any kind; what it is depends on the backend.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// What is known of a stored backup without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Length of the blob in bytes.
    pub length: u64,
    /// When it was last uploaded.
    pub last_upload: SystemTime,
    /// Changes with every upload, also of the same bytes; what an ETag is made of.
    pub version: Version,
}

/// Tells two uploads under one id apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub u128);

/// How an upload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// There was no backup under this id.
    Created,
    /// The backup under this id was replaced.
    Replaced,
}

/// One file in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trashed {
    /// The backup's id.
    pub id: BackupId,
    /// When it was removed, to the second: Unix time.
    pub removed_at: u64,
    /// Length of the blob in bytes.
    pub length: u64,
    /// When it was last uploaded.
    pub last_upload: SystemTime,
}

/// How bringing a backup back from the trash ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// It is in its place again, with a new time.
    Back,
    /// There is a backup under its id, which is newer; this one stays in the trash.
    Newer,
    /// It is not in the trash any more.
    Gone,
}

/// What reading a backup from its first byte to its last showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// How many bytes there are.
    pub length: u64,
    /// What has become of its contents.
    pub contents: Contents,
}

/// A backup's contents beside what is remembered of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// The same bytes as when they were stored or first seen.
    Same,
    /// Nothing was remembered of this version. Now it is, where the storage can.
    FirstSeen,
    /// Other bytes under the same time, without an upload.
    Changed,
}

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No space, or over the disk quota.
    #[error("no space left for backups")]
    Full(#[source] Cause),
    /// The storage cannot be reached right now: the same request may succeed in a while, and
    /// nothing is damaged.
    #[error("the storage cannot be reached")]
    Unavailable(#[source] Cause),
    /// Anything else.
    #[error("the storage failed")]
    Other(#[source] Cause),
}

/// Why a storage cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be created, written or reached.
    #[error("{place}: cannot be used")]
    Unusable {
        /// The storage, or the part of it that cannot be used.
        place: String,
        /// What failed.
        #[source]
        source: Cause,
    },
    /// Another server runs on this storage.
    #[error("{place}: in use by another server; stop that server first")]
    InUse {
        /// The storage.
        place: String,
    },
}

/// The kind of process that opens a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The one server that runs on it: removes what an earlier run left, and keeps other servers
    /// out as long as the store lives.
    Server,
    /// A command, beside a server that may be running on it.
    Command,
}

/// An open storage.
#[derive(Clone)]
pub struct Opened {
    /// The backups.
    pub store: Arc<dyn Store>,
    /// What is remembered beside them.
    pub state: Arc<dyn StateStore>,
}

/// Opens the storage that the configuration selects; creates what is missing.
///
/// # Errors
/// When it cannot be created, written or reached, and for [`Access::Server`] when another server
/// has it.
pub fn open(storage: &Storage, access: Access) -> Result<Opened, OpenError> {
    match storage {
        Storage::Files { directory } => {
            let store = match access {
                Access::Server => FileStore::claim(directory)?,
                Access::Command => FileStore::open(directory)?,
            };
            Ok(Opened {
                store: Arc::new(store),
                state: Arc::new(StateFile::in_directory(directory)),
            })
        }
    }
}

/// A place that keeps backups whole: every operation acts on one version of one backup, and what was
/// acknowledged survives a crash.
pub trait Store: Send + Sync + 'static {
    /// Stores `body` under `id`; durable when it returns. When it fails, or its caller goes away, the
    /// previous backup is still there or the new one is, whole. `body` counts as under way until it is dropped.
    fn put(&self, id: BackupId, body: Bytes) -> BoxFuture<'_, Result<Put, Error>>;

    /// Reads the backup, one whole version.
    fn get(&self, id: BackupId) -> BoxFuture<'_, Result<Option<(Meta, Bytes)>, Error>>;

    /// What is known of the backup, without reading it.
    fn stat(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Meta>, Error>>;

    /// Moves the backup into the trash; says whether there was one. Durable when it returns.
    fn remove(&self, id: BackupId, now: SystemTime) -> BoxFuture<'_, Result<bool, Error>>;

    /// Moves the backup into the trash unless it was uploaded at `not_before` or later, looking at the
    /// moment of moving: a backup that was renewed since it was listed stays. Says whether it was moved.
    fn expire(
        &self,
        id: BackupId,
        not_before: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, Error>>;

    /// All backups, in no order. What vanishes while listing is left out.
    fn list(&self) -> BoxStream<'static, Result<(BackupId, Meta), Error>>;

    /// All files in the trash, in no order.
    fn list_trash(&self) -> BoxStream<'static, Result<Trashed, Error>>;

    /// Brings a backup back from the trash, as if it had been uploaded at `now`, unless there is one under its
    /// id: that one is newer. Durable when it returns.
    fn restore(&self, trashed: Trashed, now: SystemTime) -> BoxFuture<'_, Result<Restored, Error>>;

    /// Reads a whole backup from the storage itself and compares it with what is remembered of it; changes
    /// nothing else.
    fn verify(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Verified>, Error>>;

    /// Does what an upload does to the storage, short of storing anything: whether it can be written to. Leaves nothing.
    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// How many bytes more can be stored; `None` where the storage does not know.
    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>>;

    /// Erases one file of the trash; says whether it was there.
    fn erase_trashed(&self, trashed: Trashed) -> BoxFuture<'_, Result<bool, Error>>;
}
