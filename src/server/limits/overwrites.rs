//! Overwrites: which replaced versions the store keeps in the trash, and within which bounds.
//!
//! What looks wrong about a single upload, the store finds out by itself (`store/overwrite.rs`).
//! Many at once are noticed here; then every further replaced version is kept. A number alone says
//! nothing: an active phone uploads every day, an iPhone when it is opened, so that on a Monday
//! between eight and nine an office renews all of its backups. Two things phones do not do:
//!
//! - They leave a backup alone for a day. So uploads that replace more than a fifth of all backups
//!   within an hour, each of them *early*, less than 20 hours after the upload before, are many.
//! - They come one by one. So uploads that replace more than half within ten minutes are many,
//!   however old those versions are.
//!
//! An upload within ten minutes after the one before is a *repetition*: an app that got no response
//! sends it again, and `client check` overwrites what it has just stored. Repetitions are many only
//! if there are more than ten.
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

/// Up to this many replaced backups are ordinary, however few there are: a user or two pressed *Back
/// up now*. The same number as for deletions.
const MAX_ORDINARY: u64 = 2;
/// Likewise with repetitions.
const MAX_ORDINARY_REPETITIONS: u64 = 10;
/// A version that is replaced at a lower age is replaced by a repetition.
const REPETITION: Duration = Duration::from_secs(10 * 60);
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
/// What makes replaced backups many; each rule by itself.
const RULES: [Rule; 4] = [
    Rule {
        within: HOUR_WINDOWS,
        from_age: REPETITION,
        below_age: EARLY,
        max_ordinary: MAX_ORDINARY,
        fraction: 5,
    },
    Rule {
        within: HOUR_WINDOWS,
        from_age: Duration::ZERO,
        below_age: EARLY,
        max_ordinary: MAX_ORDINARY_REPETITIONS,
        fraction: 2,
    },
    Rule {
        within: MINUTES_WINDOWS,
        from_age: REPETITION,
        below_age: Duration::MAX,
        max_ordinary: MAX_ORDINARY,
        fraction: 2,
    },
    Rule {
        within: MINUTES_WINDOWS,
        from_age: Duration::ZERO,
        below_age: Duration::MAX,
        max_ordinary: MAX_ORDINARY_REPETITIONS,
        fraction: 2,
    },
];
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
    /// The backups that each of the [`RULES`] counts.
    replaced: [Recent; RULES.len()],
    last_warning: Option<Instant>,
}

/// A number of replaced backups that is not ordinary.
struct Rule {
    /// The time within which they are counted.
    within: Windows,
    /// Only versions of this age or more count.
    from_age: Duration,
    /// Only versions below this age count.
    below_age: Duration,
    /// Up to this many are ordinary.
    max_ordinary: u64,
    /// Above that, more than one in this many of all backups are not.
    fraction: u64,
}

impl Rule {
    fn counts(&self, age: Duration) -> bool {
        (self.from_age..self.below_age).contains(&age)
    }

    fn are_many(&self, replaced: u64, backups: u64) -> bool {
        replaced > self.max_ordinary && replaced.saturating_mul(self.fraction) > backups
    }
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

    fn contains(&self, key: u64) -> bool {
        self.windows.iter().any(|window| window.contains(&key))
    }
}

impl Overwrites {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let state = State {
            backups: None,
            max_kept_bytes: MIN_KEPT_BYTES,
            kept_bytes: 0,
            replaced: RULES.map(|rule| Recent::within(rule.within)),
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

    /// What an upload under `id` keeps, which may replace a version of this age, where the quotas
    /// leave so many bytes (`left`) and require so many free ones (`min_free`).
    pub(crate) fn keep(
        &self,
        id: BackupId,
        age: Option<Duration>,
        left: u64,
        min_free: u64,
    ) -> KeepReplaced {
        let (key, now) = (self.keys.hash_one(id), Instant::now());
        let mut state = lock(&self.state);
        let backups = state.backups;
        let mut rules = RULES.iter().zip(&mut state.replaced);
        let every = backups.is_some_and(|backups| {
            rules.any(|(rule, recent)| {
                // The upload itself is one of them.
                let counts = age.is_some_and(|age| rule.counts(age));
                let others = recent.count(now);
                let is_new = counts && !recent.contains(key);
                rule.are_many(others.saturating_add(is_new.into()), backups)
            })
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
            for (rule, recent) in RULES.iter().zip(&mut state.replaced) {
                if age.is_some_and(|age| rule.counts(age)) {
                    recent.insert(key, now);
                }
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

    /// Whether an upload that replaces a version of this age keeps it because of their number.
    fn keeps(overwrites: &Overwrites, number: u64, age: Duration) -> bool {
        overwrites.keep(id(number), Some(age), u64::MAX, 0).every
    }

    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// Replaces a version of this age.
    fn replace(overwrites: &Overwrites, number: u64, age: Duration) {
        assert_eq!(overwrites.stored(id(number), Put::Replaced, Some(age)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_half_within_ten_minutes_keeps_every_version() {
        // Repetitions are ordinary in a larger number.
        let almost = REPETITION - Duration::from_nanos(1);
        for (age, few) in [(DAY, 2), (EARLY, 2), (almost, 10), (Duration::ZERO, 10)] {
            for (backups, ordinary) in [(0, few), (3, few), (20, 10), (22, 11), (1_000, 500)] {
                let case = format!("{age:?} {backups}");
                let overwrites = overwrites();
                overwrites.set_usage(0, 0, 0);
                for number in 0..backups {
                    overwrites.stored(id(number), Put::Created, None);
                }
                for number in 0..ordinary {
                    // Each backup counts once.
                    for _ in 0..2 {
                        assert!(!keeps(&overwrites, number, age), "{case} {number}");
                        replace(&overwrites, number, age);
                    }
                    tokio::time::advance(Duration::from_millis(7)).await;
                }
                assert!(!keeps(&overwrites, 0, age), "{case}");
                assert!(keeps(&overwrites, ordinary, age), "{case}");
                let put = Put::Suspicious(Previous::InTrash(1));
                overwrites.stored(id(ordinary), put, Some(age));
                assert!(keeps(&overwrites, 0, DAY), "{case}");

                if age >= EARLY {
                    tokio::time::advance(13 * MINUTE).await;
                    assert!(!keeps(&overwrites, 0, DAY), "{case}: later");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_fifth_of_young_backups_within_an_hour_keeps_every_version() {
        let young = EARLY - Duration::from_secs(1);
        for (backups, ordinary) in [(0, 2), (3, 2), (20, 4), (22, 4), (100, 20)] {
            for begin in 0..15 {
                let overwrites = overwrites();
                overwrites.set_usage(backups, 0, 0);
                keeps(&overwrites, 0, DAY);
                tokio::time::advance(MINUTE * begin).await;
                let pause = HOUR / u32::try_from(ordinary).unwrap();
                for number in 0..ordinary {
                    assert!(!keeps(&overwrites, number, young), "{backups} {begin}");
                    replace(&overwrites, number, young);
                    tokio::time::advance(pause).await;
                }
                assert!(!keeps(&overwrites, ordinary, EARLY), "{backups} {begin}");
                assert!(keeps(&overwrites, ordinary, young), "{backups} {begin}");
                replace(&overwrites, ordinary, young);
                assert!(keeps(&overwrites, 0, DAY), "{backups} {begin}");
                tokio::time::advance(HOUR + HOUR_WINDOWS.length).await;
                assert!(!keeps(&overwrites, 0, young), "{backups} {begin}: later");
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
                    let age = age - MINUTE * 7;
                    assert!(!keeps(&overwrites, phone, age), "{phones} on day {day}");
                    replace(&overwrites, phone, age);
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
        assert!(!keeps(&overwrites, 0, Duration::ZERO));
        overwrites.set_usage(1_000, 0, 0);
        assert!(keeps(&overwrites, 0, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn kept_versions_take_a_quarter_or_64_mib_and_no_quota() {
        let overwrites = overwrites();
        let room = |left| overwrites.keep(id(1), None, left, 7).room;
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
        assert_eq!(overwrites.keep(id(1), None, 0, 7).min_free, 7);
        let text = overwrites.metrics.text();
        for line in [
            "safe_suspicious_overwrites_total{kind=\"kept\"} 1\n",
            "safe_suspicious_overwrites_total{kind=\"lost\"} 1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
