//! Trash operations: selecting backups, restoring them, and erasing all of them.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use futures_util::StreamExt;

use super::{Error, Restored, Store, TrashKind, Trashed};
use crate::backup::BackupId;

/// A selection of backups in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The backups with these ids, as they were before they were deleted or overwritten last.
    Ids(HashSet<BackupId>),
    /// The backups that were removed or replaced at this Unix time (in seconds) or later, as they
    /// were then.
    Since(u64),
    /// All backups in the trash, as they were before they were deleted or overwritten last.
    All,
}

impl Selection {
    fn contains(&self, trashed: &Trashed) -> bool {
        match self {
            Self::Ids(ids) => ids.contains(&trashed.id),
            // The undoing of a restore is never part of a restore of many.
            Self::Since(since) => {
                trashed.removed_at >= *since && trashed.kind != TrashKind::RolledBack
            }
            Self::All => trashed.kind != TrashKind::RolledBack,
        }
    }

    /// The version to restore, of the versions of one backup, the oldest first.
    ///
    /// The first version since a time is the state then. Without a time, it is the first one since
    /// the backup was deleted before, or restored: what a phone deletes twice comes back as it was
    /// the last time, and what was overwritten several times as it was before the first time. After a
    /// restore, it is the version that the restore replaced.
    fn choose(&self, versions: &[Trashed]) -> Option<Trashed> {
        if let Self::Since(_) = self {
            return versions.first().copied();
        }
        let last = versions.last()?;
        if last.kind == TrashKind::RolledBack {
            return Some(*last);
        }
        let replaced = versions.iter().rev().skip(1);
        let replaced = replaced.take_while(|version| version.kind == TrashKind::Replaced);
        Some(replaced.last().copied().unwrap_or(*last))
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

/// Lists the selected backups in the trash: one version of each id.
///
/// # Errors
/// When the trash cannot be listed.
pub async fn select(store: &dyn Store, selection: &Selection) -> Result<Vec<Trashed>, Error> {
    let mut versions = HashMap::<BackupId, Vec<Trashed>>::new();
    let mut trash = store.list_trash();
    while let Some(listed) = trash.next().await {
        let trashed = listed?;
        if selection.contains(&trashed) {
            versions.entry(trashed.id).or_default().push(trashed);
        }
    }
    let chosen = versions.into_values().filter_map(|mut versions| {
        // Within one second, a backup is replaced first and then removed.
        versions.sort_by_key(|version| (version.removed_at, version.kind));
        selection.choose(&versions)
    });
    Ok(chosen.collect())
}

/// Restores the selected backups with the upload time `now`. A version that was removed never goes
/// over an existing backup. One that was replaced does, if the existing backup is the upload that
/// replaced it or looks wrong beside it, or if it is `forced`. Calls `progress` after each. Failures
/// are logged and counted.
///
/// The versions that were replaced after a restored one become rolled back: where the restore of
/// many is repeated, they would be the first, and look right beside what they had ruined.
pub async fn restore(
    store: &dyn Store,
    selected: &[Trashed],
    now: SystemTime,
    forced: bool,
    mut progress: impl FnMut(),
) -> RestoreReport {
    let mut report = RestoreReport::default();
    let mut later = replaced_after(store, selected).await;
    for &trashed in selected {
        let mut restored = store.restore(trashed, now).await;
        if matches!(restored, Ok(Restored::Newer)) && trashed.kind != TrashKind::Removed {
            restored = store.roll_back(trashed, now, forced).await;
        }
        let passed_over = match restored {
            Ok(Restored::Back) => later.remove(&trashed.id).unwrap_or_default(),
            _ => Vec::new(),
        };
        for version in passed_over {
            if let Err(error) = store.pass_over(version).await {
                restored = Err(error);
            }
        }
        match restored {
            Ok(Restored::Back) => report.restored += 1,
            Ok(Restored::Newer) => report.newer += 1,
            Ok(Restored::Gone) => report.missing += 1,
            Err(error) => {
                report.failed += 1;
                log_failure(&error);
            }
        }
        progress();
    }
    report
}

/// The versions in the trash that were replaced after the selected ones.
async fn replaced_after(
    store: &dyn Store,
    selected: &[Trashed],
) -> HashMap<BackupId, Vec<Trashed>> {
    let place = |version: &Trashed| (version.removed_at, version.kind);
    let chosen: HashMap<_, _> = selected.iter().map(|one| (one.id, place(one))).collect();
    let mut later = HashMap::<_, Vec<_>>::new();
    let mut trash = store.list_trash();
    while let Some(listed) = trash.next().await {
        match listed {
            Ok(version) if version.kind == TrashKind::Replaced => {
                if chosen
                    .get(&version.id)
                    .is_some_and(|one| place(&version) > *one)
                {
                    later.entry(version.id).or_default().push(version);
                }
            }
            Ok(_) => {}
            // What is restored does not depend on it.
            Err(error) => {
                log_failure(&error);
                break;
            }
        }
    }
    later
}

fn log_failure(error: &Error) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "restore from trash failed"
    );
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
    use TrashKind::{Removed, Replaced, RolledBack};

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
        let report = restore(&store, present, now, false, || calls += 1).await;
        let expected = RestoreReport {
            restored: 1,
            newer: 2,
            missing: 3,
            failed: 0,
        };
        assert_eq!((report, calls), (expected, 6));

        fs::remove_dir_all(folder.path().join("trash")).unwrap();
        let report = restore(&store, last, now, false, || calls += 1).await;
        let expected = RestoreReport {
            failed: 3,
            ..RestoreReport::default()
        };
        assert_eq!((report, calls), (expected, 9));
    }

    fn chosen(selection: &Selection, versions: &[(u64, TrashKind)]) -> Option<u64> {
        let version = |&(removed_at, kind)| Trashed {
            id: BackupId::from_bytes([7; 32]),
            kind,
            removed_at,
            length: 1,
            last_upload: UNIX_EPOCH,
        };
        let mut versions: Vec<_> = versions.iter().map(version).collect();
        versions.retain(|version| selection.contains(version));
        selection
            .choose(&versions)
            .map(|version| version.removed_at)
    }

    #[test]
    fn a_version_is_chosen_by_what_happened_to_it() {
        let ids = Selection::Ids(HashSet::from([BackupId::from_bytes([7; 32])]));
        for (versions, by_id, by_all, since_2) in [
            (&[][..], None, None, None),
            (&[(1, Removed)], Some(1), Some(1), None),
            (
                &[(1, Removed), (2, Removed), (3, Removed)],
                Some(3),
                Some(3),
                Some(2),
            ),
            // Overwritten again and again: the first version is the good one.
            (
                &[(1, Replaced), (2, Replaced), (3, Replaced)],
                Some(1),
                Some(1),
                Some(2),
            ),
            // Overwritten, then deleted.
            (
                &[(1, Replaced), (2, Replaced), (3, Removed)],
                Some(1),
                Some(1),
                Some(2),
            ),
            // Deleted long ago, then set up again and overwritten.
            (
                &[(1, Removed), (2, Replaced), (3, Replaced)],
                Some(2),
                Some(2),
                Some(2),
            ),
            (
                &[(1, Replaced), (2, Removed), (3, Removed)],
                Some(3),
                Some(3),
                Some(2),
            ),
            // Restored: to restore again undoes that by id alone.
            (&[(3, RolledBack)], Some(3), None, None),
            (&[(1, Replaced), (3, RolledBack)], Some(3), Some(1), None),
            (&[(2, RolledBack), (3, Replaced)], Some(3), Some(3), Some(3)),
        ] {
            assert_eq!(chosen(&ids, versions), by_id, "{versions:?}");
            assert_eq!(chosen(&Selection::All, versions), by_all, "{versions:?}");
            let since = chosen(&Selection::Since(2), versions);
            assert_eq!(since, since_2, "{versions:?}");
        }
    }
}
