//! Upload history: uploads per day for a month, stored from one run to the next.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::SystemTime;

use crate::lock::lock;
use crate::state::{DayOfUploads, Error, State, StateStore};
use crate::time::{DAY, unix};

/// Length of the history in days, today included.
const DAYS: u64 = 30;

/// Uploads per day, in UTC; the key is the number of days since 1970-01-01.
#[derive(Default)]
pub(crate) struct Uploads {
    days: Mutex<BTreeMap<u64, u64>>,
    /// True while there are unsaved uploads.
    is_dirty: AtomicBool,
}

impl Uploads {
    /// Counts an upload.
    pub(crate) fn count(&self, now: SystemTime) {
        let mut days = self.days();
        let uploads = days.entry(unix(now) / DAY).or_default();
        *uploads = uploads.saturating_add(1);
        drop(days);
        self.is_dirty.store(true, Ordering::Relaxed);
    }

    /// Adds the saved history of an earlier run.
    pub(crate) fn add(&self, saved: &[DayOfUploads]) {
        let mut days = self.days();
        for day in saved {
            let uploads = days.entry(day.day).or_default();
            // Saturated, as below: the numbers come from a file.
            *uploads = uploads.saturating_add(day.uploads);
        }
    }

    /// The last days, the oldest first, also those without uploads.
    pub(crate) fn last_days(&self, now: SystemTime) -> Vec<DayOfUploads> {
        let today = unix(now) / DAY;
        let mut days = self.days();
        // Also removes days in the future, which a wrong clock left.
        days.retain(|day, _| day.saturating_add(DAYS) > today && *day <= today);
        let first = (today + 1).saturating_sub(DAYS);
        let of = |day| DayOfUploads {
            day,
            uploads: days.get(&day).copied().unwrap_or_default(),
        };
        (first..=today).map(of).collect()
    }

    /// Saves the history if there are new uploads.
    pub(crate) async fn remember(
        &self,
        state: &dyn StateStore,
        now: SystemTime,
    ) -> Result<(), Error> {
        if !self.is_dirty.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut days = self.last_days(now);
        days.retain(|day| day.uploads > 0);
        let change = move |state: &mut State| state.uploads.clone_from(&days);
        state
            .update(change)
            .await
            .inspect_err(|_| self.is_dirty.store(true, Ordering::Relaxed))
    }

    fn days(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        lock(&self.days)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::state::StateFile;

    fn noon(day: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(day * DAY + DAY / 2)
    }

    #[tokio::test]
    async fn the_last_month_is_restored_in_the_next_run() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("tmp")).unwrap();
        let state = StateFile::in_directory(directory.path());
        let before = Uploads::default();
        for day in [1_000, 1_001, 1_030, 1_030] {
            before.count(noon(day));
        }
        before.remember(&state, noon(1_030)).await.unwrap();

        let after = Uploads::default();
        after.add(&state.load().unwrap().uploads);
        after.count(noon(1_030));

        let days = after.last_days(noon(1_030));
        assert_eq!(days.len(), 30);
        assert_eq!((days[0].day, days[0].uploads), (1_001, 1));
        assert_eq!((days[29].day, days[29].uploads), (1_030, 3));
        assert_eq!(days.iter().map(|day| day.uploads).sum::<u64>(), 4);
    }

    #[test]
    fn numbers_that_no_clock_and_no_phone_made_are_no_failure() {
        let uploads = Uploads::default();
        let today = 1_000;
        for day in [u64::MAX, u64::MAX - 1, today, today, 0] {
            let uploads_of_day = u64::MAX;
            uploads.add(&[DayOfUploads {
                day,
                uploads: uploads_of_day,
            }]);
        }
        uploads.count(noon(today));

        let days = uploads.last_days(noon(today));

        assert_eq!(days.len(), 30);
        assert_eq!((days[29].day, days[29].uploads), (today, u64::MAX));
        assert_eq!(days[28].uploads, 0);
    }

    #[test]
    fn days_in_the_future_are_removed_after_the_clock_is_set_back() {
        let uploads = Uploads::default();
        uploads.count(noon(2_000));

        let days = uploads.last_days(noon(1_000));

        assert!(days.iter().all(|day| day.uploads == 0));
        assert!(uploads.last_days(UNIX_EPOCH).len() == 1);
    }
}
