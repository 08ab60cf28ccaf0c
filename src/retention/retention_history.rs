//! History of retention periods. Phones rely on the retention that was announced to them, so a
//! shorter period applies only to backups uploaded after it took effect.

use std::time::Duration;

use crate::state::RetentionPeriod;

/// Adds the current period, which starts now, and drops the periods that no backup depends on any
/// more.
pub(super) fn with_current(
    periods: &[RetentionPeriod],
    current: RetentionPeriod,
) -> Vec<RetentionPeriod> {
    let mut all = periods.to_vec();
    let now = current.since;
    match all.last_mut() {
        // A command recorded this period, so a server may have announced the previous one until
        // now: the period starts when a server announces it.
        Some(last) if last.keep_seconds == current.keep_seconds && last.manual => {
            if !current.manual {
                *last = current;
            }
        }
        Some(last) if last.keep_seconds == current.keep_seconds => {}
        // The first known period is assumed to have applied before, too.
        None => all.push(RetentionPeriod {
            since: 0,
            ..current
        }),
        Some(_) => all.push(current),
    }
    let mut kept: Vec<RetentionPeriod> = Vec::new();
    for mut period in all {
        // A longer period also applies to backups uploaded under a shorter one before it.
        while let Some(exceeded) = kept.pop_if(|last| last.keep_seconds <= period.keep_seconds) {
            if period.manual || !exceeded.manual {
                period.since = exceeded.since;
            }
        }
        kept.push(period);
    }
    let has_ended = |pair: &[RetentionPeriod]| match pair {
        [period, next] => next.since.saturating_add(period.keep_seconds) < now,
        _ => false,
    };
    let ended = kept.windows(2).take_while(|pair| has_ended(pair)).count();
    kept.split_off(ended)
}

/// How long a backup that was last uploaded at this Unix time is kept: the longest period in force
/// since then.
pub(super) fn keep(periods: &[RetentionPeriod], uploaded: u64) -> Duration {
    let ends = periods
        .iter()
        .skip(1)
        .map(|next| next.since)
        .chain([u64::MAX]);
    let longest = periods
        .iter()
        .zip(ends)
        .filter(|(_, end)| *end > uploaded)
        .map(|(period, _)| period.keep_seconds)
        .max();
    Duration::from_secs(longest.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::time::DAY;

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * DAY)
    }

    fn with_current(
        periods: &[RetentionPeriod],
        keep: Duration,
        since: u64,
    ) -> Vec<RetentionPeriod> {
        let keep_seconds = keep.as_secs();
        let manual = false;
        let current = RetentionPeriod {
            since,
            keep_seconds,
            manual,
        };
        super::with_current(periods, current)
    }

    fn kept_days(periods: &[RetentionPeriod], uploaded_on: u64) -> u64 {
        keep(periods, uploaded_on * DAY).as_secs() / DAY
    }

    #[test]
    fn a_shorter_period_applies_to_later_uploads_only_and_a_longer_one_to_all() {
        let mut periods = with_current(&[], days(187), 100 * DAY);
        periods = with_current(&periods, days(37), 200 * DAY);
        periods = with_current(&periods, days(37), 201 * DAY);
        assert_eq!(periods.len(), 2);
        assert_eq!(kept_days(&periods, 199), 187);
        assert_eq!(kept_days(&periods, 200), 37);

        let longer = with_current(&periods, days(90), 210 * DAY);
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
    fn a_shorter_period_recorded_by_a_command_applies_once_a_server_announces_it() {
        let manual = |since| RetentionPeriod {
            since,
            keep_seconds: days(37).as_secs(),
            manual: true,
        };
        let mut periods = with_current(&[], days(187), 100 * DAY);
        for day in [200, 201] {
            periods = super::with_current(&periods, manual(day * DAY));
            assert_eq!(kept_days(&periods, 199), 187);
            assert_eq!(kept_days(&periods, 200), 37);
        }

        let changed_again = with_current(&periods, days(90), 202 * DAY);
        assert_eq!(kept_days(&changed_again, 201), 187);
        assert_eq!(kept_days(&changed_again, 202), 90);

        periods = with_current(&periods, days(37), 202 * DAY);
        periods = super::with_current(&periods, manual(203 * DAY));
        periods = with_current(&periods, days(37), 204 * DAY);
        assert_eq!(kept_days(&periods, 201), 187);
        assert_eq!(kept_days(&periods, 202), 37);
    }

    #[test]
    fn a_period_is_dropped_when_its_last_backup_has_expired() {
        let before = with_current(&[], days(187), 0);
        let lowered = with_current(&before, days(37), 200 * DAY);

        assert_eq!(with_current(&lowered, days(37), 387 * DAY).len(), 2);
        assert_eq!(with_current(&lowered, days(37), 387 * DAY + 1).len(), 1);
    }
}
