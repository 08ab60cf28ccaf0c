//! Clocks at the edges of a run: a sweep that takes hours, a state that vanishes while the clock is
//! in doubt, a first clock that cannot be right.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use threema_safe_server::clock::{Clock, Verdict};
use threema_safe_server::retention::Mode;
use threema_safe_server::state::State;
use threema_safe_server::store::FileStore;

use super::clocks::{DAY, ELAPSED, HOUR, Run, SYSTEM, label, today};
use crate::support::{Site, digits, set_modified, write};

/// A site with ten backups, of which `old` were uploaded 300 days ago.
fn place(old: usize) -> Site {
    let site = Site::new();
    FileStore::open(&site.data()).unwrap();
    for number in 0..10 {
        let path = site.data().join("backups").join(digits(number));
        write(&path, [7; 41]);
        let age = if number < old { DAY * 300 } else { DAY };
        set_modified(&path, today() - age);
    }
    site
}

/// The time that a sweep takes, and a suspension during it, are no jump.
#[test]
fn a_first_sweep_that_takes_hours_is_no_jump_of_the_clock() {
    for took in [Duration::ZERO, HOUR * 3, DAY * 2] {
        SYSTEM.set(today());
        let clock = Clock::new(|| SYSTEM.get(), || ELAPSED.get());
        let mut state = State::default();
        let reading = clock.reading();
        SYSTEM.set(today() + took);
        ELAPSED.set(ELAPSED.get() + took);
        let verdict = reading.record(&mut state);
        clock.recorded(&reading, verdict, &state);

        assert_eq!(clock.now(), today() + took);
        assert!(!clock.has_changed(), "{took:?}");
        assert_eq!(clock.reading().judge(&state), Verdict::Right, "{took:?}");
        // What the clock then goes on by without any time passing is one.
        SYSTEM.set(today() + took + HOUR * 2);
        assert!(clock.has_changed(), "{took:?}");
    }
}

#[tokio::test]
async fn a_first_clock_that_cannot_be_right_is_forgotten_and_the_first_sweep_still_waits() {
    for wrong in [UNIX_EPOCH, today() + DAY * 365 * 9_000] {
        let run = Run::start(place(5), wrong);
        assert!(run.sweep().await.refused.is_some());
        let run = run.restart(HOUR, wrong + HOUR);
        assert!(run.sweep().await.refused.is_some());
        SYSTEM.set(today());
        assert_eq!(label(&run.sweep().await), Some("first_sweep"));
        assert_eq!(label(&run.pass(HOUR, 24).await), Some("first_sweep"));
        assert_eq!((run.backups().len(), run.trash()), (10, 0));
    }
}

#[tokio::test]
async fn a_state_that_vanishes_while_the_clock_is_in_doubt_makes_a_first_sweep() {
    for text in [None, Some("{}"), Some(""), Some("{\"highestTime\": 7}")] {
        let run = Run::start(place(0), today());
        assert_eq!(label(&run.sweep().await), None);
        for number in 0..5 {
            let path = run.site().data().join("backups").join(digits(number));
            set_modified(&path, today() - DAY * 300);
        }
        SYSTEM.set(today() + DAY * 30);
        assert_eq!(label(&run.sweep().await), Some("clock_ahead"));
        let path = run.site().data().join("state.json");
        match text {
            Some(text) => write(&path, text),
            None => fs::remove_file(&path).unwrap(),
        }
        assert_eq!(label(&run.sweep().await), Some("clock_ahead"), "{text:?}");
        SYSTEM.set(today() + HOUR);
        ELAPSED.set(ELAPSED.get() + HOUR);
        assert_eq!(label(&run.sweep().await), Some("first_sweep"), "{text:?}");
        assert_eq!((run.backups().len(), run.trash()), (10, 0));
    }
}

/// The latest time was seen between two sweeps, and is not in the state yet.
#[tokio::test]
async fn a_clock_that_fell_behind_between_sweeps_can_be_accepted() {
    let run = Run::start(place(0), today());
    assert_eq!(label(&run.sweep().await), None);
    let minute = Duration::from_secs(60);
    for _ in 0..50 {
        SYSTEM.set(SYSTEM.get() + minute);
        ELAPSED.set(ELAPSED.get() + minute);
        assert!(!run.set_clock(SYSTEM.get()));
    }
    assert!(run.set_clock(SYSTEM.get() - minute * 40));
    assert_eq!(label(&run.sweep().await), Some("clock_behind"));
    assert_eq!(label(&run.prune(Mode::Remove).await), Some("clock_behind"));
    assert!(run.accept_clock().await);
    assert_eq!(label(&run.prune(Mode::Remove).await), None);
    assert_eq!(label(&run.sweep().await), None);
}

/// A server was off for days, and then runs with a clock that fell back to 1970.
#[tokio::test]
async fn a_removal_while_the_clock_is_behind_after_a_jump_is_in_the_trash_for_its_days() {
    for off in [9, 19] {
        let run = Run::start(place(0), today());
        assert_eq!(label(&run.sweep().await), None);
        let run = run.restart(Duration::ZERO, today() + DAY * off);
        assert_eq!(label(&run.sweep().await), Some("clock_ahead"));
        run.set_clock(UNIX_EPOCH);
        assert_eq!(label(&run.pass(DAY, 30).await), Some("clock_behind"));
        run.upload(&digits(1)).await;
        run.delete(&digits(2)).await;
        run.sweep().await;

        // As much time as the jump has passed meanwhile.
        run.set_clock(today() + DAY * (off + 30));
        let report = run.sweep().await;
        assert_eq!((report.refused, run.trash()), (None, 1), "{off}");
        assert_eq!(run.pass(DAY, 6).await.refused, None);
        assert_eq!(run.trash(), 1, "{off}");
    }
}
