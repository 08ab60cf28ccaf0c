//! Trash operations: selecting backups, restoring them, and erasing all of them.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use futures_util::StreamExt;

use super::{Error, Restored, Store, Trashed};
use crate::backup::BackupId;

/// A selection of backups in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The backups with these ids.
    Ids(HashSet<BackupId>),
    /// The backups removed at this Unix time (in seconds) or later.
    Since(u64),
    /// All backups in the trash.
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

/// The result of a restore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// The number of restored backups.
    pub restored: u64,
    /// The number of backups not restored because a newer version exists.
    pub newer: u64,
    /// The number of ids without a backup in the trash.
    pub missing: u64,
    /// The number of backups that could not be moved; they are still in the trash.
    pub failed: u64,
}

/// Lists the selected backups in the trash: for each id, the version removed last.
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

/// Restores the selected backups with the upload time `now`, never over an existing backup. Calls
/// `progress` after each. Failures are logged and counted.
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
                    "restore from trash failed"
                );
            }
        }
        progress();
    }
    report
}

/// Erases everything in the trash for good, and returns the number of backups erased. Calls
/// `progress` after each.
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::store::{FileStore, Upload};

    #[tokio::test]
    async fn what_cannot_be_restored_is_counted_as_missing_newer_or_failed() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path()).unwrap();
        let now = UNIX_EPOCH;
        for number in 0..9 {
            let id = BackupId::from_bytes([number; 32]);
            let upload = || Upload::new("backup".into(), now);
            store.put(id, upload()).await.unwrap();
            assert!(store.remove(id, now).await.unwrap());
            if number < 2 {
                store.put(id, upload()).await.unwrap();
            }
        }
        let mut selected = select(&store, &Selection::All).await.unwrap();
        selected.sort_by_key(|trashed| trashed.id);
        let (present, last) = selected.split_at(6);
        for erased in &present[2..5] {
            assert!(store.erase_trashed(*erased).await.unwrap());
        }

        let mut calls = 0;
        let report = restore(&store, present, now, || calls += 1).await;
        let expected = RestoreReport {
            restored: 1,
            newer: 2,
            missing: 3,
            failed: 0,
        };
        assert_eq!((report, calls), (expected, 6));

        fs::remove_dir_all(folder.path().join("trash")).unwrap();
        let report = restore(&store, last, now, || calls += 1).await;
        let expected = RestoreReport {
            failed: 3,
            ..RestoreReport::default()
        };
        assert_eq!((report, calls), (expected, 9));
    }
}
