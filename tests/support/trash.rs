//! Backups in the trash, placed there as if they had been removed long ago.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::files::create_private;
use crate::support::{Site, names, set_modified, write};

/// 2026-11-24T10:00:00Z, and the hour of other removals in these tests.
pub(crate) const TEN: u64 = 1_795_514_400;
pub(crate) const HOUR: u64 = 60 * 60;

/// Puts a backup into the trash that a phone had uploaded a day before it was removed.
pub(crate) fn place_trash(
    site: &Site,
    id: &str,
    removed_at: u64,
    contents: impl AsRef<[u8]>,
) -> PathBuf {
    let trash = site.data().join("trash");
    for directory in [&trash, &site.data().join("backups")] {
        create_private(directory);
    }
    let path = trash.join(format!("{id}.{removed_at}"));
    write(&path, contents);
    let uploaded = Duration::from_secs(removed_at.saturating_sub(24 * HOUR));
    set_modified(
        &path,
        UNIX_EPOCH.checked_add(uploaded).unwrap_or(UNIX_EPOCH),
    );
    path
}

pub(crate) fn in_trash(site: &Site) -> Vec<String> {
    names(&site.data().join("trash"))
}

pub(crate) fn backups(site: &Site) -> Vec<String> {
    names(&site.data().join("backups"))
}
