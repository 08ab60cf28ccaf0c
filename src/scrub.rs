//! Scrub: reads every backup and verifies its checksum, so that damage is detected while the phone
//! still has the original.
//!
//! A scrub reports damage and never removes a backup: a damaged one may be the only copy.

use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;

use crate::backup::BackupId;
use crate::state::Scrubbed;
use crate::store::{Contents, Error, Store};

/// Length of the shortest backup that an app can open, in bytes: 24 of nonce, 16 of tag and one of
/// ciphertext (docs/FORMAT.md §3).
const MIN_BACKUP_LENGTH: u64 = 41;

/// Damage of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Finding {
    /// The file is shorter than any backup.
    Short,
    /// The contents no longer match the checksum, although the modification time is unchanged.
    Changed,
    /// The file cannot be read, or is longer than any backup.
    Unreadable,
}

/// The greatest speed at which a scrub reads backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRate {
    /// Bytes per second.
    pub bytes: u64,
    /// Backups per second.
    pub backups: u64,
}

impl ReadRate {
    /// The rate of a scrub in the background of a server, 2 MiB and 20 backups per second: no
    /// noticeable load for a disk or a network file system. 100,000 backups of 50 KiB take an hour
    /// and a half.
    pub const BACKGROUND: Self = Self {
        bytes: 2 << 20,
        backups: 20,
    };

    /// The shortest time that a backup of this length, in bytes, may take.
    fn min_duration(self, length: u64) -> Duration {
        let per_second = |amount: u64, rate: u64| {
            Duration::from_nanos(amount.saturating_mul(1_000_000_000) / rate.max(1))
        };
        per_second(length, self.bytes).max(per_second(1, self.backups))
    }
}

/// Reads all backups once, and calls `found` for each with its damage, if any. Without a rate it
/// reads as fast as possible. `finished` in the result is 0; the caller has to set it.
///
/// # Errors
/// When the backups cannot be listed or the storage cannot be reached. A single backup that cannot
/// be read is a finding instead.
pub async fn scrub(
    store: &dyn Store,
    rate: Option<ReadRate>,
    mut found: impl FnMut(BackupId, Option<Finding>),
) -> Result<Scrubbed, Error> {
    let mut scrubbed = Scrubbed::default();
    let mut backups = store.list();
    while let Some(listed) = backups.next().await {
        let (id, _) = listed?;
        let mut verified = store.verify(id).await;
        if let Err(error @ Error::Unavailable(_)) = verified {
            // No finding: an unreachable storage does not mean that the backup is damaged.
            // A storage that says that it is full or read-only is there.
            match store.try_write().await {
                Ok(()) | Err(Error::Full(_) | Error::ReadOnly(_)) => {}
                Err(Error::Unavailable(_) | Error::Other(_)) => return Err(error),
            }
            // It is back, or only this backup cannot be read.
            verified = store.verify(id).await;
        }
        // Of a backup that cannot be read, or is too long to be one, next to nothing was read: its
        // length from the listing would stop the scrub for days.
        let read = verified
            .as_ref()
            .map_or(0, |verified| verified.map_or(0, |verified| verified.length));
        let finding = match verified {
            // It was removed after it was listed.
            Ok(None) => continue,
            Ok(Some(verified)) if verified.length < MIN_BACKUP_LENGTH => Some(Finding::Short),
            Ok(Some(verified)) => match verified.contents {
                Contents::Same | Contents::FirstSeen => None,
                Contents::Changed => Some(Finding::Changed),
            },
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "scrub: backup cannot be read"
                );
                Some(Finding::Unreadable)
            }
        };
        *match finding {
            None => &mut scrubbed.sound,
            Some(Finding::Short) => &mut scrubbed.short,
            Some(Finding::Changed) => &mut scrubbed.changed,
            Some(Finding::Unreadable) => &mut scrubbed.unreadable,
        } += 1;
        found(id, finding);
        if let Some(rate) = rate {
            tokio::time::sleep(rate.min_duration(read)).await;
        }
    }
    Ok(scrubbed)
}
