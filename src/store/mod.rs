//! Storage of backups: the [`Store`] trait, its implementation over files, and [`open`], which
//! selects the implementation.
//!
//! A store handles ids, bytes and upload times. It does not depend on HTTP, accounts or retention
//! rules, and it cannot decrypt backups.

mod files;
mod overwrite;
pub mod trash;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::backup::BackupId;
use crate::config::Storage;
use crate::private_file::NotMended;
use crate::state::{StateFile, StateStore};

pub use files::FileStore;
pub use overwrite::{KeepReplaced, MAX_KEPT_VERSIONS, Previous, Traits, Uploader};

/// The cause of an error; its type depends on the backend.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// Metadata of a stored backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Length of the blob in bytes.
    pub length: u64,
    /// When it was last uploaded.
    pub last_upload: SystemTime,
    /// Changes with every upload, even of the same bytes; the `ETag` is derived from it.
    pub version: Version,
}

/// Distinguishes the uploads under one id. Its value has no other meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub u128);

/// An upload of one whole backup.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The blob.
    pub body: Bytes,
    /// The time of the upload, which decides when the backup expires.
    pub at: SystemTime,
    /// The account that uploads it, if it is known.
    pub uploader: Option<Uploader>,
    /// When the version that it replaces is kept in the trash; `None` for never.
    pub keep: Option<KeepReplaced>,
}

impl Upload {
    /// An upload of `body` at this time, by an unknown account, that keeps nothing.
    #[must_use]
    pub fn new(body: Bytes, at: SystemTime) -> Self {
        Self {
            body,
            at,
            uploader: None,
            keep: None,
        }
    }

    /// What is compared with the version before.
    #[must_use]
    pub fn traits(&self) -> Traits {
        Traits {
            length: self.body.len() as u64,
            uploader: self.uploader,
        }
    }
}

/// The result of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// There was no backup under this id.
    Created,
    /// The backup under this id was replaced.
    Replaced,
    /// The backup under this id was replaced, and the change looked wrong.
    Suspicious(Previous),
}

/// How a version of a backup came into the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrashKind {
    /// An upload that looked wrong replaced it.
    Replaced,
    /// A phone deleted it, or it expired.
    Removed,
    /// The restore of another version replaced it, or an earlier one that it had replaced.
    RolledBack,
}

/// A version of a backup in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trashed {
    /// The backup's id.
    pub id: BackupId,
    /// How it came into the trash.
    pub kind: TrashKind,
    /// When it was removed or replaced, as Unix time in seconds.
    pub removed_at: u64,
    /// Length of the blob in bytes.
    pub length: u64,
    /// When it was last uploaded.
    pub last_upload: SystemTime,
}

/// The result of restoring a backup from the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// The backup was restored, with a new upload time.
    Back,
    /// A newer backup exists under the id, which stays; this one stays in the trash.
    Newer,
    /// The backup is no longer in the trash.
    Gone,
}

/// The result of reading and verifying a whole backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Length of the blob in bytes.
    pub length: u64,
    /// How the contents compare with the recorded checksum.
    pub contents: Contents,
}

/// The contents of a backup, compared with the recorded checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// The same bytes as when the checksum was recorded.
    Same,
    /// No checksum was recorded for this version. One is recorded now, if the storage supports it.
    FirstSeen,
    /// The bytes changed without an upload.
    Changed,
}

/// How much of a storage is examined for access of other users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A few files and directories.
    Directories,
    /// Every backup as well.
    Everything,
}

/// A part of a storage to which other users had access.
#[derive(Debug)]
pub struct Mended {
    /// The file or directory.
    pub place: String,
    /// The mode that it had, or why it keeps it.
    pub changed: Result<u32, NotMended>,
}

/// Why an operation of a store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No space left, or the disk quota is exceeded.
    #[error("no space left for backups")]
    Full(#[source] Cause),
    /// The storage cannot be reached at the moment. Nothing is damaged, and a retry may succeed.
    #[error("the storage cannot be reached")]
    Unavailable(#[source] Cause),
    /// Nothing can be written at the moment: the storage is read-only, the right to write is
    /// missing, or another server has claimed it. What is stored can be read.
    #[error("the storage is read-only")]
    ReadOnly(#[source] Cause),
    /// Any other failure.
    #[error("the storage failed")]
    Other(#[source] Cause),
}

/// Why a storage cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The storage cannot be created, written or reached.
    #[error("{place}: cannot be used")]
    Unusable {
        /// The storage, or the part of it that cannot be used.
        place: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The storage does not exist: no server has used it yet, or its disk is not mounted.
    #[error(
        "{place}: missing; the first start of the server creates it; if there should be backups, mount their disk"
    )]
    Missing {
        /// The storage.
        place: String,
    },
    /// Another server is using this storage.
    #[error("{place}: in use by another server; stop that server first")]
    InUse {
        /// The storage.
        place: String,
    },
}

/// The kind of process that opens a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The server, of which only one may use a storage: removes incomplete files of an earlier run,
    /// and locks the storage against other servers until the store is dropped. If there are backups,
    /// but nothing can be written, they can be read, and the rest is made up for later.
    Server,
    /// A command, while a server may be using the storage. It never creates a storage: if the disk of a
    /// running server went away, an empty directory in its place would tell phones that their
    /// backups do not exist.
    Command,
    /// As [`Access::Command`], for a command that only reads or only erases: opening writes nothing.
    Read,
}

/// An open storage.
#[derive(Clone)]
pub struct Opened {
    /// The backups.
    pub store: Arc<dyn Store>,
    /// The state between runs.
    pub state: Arc<dyn StateStore>,
}

/// Opens the storage that the configuration selects; creates it for [`Access::Server`].
///
/// # Errors
/// When the storage cannot be created or reached; for [`Access::Server`] when another server is
/// using it, or writing to it fails and there is nothing to read; for the others when it does not
/// exist.
pub fn open(storage: &Storage, access: Access) -> Result<Opened, OpenError> {
    match storage {
        Storage::Files { directory } => {
            let store = match access {
                Access::Server => FileStore::claim(directory)?,
                Access::Command => FileStore::open_existing(directory)?,
                Access::Read => FileStore::open_read_only(directory)?,
            };
            Ok(Opened {
                store: Arc::new(store),
                state: Arc::new(StateFile::in_directory(directory)),
            })
        }
    }
}

/// Storage of whole backups: every operation acts on one version of one backup, and an acknowledged
/// operation survives a crash.
pub trait Store: Send + Sync + 'static {
    /// Stores a backup under `id`, with the given time as its upload time; durable when it returns.
    /// If it fails or is cancelled, either the previous backup or the new one is stored, whole. The
    /// implementation keeps the body until it has finished, because the caller's limit on upload
    /// memory counts it until it is dropped.
    ///
    /// If the upload [looks wrong](Traits::look_wrong_after) beside the version that it replaces,
    /// and within the bounds of [`Upload::keep`] and [`MAX_KEPT_VERSIONS`], that version is in the
    /// trash before it loses its name. If it cannot be put there, the upload fails: the old version
    /// may be the only good one, while the uploader still has the new one.
    fn put(&self, id: BackupId, upload: Upload) -> BoxFuture<'_, Result<Put, Error>>;

    /// Reads one whole version of the backup; `None` if there is none.
    fn get(&self, id: BackupId) -> BoxFuture<'_, Result<Option<(Meta, Bytes)>, Error>>;

    /// Returns the metadata of the backup; `None` if there is none.
    fn stat(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Meta>, Error>>;

    /// Moves the backup to the trash; returns whether there was one. Durable when it returns.
    fn remove(&self, id: BackupId, now: SystemTime) -> BoxFuture<'_, Result<bool, Error>>;

    /// Moves the backup to the trash unless it was uploaded at `not_before` or later; returns
    /// whether it was moved. The upload time is checked at the moment of the move, so that a backup
    /// that was renewed since it was listed stays.
    fn expire(
        &self,
        id: BackupId,
        not_before: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, Error>>;

    /// Lists all backups in no particular order. Backups removed during the listing may be missing.
    fn list(&self) -> BoxStream<'static, Result<(BackupId, Meta), Error>>;

    /// Lists all backups in the trash, in no particular order.
    fn list_trash(&self) -> BoxStream<'static, Result<Trashed, Error>>;

    /// Restores a backup from the trash with the upload time `now`, unless a backup exists under
    /// its id, which is newer. Durable when it returns.
    fn restore(&self, trashed: Trashed, now: SystemTime) -> BoxFuture<'_, Result<Restored, Error>>;

    /// Restores a version that was [replaced](TrashKind) with the upload time `now`, also over an
    /// existing backup, which is then in the trash, rolled back. Unless it is `forced`, it restores
    /// only if the existing backup is the upload that replaced this version, or
    /// [looks wrong](Traits::look_wrong_after) beside it. Durable when it returns, and at every
    /// moment before one of the two is the backup.
    fn roll_back(
        &self,
        trashed: Trashed,
        now: SystemTime,
        forced: bool,
    ) -> BoxFuture<'_, Result<Restored, Error>>;

    /// Marks a [replaced](TrashKind::Replaced) version in the trash as
    /// [rolled back](TrashKind::RolledBack), because an earlier one was restored; nothing if it is
    /// no longer there.
    fn pass_over(&self, trashed: Trashed) -> BoxFuture<'_, Result<(), Error>>;

    /// Reads a whole backup from the storage, not from a cache, and compares it with its recorded
    /// checksum, which is recorded if it is missing; `None` if there is no backup.
    fn verify(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Verified>, Error>>;

    /// Tests whether the storage is writable, with the operations of an upload, a renewal and a
    /// removal, but stores nothing.
    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// What the storage cannot do as well as it should, as far as [`Store::try_write`] and other
    /// operations have found out: each with its consequence, for an operator.
    fn limitations(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// What other users of the machine may access, each with its remedy.
    fn exposures(&self, _scope: Scope) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Takes the access from other users. Changes modes alone.
    fn make_private(&self) -> BoxFuture<'_, Result<Vec<Mended>, Error>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Returns the free space in bytes; `None` if the storage does not report it.
    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>>;

    /// Erases one backup of the trash; returns whether it existed.
    fn erase_trashed(&self, trashed: Trashed) -> BoxFuture<'_, Result<bool, Error>>;
}
