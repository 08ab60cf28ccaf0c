//! The listing of all backups for one PROPFIND, started before its response.
//!
//! Once the status is sent, the server can only cut the response off when the storage fails. So the
//! first item is read before that: if the storage cannot be reached, the response is 503, after
//! which clients retry.

use std::sync::{Mutex, MutexGuard};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::backup::BackupId;
use crate::lock::lock;
use crate::store::{Error, Meta, Store};

type Item = Result<(BackupId, Meta), Error>;

/// The listing of one request.
pub(crate) struct Listing {
    /// Whether the request lists all backups; otherwise there is no listing.
    is_requested: bool,
    started: Mutex<Option<BoxStream<'static, Item>>>,
}

impl Listing {
    pub(crate) fn new(is_requested: bool) -> Self {
        Self {
            is_requested,
            started: Mutex::default(),
        }
    }

    /// Reads the first item, which [`Listing::take`] returns again. Reads nothing if the request
    /// lists no backups.
    ///
    /// # Errors
    /// When the storage cannot be reached. Any other failure stays in the listing.
    pub(crate) async fn start(&self, store: &dyn Store) -> Result<(), Error> {
        if !self.is_requested {
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
