//! Ordinary operation for months: no sweep is refused, and what expires is removed and erased.

use std::time::Duration;

use super::clocks::{HOUR, Run, SYSTEM, label, today};
use crate::support::Site;

/// Ten ids.
fn ids() -> Vec<String> {
    (0..10).map(|number| format!("{number:064x}")).collect()
}

/// Asserts that the abandoned first backup of ten is in the trash after 187 days, and erased after
/// seven more, without an alarm on any day; `day` runs a server for a day.
async fn assert_the_first_expires(mut run: Run, mut day: impl AsyncFnMut(Run) -> Run) {
    assert_eq!(label(&run.sweep().await), None);
    for id in ids() {
        run.upload(&id).await;
    }
    for number in 1..=200 {
        run = day(run).await;
        for id in ids().iter().skip(1) {
            run.upload(id).await;
        }
        let report = run.sweep().await;
        assert_eq!(report.refused, None, "day {number}");
        let (kept, trash) = match number {
            ..188 => (10, 0),
            188..196 => (9, 1),
            _ => (9, 0),
        };
        // The day on which it expires depends on hours.
        if ![187, 188, 194, 195, 196].contains(&number) {
            assert_eq!((report.kept, run.trash()), (kept, trash), "day {number}");
        }
    }
}

#[tokio::test]
async fn an_abandoned_backup_expires_and_is_erased_while_a_server_runs() {
    let run = Run::start(Site::new(), today());
    assert_the_first_expires(run, async |run| {
        assert_eq!(label(&run.pass(HOUR * 6, 4).await), None);
        run
    })
    .await;
}

#[tokio::test]
async fn an_abandoned_backup_expires_and_is_erased_where_a_server_restarts_each_day() {
    let run = Run::start(Site::new(), today());
    assert_the_first_expires(run, async |run| {
        assert_eq!(label(&run.pass(HOUR, 1).await), None);
        let now = SYSTEM.get();
        let run = run.restart(HOUR * 23, now + HOUR * 23);
        assert_eq!(label(&run.sweep().await), None);
        run
    })
    .await;
}

#[tokio::test]
async fn an_abandoned_backup_expires_and_is_erased_on_a_machine_that_sleeps() {
    let run = Run::start(Site::new(), today());
    assert_the_first_expires(run, async |run| {
        // Time passes while it is suspended, and nothing runs.
        assert_eq!(label(&run.pass(HOUR * 24, 1).await), None);
        run
    })
    .await;
}

#[tokio::test]
async fn a_machine_that_sleeps_for_two_days_sweeps_without_a_doubt() {
    let run = Run::start(Site::new(), today());
    for _ in 0..5 {
        assert_eq!(label(&run.pass(HOUR * 48, 1).await), None);
        assert_eq!(label(&run.pass(Duration::from_secs(60), 10).await), None);
    }
}

/// NTP slews and steps by seconds, in either direction, for months.
#[tokio::test]
async fn a_clock_that_ntp_steps_by_seconds_is_never_in_doubt() {
    for forward in [true, false] {
        let run = Run::start(Site::new(), today());
        for day in 0..100 {
            assert_eq!(label(&run.pass(HOUR * 8, 3).await), None, "{day}");
            let now = SYSTEM.get();
            let step = Duration::from_secs(2);
            SYSTEM.set(if forward { now + step } else { now - step });
            assert_eq!(label(&run.sweep().await), None, "{day}");
        }
    }
}
