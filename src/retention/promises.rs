//! What phones were promised: a shorter retention holds only for backups that were uploaded after it came into force.

use std::time::{Duration, SystemTime};

use crate::state::{Promise, unix};

/// The promises with the current one, which is made now, without those that nothing depends on any more.
pub(super) fn with_current(promises: &[Promise], current: Promise) -> Vec<Promise> {
    let mut all = promises.to_vec();
    let now = current.since;
    match all.last_mut() {
        // Until now a server may have announced the one before.
        Some(last) if last.keep_seconds == current.keep_seconds && last.by_hand => {
            if !current.by_hand {
                *last = current;
            }
        }
        Some(last) if last.keep_seconds == current.keep_seconds => {}
        // Before the first one that is known, it is taken to have been the same.
        None => all.push(Promise {
            since: 0,
            ..current
        }),
        Some(_) => all.push(current),
    }
    let mut kept: Vec<Promise> = Vec::new();
    for mut promise in all {
        // A longer one holds also for what was uploaded under a shorter one before it.
        while let Some(exceeded) = kept.pop_if(|last| last.keep_seconds <= promise.keep_seconds) {
            if promise.by_hand || !exceeded.by_hand {
                promise.since = exceeded.since;
            }
        }
        kept.push(promise);
    }
    let is_over = |pair: &[Promise]| match pair {
        [promise, next] => next.since.saturating_add(promise.keep_seconds) < now,
        _ => false,
    };
    let over = kept.windows(2).take_while(|pair| is_over(pair)).count();
    kept.split_off(over)
}

/// How long a backup is kept that was last uploaded then: as long as the longest promise since.
pub(super) fn keep(promises: &[Promise], last_upload: SystemTime) -> Duration {
    let uploaded = unix(last_upload);
    let ends = promises
        .iter()
        .skip(1)
        .map(|next| next.since)
        .chain([u64::MAX]);
    let longest = promises
        .iter()
        .zip(ends)
        .filter(|(_, end)| *end > uploaded)
        .map(|(promise, _)| promise.keep_seconds)
        .max();
    Duration::from_secs(longest.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::time::DAY;

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * DAY)
    }

    fn with_current(promises: &[Promise], keep: Duration, since: u64) -> Vec<Promise> {
        let keep_seconds = keep.as_secs();
        let by_hand = false;
        let current = Promise {
            since,
            keep_seconds,
            by_hand,
        };
        super::with_current(promises, current)
    }

    fn kept_days(promises: &[Promise], uploaded_on: u64) -> u64 {
        keep(promises, UNIX_EPOCH + days(uploaded_on)).as_secs() / DAY
    }

    #[test]
    fn a_shorter_promise_holds_for_later_uploads_alone_and_a_longer_one_for_all() {
        let mut promises = with_current(&[], days(187), 100 * DAY);
        promises = with_current(&promises, days(37), 200 * DAY);
        promises = with_current(&promises, days(37), 201 * DAY);
        assert_eq!(promises.len(), 2);
        assert_eq!(kept_days(&promises, 199), 187);
        assert_eq!(kept_days(&promises, 200), 37);

        let longer = with_current(&promises, days(90), 210 * DAY);
        assert_eq!(kept_days(&longer, 199), 187);
        assert_eq!(kept_days(&longer, 205), 90);
        assert_eq!(kept_days(&longer, 211), 90);

        let longest = with_current(&longer, days(400), 220 * DAY);
        assert_eq!(
            (longest.len(), longest[0].since),
            (1, 0),
            "it exceeds all that were before"
        );
        assert_eq!(kept_days(&longest, 0), 400);
    }

    #[test]
    fn a_shorter_promise_that_a_command_noted_holds_from_when_a_server_makes_it() {
        let by_hand = |since| Promise {
            since,
            keep_seconds: days(37).as_secs(),
            by_hand: true,
        };
        let mut promises = with_current(&[], days(187), 100 * DAY);
        for day in [200, 201] {
            promises = super::with_current(&promises, by_hand(day * DAY));
            assert_eq!(kept_days(&promises, 199), 187);
            assert_eq!(kept_days(&promises, 200), 37);
        }

        let changed_again = with_current(&promises, days(90), 202 * DAY);
        assert_eq!(kept_days(&changed_again, 201), 187);
        assert_eq!(kept_days(&changed_again, 202), 90);

        promises = with_current(&promises, days(37), 202 * DAY);
        promises = super::with_current(&promises, by_hand(203 * DAY));
        promises = with_current(&promises, days(37), 204 * DAY);
        assert_eq!(kept_days(&promises, 201), 187);
        assert_eq!(kept_days(&promises, 202), 37);
    }

    #[test]
    fn a_promise_is_forgotten_when_the_last_backup_that_has_it_is_over() {
        let before = with_current(&[], days(187), 0);
        let lowered = with_current(&before, days(37), 200 * DAY);

        assert_eq!(with_current(&lowered, days(37), 387 * DAY).len(), 2);
        assert_eq!(with_current(&lowered, days(37), 387 * DAY + 1).len(), 1);
    }
}
