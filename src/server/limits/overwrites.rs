//! Overwrites: which replaced versions the store keeps in the trash, and within which bounds.
//!
//! What looks wrong about a single upload, the store finds out by itself (`store/overwrite.rs`).
//! Many at once are noticed here; then every further replaced version is kept. A number alone says
//! nothing: an active phone uploads every day, an iPhone when it is opened, so that on a Monday
//! between eight and nine an office renews all of its backups. Two things phones do not do:
//!
//! - They leave a backup alone for a day. So uploads that replaced more than half of all backups
//!   within an hour, each of them *early*, less than 20 hours after the upload before, are many.
//! - They come one by one. So uploads that replaced more than half within ten minutes are many,
//!   however old those versions were.
//!
//! Where a phone does either, the price is some space for `trashDays`, and perhaps one alarm.
//!
//! Kept versions are bounded in bytes, so that they take neither the disk nor the quota from new
//! backups: a quarter of all backups, or 64 MiB. The sum is that of the last sweep and what was
//! kept since. Uploads that are stored at the same moment may exceed it by one version each.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::backup::BackupId;
use crate::lock::lock;
use crate::server::metrics::Metrics;
use crate::store::{KeepReplaced, Previous, Put};

/// Up to this many replacements, early or at once, are ordinary, however few backups there are: a
/// few users pressed *Back up now*.
const MAX_ORDINARY: u64 = 10;
/// Above that, more than one in this many of all backups is not.
const FRACTION: u64 = 2;
/// A version that is replaced at this age or later is as old as a phone lets one become.
const EARLY: Duration = Duration::from_secs(20 * 60 * 60);
/// The part of the bytes of all backups that kept versions may take as well.
const KEPT_PART: u64 = 4;
/// Kept versions may take so many bytes in any case.
const MIN_KEPT_BYTES: u64 = 64 << 20;
/// The windows that cover an hour, wherever in a window it begins.
const HOUR_WINDOWS: Windows = Windows {
    length: Duration::from_secs(15 * 60),
    count: 5,
};
/// The windows that cover ten minutes.
const MINUTES_WINDOWS: Windows = Windows {
    length: Duration::from_secs(150),
    count: 5,
};
/// The time between two warnings.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The overwrites of the last hour, and the bytes of kept versions.
pub(crate) struct Overwrites {
    state: Mutex<State>,
    /// Hashes ids.
    keys: RandomState,
    metrics: Arc<Metrics>,
}

struct State {
    /// Backups at the last sweep and new ones since; `None` before the first one.
    backups: Option<u64>,
    /// The most that kept versions may take, in bytes.
    max_kept_bytes: u64,
    /// What they take.
    kept_bytes: u64,
    /// The backups that were replaced early within the last hour.
    early: Recent,
    /// The backups that were replaced within the last ten minutes.
    at_once: Recent,
    last_warning: Option<Instant>,
}

/// Windows of time, of which the newest is not over yet.
#[derive(Clone, Copy)]
struct Windows {
    length: Duration,
    count: usize,
}

/// The backups that were replaced within some windows. Each is counted once, however often it was
/// replaced: a single phone that repeats its upload is no alarm.
struct Recent {
    of: Windows,
    /// Hashed ids, each in one window; the newest window is the last one.
    windows: VecDeque<HashSet<u64>>,
    /// When the newest window began.
    began: Option<Instant>,
}

impl Recent {
    fn within(of: Windows) -> Self {
        Self {
            of,
            windows: VecDeque::new(),
            began: None,
        }
    }

    fn advance(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let Windows { length, count } = self.of;
        let elapsed = now.saturating_duration_since(began).as_secs() / length.as_secs();
        for _ in 0..elapsed.min(count as u64) {
            self.windows.push_back(HashSet::new());
        }
        let start = began.checked_add(length * u32::try_from(elapsed).unwrap_or(u32::MAX));
        self.began = start.or(Some(now));
        while self.windows.len() > count {
            self.windows.pop_front();
        }
    }

    fn insert(&mut self, key: u64, now: Instant) {
        self.advance(now);
        for window in &mut self.windows {
            window.remove(&key);
        }
        if self.windows.is_empty() {
            self.windows.push_back(HashSet::new());
        }
        if let Some(newest) = self.windows.back_mut() {
            newest.insert(key);
        }
    }

    fn count(&mut self, now: Instant) -> u64 {
        self.advance(now);
        self.windows.iter().map(|window| window.len() as u64).sum()
    }
}

impl Overwrites {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let state = State {
            backups: None,
            max_kept_bytes: MIN_KEPT_BYTES,
            kept_bytes: 0,
            early: Recent::within(HOUR_WINDOWS),
            at_once: Recent::within(MINUTES_WINDOWS),
            last_warning: None,
        };
        Self {
            state: Mutex::new(state),
            keys: RandomState::new(),
            metrics,
        }
    }

    /// Sets what a sweep has counted: backups, their bytes, and the bytes of replaced versions in
    /// the trash.
    pub(crate) fn set_usage(&self, backups: u64, bytes: u64, kept_bytes: u64) {
        let mut state = lock(&self.state);
        state.backups = Some(backups);
        state.max_kept_bytes = MIN_KEPT_BYTES.max(bytes / KEPT_PART);
        state.kept_bytes = kept_bytes;
    }

    /// What the next upload keeps, where the quotas leave so many bytes (`left`) and require so
    /// many free ones (`min_free`).
    pub(crate) fn keep(&self, left: u64, min_free: u64) -> KeepReplaced {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let counts = [state.early.count(now), state.at_once.count(now)];
        let every = state.backups.is_some_and(|backups| {
            let are_many = |replaced: u64| {
                replaced > MAX_ORDINARY && replaced.saturating_mul(FRACTION) > backups
            };
            counts.into_iter().any(are_many)
        });
        KeepReplaced {
            every,
            room: state
                .max_kept_bytes
                .saturating_sub(state.kept_bytes)
                .min(left),
            min_free,
        }
    }

    /// Counts a stored upload, which may have replaced a version of this age; returns the bytes that
    /// are in the trash because of it.
    pub(crate) fn stored(&self, id: BackupId, put: Put, age: Option<Duration>) -> u64 {
        let now = Instant::now();
        let mut state = lock(&self.state);
        if put == Put::Created {
            state.backups = state.backups.map(|backups| backups.saturating_add(1));
        } else {
            let key = self.keys.hash_one(id);
            state.at_once.insert(key, now);
            if age.is_some_and(|age| age < EARLY) {
                state.early.insert(key, now);
            }
        }
        let Put::Suspicious(previous) = put else {
            return 0;
        };
        self.metrics
            .overwritten_suspiciously(matches!(previous, Previous::InTrash(_)));
        match previous {
            Previous::InTrash(bytes) => {
                state.kept_bytes = state.kept_bytes.saturating_add(bytes);
                bytes
            }
            Previous::Lost => {
                let is_due = state.last_warning.is_none_or(|last| now >= last + HOUR);
                if is_due {
                    state.last_warning = Some(now);
                    tracing::warn!(
                        kept_bytes = state.kept_bytes,
                        "suspicious overwrite: previous version not kept"
                    );
                }
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn overwrites() -> Overwrites {
        Overwrites::new(Arc::new(Metrics::new(0)))
    }

    fn id(number: u64) -> BackupId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        BackupId::from_bytes(bytes)
    }

    fn keeps_every(overwrites: &Overwrites) -> bool {
        overwrites.keep(u64::MAX, 0).every
    }

    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Replaces a version of this age.
    fn replace(overwrites: &Overwrites, number: u64, age: Duration) {
        assert_eq!(overwrites.stored(id(number), Put::Replaced, Some(age)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_half_within_ten_minutes_keeps_every_version() {
        for (backups, ordinary) in [(0, 10), (3, 10), (20, 10), (22, 11), (1_000, 500)] {
            let overwrites = overwrites();
            overwrites.set_usage(0, 0, 0);
            for number in 0..backups {
                overwrites.stored(id(number), Put::Created, None);
            }
            for number in 0..ordinary {
                // Each backup counts once.
                replace(&overwrites, number, DAY);
                replace(&overwrites, number, DAY);
                tokio::time::advance(Duration::from_millis(7)).await;
            }
            assert!(!keeps_every(&overwrites), "{backups}");
            let put = Put::Suspicious(Previous::InTrash(1));
            overwrites.stored(id(ordinary), put, None);
            assert!(keeps_every(&overwrites), "{backups}");

            tokio::time::advance(13 * MINUTE).await;
            assert!(!keeps_every(&overwrites), "{backups}: later");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_half_of_young_backups_within_an_hour_keeps_every_version() {
        for (backups, ordinary) in [(0, 10), (3, 10), (20, 10), (22, 11), (40, 20)] {
            for begin in 0..15 {
                let overwrites = overwrites();
                overwrites.set_usage(backups, 0, 0);
                keeps_every(&overwrites);
                tokio::time::advance(MINUTE * begin).await;
                let pause = HOUR / u32::try_from(ordinary).unwrap();
                for number in 0..ordinary {
                    replace(&overwrites, number, EARLY - Duration::from_secs(1));
                    assert!(!keeps_every(&overwrites), "{backups} {begin}");
                    tokio::time::advance(pause).await;
                }
                replace(&overwrites, ordinary, Duration::ZERO);
                assert!(keeps_every(&overwrites), "{backups} {begin}");
                tokio::time::advance(HOUR + HOUR_WINDOWS.length).await;
                assert!(!keeps_every(&overwrites), "{backups} {begin}: later");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_office_that_renews_all_in_the_hour_after_the_weekend_is_usual() {
        for phones in [3, 12, 30, 400] {
            let overwrites = overwrites();
            overwrites.set_usage(phones, 0, 0);
            for day in 0..5 {
                let age = if day == 0 { DAY * 3 } else { DAY };
                for phone in 0..phones {
                    replace(&overwrites, phone, age - MINUTE * 7);
                    assert!(!keeps_every(&overwrites), "{phones} on day {day}");
                    let pause = HOUR / u32::try_from(phones).unwrap();
                    tokio::time::advance(pause).await;
                }
                tokio::time::advance(DAY - HOUR).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_first_sweep_no_number_is_many() {
        let overwrites = overwrites();
        for number in 0..1_000 {
            replace(&overwrites, number, Duration::ZERO);
        }
        assert!(!keeps_every(&overwrites));
        overwrites.set_usage(1_000, 0, 0);
        assert!(keeps_every(&overwrites));
    }

    #[tokio::test(start_paused = true)]
    async fn kept_versions_take_a_quarter_or_64_mib_and_no_quota() {
        let overwrites = overwrites();
        let room = |left| overwrites.keep(left, 7).room;
        assert_eq!(room(u64::MAX), 64 * MIB);
        overwrites.set_usage(10, 1_000 * MIB, 0);
        assert_eq!(room(u64::MAX), 250 * MIB);
        let kept = Put::Suspicious(Previous::InTrash(100 * MIB));
        assert_eq!(overwrites.stored(id(1), kept, None), 100 * MIB);
        assert_eq!(room(u64::MAX), 150 * MIB);
        assert_eq!(room(5), 5);
        for put in [Put::Created, Put::Replaced, Put::Suspicious(Previous::Lost)] {
            assert_eq!(overwrites.stored(id(1), put, None), 0);
        }
        assert_eq!(room(u64::MAX), 150 * MIB);
        overwrites.set_usage(10, 0, 65 * MIB);
        assert_eq!(room(u64::MAX), 0);
        assert_eq!(overwrites.keep(0, 7).min_free, 7);
        let text = overwrites.metrics.text();
        for line in [
            "safe_suspicious_overwrites_total{kind=\"kept\"} 1\n",
            "safe_suspicious_overwrites_total{kind=\"lost\"} 1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
