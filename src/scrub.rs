//! Reading every backup from time to time, so that damage is noticed while the phone still has the original.
//!
//! A scrub reports and never removes: a damaged backup may still be the only one there is.

use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;

use crate::backup::BackupId;
use crate::state::Scrubbed;
use crate::store::{Contents, Error, Store};

/// Length of the shortest backup that an app can open: a nonce of 24 bytes, a tag of 16 and one byte
/// (docs/FORMAT.md).
const SHORTEST: u64 = 41;

/// What is wrong with a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Finding {
    /// It is too short to be one.
    Short,
    /// It has other bytes than were stored, and the same time.
    Changed,
    /// It cannot be read.
    Unreadable,
}

/// How fast backups are read at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes in a second.
    pub bytes: u64,
    /// Backups in a second.
    pub backups: u64,
}

impl Pace {
    /// What a server reads beside its work: a disk or a network file system does not feel it, and a hundred thousand
    /// backups of 50 KiB take an hour and a half.
    pub const GENTLE: Self = Self {
        bytes: 2 << 20,
        backups: 20,
    };

    /// How long a backup of this length takes at least.
    fn of(self, length: u64) -> Duration {
        let per_second = |amount: u64, rate: u64| {
            Duration::from_nanos(amount.saturating_mul(1_000_000_000) / rate.max(1))
        };
        per_second(length, self.bytes).max(per_second(1, self.backups))
    }
}

/// Reads all backups once, and calls `found` for each with what is wrong with it, or nothing. Without a pace it reads
/// as fast as it can. The time in the result is left at 0.
///
/// # Errors
/// When the listing goes wrong or the storage cannot be reached; single backups that cannot be read
/// are findings.
pub async fn scrub(
    store: &dyn Store,
    pace: Option<Pace>,
    mut found: impl FnMut(BackupId, Option<Finding>),
) -> Result<Scrubbed, Error> {
    let mut scrubbed = Scrubbed::default();
    let mut backups = store.list();
    while let Some(listed) = backups.next().await {
        let (id, meta) = listed?;
        let finding = match store.verify(id).await {
            // It was removed since it was listed.
            Ok(None) => continue,
            Ok(Some(verified)) if verified.length < SHORTEST => Some(Finding::Short),
            Ok(Some(verified)) => match verified.contents {
                Contents::Same | Contents::FirstSeen => None,
                Contents::Changed => Some(Finding::Changed),
            },
            // It says nothing of the backup: a network that is down damages none.
            Err(error @ Error::Unavailable(_)) => return Err(error),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "scrub: a backup cannot be read"
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
        if let Some(pace) = pace {
            tokio::time::sleep(pace.of(meta.length)).await;
        }
    }
    Ok(scrubbed)
}
