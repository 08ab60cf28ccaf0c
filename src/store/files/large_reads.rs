//! Memory budget for large backups that are read. A backup is sent from memory, as slowly as its
//! client reads; hundreds of the largest at the same time would take all there is.
//!
//! Backups of the usual size are not counted: the number of connections bounds them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::backup_files::MAX_LENGTH;
use crate::store::Error;

/// Backups up to this length, in bytes, are read without a permit: four times the default of
/// `maxBackupBytes`, which is more than the largest address books have.
pub(super) const SMALL: u64 = 2 << 20;
/// How long a read waits for memory. Shorter than any app waits for a response.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The budget, of one backup of the maximum length.
#[derive(Debug)]
pub(super) struct LargeReads(Arc<Semaphore>);

/// The memory of one backup; released when it is dropped.
#[derive(Debug)]
pub(super) struct ReadPermit {
    _permit: OwnedSemaphorePermit,
}

/// The bytes of a backup with their permit.
struct Permitted {
    body: Bytes,
    _permit: ReadPermit,
}

impl AsRef<[u8]> for Permitted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl LargeReads {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(permits(MAX_LENGTH) as usize)))
    }

    /// Waits until there is memory for a backup of `length` bytes.
    ///
    /// # Errors
    /// When others take it for too long; a later request may succeed.
    pub(super) async fn acquire(&self, length: u64) -> Result<ReadPermit, Error> {
        let permit = Arc::clone(&self.0).acquire_many_owned(permits(length));
        match timeout(MAX_WAIT, permit).await {
            Ok(Ok(permit)) => Ok(ReadPermit { _permit: permit }),
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable(
                "too many large backups are being read at the same time".into(),
            )),
        }
    }
}

impl ReadPermit {
    /// Keeps the permit until the bytes are dropped.
    pub(super) fn keep_with(self, body: Bytes) -> Bytes {
        Bytes::from_owner(Permitted {
            body,
            _permit: self,
        })
    }
}

/// The permits of a backup: one for each KiB.
fn permits(length: u64) -> u32 {
    u32::try_from(length.min(MAX_LENGTH) >> 10).unwrap_or(u32::MAX)
}
