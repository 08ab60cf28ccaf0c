//! Uploads of this run, which no sweep removes before their time has really passed, whatever the
//! clocks of the server and of its file system say.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use crate::backup::BackupId;
use crate::lock::lock;
use crate::time::HOUR;

/// The largest number of uploads remembered, in at most 36 MiB: a few dozen bytes for each phone, as
/// ids are hashed and times rounded. Of further ones, the times of their files decide alone.
const MAX_UPLOADS: usize = 1 << 20;

/// The backups that were uploaded in this run.
#[derive(Default)]
pub struct RecentUploads {
    hasher: RandomState,
    /// The hour after the last upload, on the clock that cannot be set, by the hash of the id.
    uploads: Mutex<HashMap<u64, u32>>,
}

impl RecentUploads {
    /// Records an upload before it is stored; `elapsed` is the time of a clock that cannot be set.
    pub fn add(&self, id: BackupId, elapsed: Duration) {
        let mut uploads = lock(&self.uploads);
        let key = self.hasher.hash_one(id);
        if uploads.len() < MAX_UPLOADS || uploads.contains_key(&key) {
            uploads.insert(key, hours(elapsed).saturating_add(1));
        }
    }

    /// True if the backup was uploaded in this run.
    pub(super) fn contains(&self, id: BackupId) -> bool {
        lock(&self.uploads).contains_key(&self.hasher.hash_one(id))
    }

    /// Forgets uploads that are older than the time for which a backup is kept.
    pub(super) fn forget(&self, keep: Duration, elapsed: Duration) {
        let (keep, now) = (hours(keep), hours(elapsed));
        lock(&self.uploads).retain(|_, uploaded| now.saturating_sub(*uploaded) <= keep);
    }
}

fn hours(time: Duration) -> u32 {
    u32::try_from(time.as_secs() / HOUR).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_forgotten_when_its_time_has_passed() {
        let ids = ["a", "b"].map(|digit| digit.repeat(64).parse().unwrap());
        let hours = |hours| Duration::from_secs(hours * HOUR);
        let uploads = RecentUploads::default();
        let has = || ids.map(|id| uploads.contains(id));
        assert_eq!(has(), [false, false]);

        uploads.add(ids[0], hours(7));
        uploads.add(ids[1], hours(7));
        uploads.add(ids[1], hours(8));
        uploads.forget(hours(100), hours(107));
        assert_eq!(has(), [true, true]);
        uploads.forget(hours(100), hours(109));
        assert_eq!(has(), [false, true]);
        uploads.forget(hours(100), hours(110));
        assert_eq!(has(), [false, false]);
    }
}
