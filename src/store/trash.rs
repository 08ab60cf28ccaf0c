//! Bringing backups back from the trash, and emptying it.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use futures_util::StreamExt;

use super::{Error, Restored, Store, Trashed};
use crate::backup::BackupId;

/// Which backups are wanted back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Those with these ids.
    Ids(HashSet<BackupId>),
    /// Those that were removed at this Unix time or later.
    Since(u64),
    /// All.
    All,
}

impl Selection {
    fn contains(&self, trashed: &Trashed) -> bool {
        match self {
            Self::Ids(ids) => ids.contains(&trashed.id),
            Self::Since(since) => trashed.removed_at >= *since,
            Self::All => true,
        }
    }
}

/// What was brought back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// Backups that are in their place again.
    pub restored: u64,
    /// Backups of which there is a newer version in its place.
    pub newer: u64,
    /// Ids of which nothing is in the trash.
    pub missing: u64,
    /// Backups that could not be moved; they are still in the trash.
    pub failed: u64,
}

/// What is in the trash of a selection: of each id the version that was removed last.
///
/// # Errors
/// When the trash cannot be listed.
pub async fn select(store: &dyn Store, selection: &Selection) -> Result<Vec<Trashed>, Error> {
    let mut newest = HashMap::<BackupId, Trashed>::new();
    let mut trash = store.list_trash();
    while let Some(listed) = trash.next().await {
        let trashed = listed?;
        if !selection.contains(&trashed) {
            continue;
        }
        let kept = newest.entry(trashed.id).or_insert(trashed);
        if trashed.removed_at > kept.removed_at {
            *kept = trashed;
        }
    }
    Ok(newest.into_values().collect())
}

/// Brings back what was selected, each as if it had been uploaded at `now`; never over a backup that is there.
/// Calls `progress` after each.
pub async fn restore(
    store: &dyn Store,
    selected: &[Trashed],
    now: SystemTime,
    mut progress: impl FnMut(),
) -> RestoreReport {
    let mut report = RestoreReport::default();
    for &trashed in selected {
        match store.restore(trashed, now).await {
            Ok(Restored::Back) => report.restored += 1,
            Ok(Restored::Newer) => report.newer += 1,
            Ok(Restored::Gone) => report.missing += 1,
            Err(error) => {
                report.failed += 1;
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a backup could not be brought back from the trash"
                );
            }
        }
        progress();
    }
    report
}

/// Erases the whole trash for good; says how many backups that were. Calls `progress` after each.
///
/// # Errors
/// When the trash cannot be listed or a backup cannot be erased.
pub async fn empty(store: &dyn Store, mut progress: impl FnMut()) -> Result<u64, Error> {
    let mut erased = 0;
    let mut trash = store.list_trash();
    while let Some(listed) = trash.next().await {
        erased += u64::from(store.erase_trashed(listed?).await?);
        progress();
    }
    Ok(erased)
}
