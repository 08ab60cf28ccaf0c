//! Bursts of deletions under wrong clocks: what is erased for good must be as deliberate as under a
//! right one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use threema_safe_server::clock::now_for_command;
use threema_safe_server::state::{State, StateFile};

use super::clocks::{DAY, HOUR, Run, SYSTEM, label, today};
use crate::support::{Site, digits};

const MINUTE: Duration = Duration::from_secs(60);

/// Ten phones upload.
async fn upload_ten(run: &Run) {
    for number in 0..10 {
        run.upload(&digits(number)).await;
    }
}

/// An MDM setting is mistyped, and all iPhones delete their backups.
async fn delete_ten(run: &Run) {
    for number in 0..10 {
        run.delete(&digits(number)).await;
    }
}

/// `trash confirm`, by another process.
fn confirm(run: &Run) {
    let state = StateFile::in_directory(&run.site().data());
    let confirm = |state: &mut State| {
        let now = now_for_command(state, SYSTEM.get());
        state.acknowledged_until = Some(unix(now));
        state.deletion_burst = None;
    };
    state.update(confirm).unwrap();
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A confirmation is of what was removed before, also where the clock was ahead when it was given.
#[tokio::test]
async fn a_confirmation_under_a_clock_that_is_ahead_covers_no_later_burst() {
    for ahead in [HOUR * 20, DAY * 8, DAY * 90] {
        for is_accepted in [true, false] {
            let run = Run::steady().await;
            SYSTEM.set(today() + ahead);
            run.sweep().await;
            if is_accepted {
                assert!(run.accept_clock().await);
                assert_eq!(label(&run.sweep().await), None);
            }
            confirm(&run);
            run.sweep().await;

            SYSTEM.set(today() + MINUTE);
            run.sweep().await;
            if is_accepted {
                assert!(run.accept_clock().await);
            }
            assert_eq!(label(&run.pass(HOUR, 3).await), None, "{ahead:?}");
            upload_ten(&run).await;
            delete_ten(&run).await;
            let report = run.pass(HOUR, 24 * 9).await;
            assert!(report.trash_held.is_some(), "{ahead:?}, {is_accepted}");
            assert_eq!(run.trash(), 10);

            // This one is covered.
            confirm(&run);
            let report = run.pass(HOUR, 1).await;
            assert_eq!((report.trash_held, run.trash()), (None, 0));
        }
    }
}

/// A confirmation covers what was removed before, where the clock was behind.
#[tokio::test]
async fn a_confirmation_under_a_clock_that_is_behind_stays() {
    for boot in [UNIX_EPOCH, today() - DAY * 3] {
        let run = Run::steady().await;
        let run = run.restart(HOUR, boot);
        upload_ten(&run).await;
        delete_ten(&run).await;
        assert!(run.sweep().await.trash_held.is_some());
        confirm(&run);
        assert_eq!(run.sweep().await.trash_held, None);
        SYSTEM.set(today() + HOUR);
        let report = run.pass(HOUR, 24 * 9).await;
        assert_eq!((report.refused, report.trash_held), (None, None));
        assert_eq!(run.trash(), 0);
    }
}

/// What was uploaded in 1970 had not expired when phones deleted it.
#[tokio::test]
async fn a_burst_of_deletions_of_what_was_uploaded_in_1970_is_one() {
    let run = Run::start(Site::new(), UNIX_EPOCH);
    assert_eq!(label(&run.sweep().await), Some("clock_behind"));
    upload_ten(&run).await;
    SYSTEM.set(today());
    assert_eq!(label(&run.pass(HOUR, 24).await), None);
    delete_ten(&run).await;
    let report = run.pass(HOUR, 24 * 9).await;
    assert!(report.trash_held.is_some());
    assert_eq!(run.trash(), 10);
}
