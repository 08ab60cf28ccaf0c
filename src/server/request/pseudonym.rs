//! Pseudonyms of backups in the log: eight hexadecimal digits that do not lead back to the id.
//!
//! A pseudonym is the start of a keyed hash of the id. The key is random, kept only in memory, and
//! replaced at the end of each day (UTC): log lines of one day and one run of the server about the
//! same backup have the same digits, and reveal nothing else (docs/PRIVACY.md).

use std::fmt;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::backup::BackupId;
use crate::lock::lock;
use crate::time::DAY;

/// Assigns pseudonyms to backups.
#[derive(Default)]
pub(crate) struct Pseudonyms {
    today: Mutex<Option<DailyKey>>,
}

/// The key of one day.
struct DailyKey {
    day: u64,
    key: Zeroizing<[u8; 32]>,
}

/// The pseudonym of one backup on one day. With 32 bits, two backups may share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pseudonym([u8; 4]);

impl Pseudonyms {
    /// The pseudonym of a backup at this time; `None` if the system has no randomness for the key.
    pub(crate) fn of(&self, id: BackupId, now: SystemTime) -> Option<Pseudonym> {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let day = since.as_secs() / DAY;
        let mut today = lock(&self.today);
        if today.as_ref().is_none_or(|current| current.day != day) {
            let mut key = Zeroizing::new([0; 32]);
            // A day that is repeated, because the clock was set back, has a new key too.
            *today = getrandom::fill(&mut *key)
                .is_ok()
                .then_some(DailyKey { day, key });
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(&*today.as_ref()?.key)
            .expect("HMAC takes a key of any length");
        mac.update(id.to_hex().as_bytes());
        let hash: [u8; 32] = mac.finalize().into_bytes().into();
        hash.first_chunk().copied().map(Pseudonym)
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", u32::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn id(digit: char) -> BackupId {
        digit.to_string().repeat(64).parse().unwrap()
    }

    #[test]
    fn a_backup_keeps_its_pseudonym_for_a_day_and_no_longer() {
        let pseudonyms = Pseudonyms::default();
        let morning = 20_000 * DAY;
        let first = pseudonyms.of(id('a'), at(morning)).unwrap();

        assert_eq!(pseudonyms.of(id('a'), at(morning + DAY - 1)), Some(first));
        assert_ne!(pseudonyms.of(id('b'), at(morning)), Some(first));

        // The next day, and the first one again: each has a key of its own.
        let mut seen = HashSet::from([first.to_string()]);
        for seconds in [morning + DAY, morning] {
            let pseudonym = pseudonyms.of(id('a'), at(seconds)).unwrap().to_string();
            assert!(seen.insert(pseudonym), "{seen:?}");
        }
    }

    #[test]
    fn no_two_servers_assign_the_same_pseudonyms_and_none_is_a_part_of_the_id() {
        let [one, other] = [(); 2].map(|()| Pseudonyms::default());
        let mut same = 0;
        for digit in "0123456789abcdef".chars() {
            let pseudonyms = [&one, &other].map(|p| p.of(id(digit), at(0)).unwrap().to_string());
            same += u32::from(pseudonyms[0] == pseudonyms[1]);
            for pseudonym in pseudonyms {
                assert_eq!(pseudonym.len(), 8);
                assert!(!id(digit).to_hex().contains(&pseudonym));
            }
        }
        assert_eq!(same, 0);
    }
}
