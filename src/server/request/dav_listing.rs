//! The listing of all backups for one PROPFIND, started before its response.
//!
//! A response whose status is sent can only be cut off when the storage fails. The first item is
//! therefore read before, so that a storage that cannot be reached is answered with 503, which
//! tells a client to come back.

use std::sync::{Mutex, MutexGuard};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::backup::BackupId;
use crate::lock::lock;
use crate::store::{Error, Meta, Store};

type Item = Result<(BackupId, Meta), Error>;

/// The listing of one request.
pub(crate) struct Listing {
    /// Whether the request is for all backups.
    is_wanted: bool,
    started: Mutex<Option<BoxStream<'static, Item>>>,
}

impl Listing {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            started: Mutex::default(),
        }
    }

    /// Reads the first item, which [`Listing::take`] returns again; nothing where the listing is
    /// not wanted.
    ///
    /// # Errors
    /// When the storage cannot be reached. Any other failure stays in the listing.
    pub(crate) async fn start(&self, store: &dyn Store) -> Result<(), Error> {
        if !self.is_wanted {
            return Ok(());
        }
        // A listing may not be polled again after its end.
        let mut items = store.list().fuse();
        let first = match items.next().await {
            Some(Err(error @ Error::Unavailable(_))) => return Err(error),
            first => first,
        };
        *self.lock() = Some(stream::iter(first).chain(items).boxed());
        Ok(())
    }

    /// The listing from its first item on.
    pub(crate) fn take(&self, store: &dyn Store) -> BoxStream<'static, Item> {
        let started = self.lock().take();
        started.unwrap_or_else(|| store.list())
    }

    fn lock(&self) -> MutexGuard<'_, Option<BoxStream<'static, Item>>> {
        lock(&self.started)
    }
}
