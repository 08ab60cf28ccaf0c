//! Sweeps under wrong clocks: boards that boot in 1970, clocks that jump, step back or were accepted
//! by mistake; in one run and from one to the next. The time is set by the tests.

use std::cell::Cell;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use threema_safe_server::clock::Clock;
use threema_safe_server::retention::{self, Mode, RecentUploads, Refusal, Report, Retention};
use threema_safe_server::state::{State, StateFile};
use threema_safe_server::store::{FileStore, Store, Upload};

use crate::support::{ID, OTHER_ID, Site, digits, names, set_modified, write};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// 2026-11-30.
pub(super) fn today() -> SystemTime {
    UNIX_EPOCH + SECOND * 1_795_996_800
}

thread_local! {
    pub(super) static SYSTEM: Cell<SystemTime> = const { Cell::new(UNIX_EPOCH) };
    pub(super) static ELAPSED: Cell<Duration> = const { Cell::new(Duration::from_secs(7)) };
}

/// A server's storage and clock, in one run.
pub(super) struct Run {
    site: Site,
    store: FileStore,
    clock: Clock,
    recent: RecentUploads,
    retention: Retention,
}

impl Run {
    /// The first run of a site.
    pub(super) fn start(site: Site, now: SystemTime) -> Self {
        SYSTEM.set(now);
        let clock = Clock::new(|| SYSTEM.get(), || ELAPSED.get());
        clock.remember(
            &StateFile::in_directory(&site.data())
                .load()
                .unwrap_or_default(),
        );
        Self {
            store: FileStore::open(&site.data()).unwrap(),
            recent: RecentUploads::default(),
            clock,
            site,
            retention: Retention::of_days(180, 7, 7),
        }
    }

    /// A run under a clock that is right, of a server that has swept before.
    pub(super) async fn steady() -> Self {
        let run = Self::start(Site::new(), today());
        assert_eq!(run.sweep().await.refused, None);
        run
    }

    /// The next run, after that time, with a clock that shows `now`.
    pub(super) fn restart(self, off: Duration, now: SystemTime) -> Self {
        ELAPSED.set(ELAPSED.get() + off);
        Self::start(self.site, now)
    }

    pub(super) async fn sweep(&self) -> Report {
        let state = StateFile::in_directory(&self.site.data());
        let (clock, recent) = (&self.clock, &self.recent);
        retention::sweep_in_run(&self.store, &state, self.retention, clock, recent)
            .await
            .unwrap()
    }

    /// Time really passes, with a sweep after each step.
    pub(super) async fn pass(&self, step: Duration, steps: u32) -> Report {
        let mut report = None;
        for _ in 0..steps {
            ELAPSED.set(ELAPSED.get() + step);
            SYSTEM.set(SYSTEM.get() + step);
            report = Some(self.sweep().await);
        }
        report.unwrap()
    }

    /// Somebody sets the clock. Returns whether the server notices that before its next sweep.
    pub(super) fn set_clock(&self, now: SystemTime) -> bool {
        SYSTEM.set(now);
        self.clock.has_changed()
    }

    pub(super) async fn upload(&self, id: &str) -> SystemTime {
        let id = id.parse().unwrap();
        self.recent.add(id, self.clock.elapsed());
        let at = self.clock.now();
        let upload = Upload::new(vec![7; 41].into(), at);
        self.store.put(id, upload).await.unwrap();
        at
    }

    pub(super) async fn delete(&self, id: &str) {
        let now = self.clock.now();
        assert!(self.store.remove(id.parse().unwrap(), now).await.unwrap());
    }

    pub(super) async fn prune(&self, mode: Mode) -> Report {
        let state = StateFile::in_directory(&self.site.data());
        retention::sweep(&self.store, &state, self.retention, SYSTEM.get(), mode)
            .await
            .unwrap()
    }

    /// `prune --accept-clock`, by another process.
    pub(super) async fn accept_clock(&self) -> bool {
        let state = StateFile::in_directory(&self.site.data());
        retention::accept_clock(&state, SYSTEM.get()).await.unwrap()
    }

    pub(super) fn state(&self) -> State {
        StateFile::in_directory(&self.site.data()).load().unwrap()
    }

    pub(super) fn backups(&self) -> Vec<String> {
        names(&self.site.data().join("backups"))
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    pub(super) fn trash(&self) -> usize {
        names(&self.site.data().join("trash")).len()
    }
}

pub(super) fn label(report: &Report) -> Option<&'static str> {
    report.refused.map(Refusal::label)
}

/// An upload in 1970 must be kept for 187 days of real time, and no alarm may stay.
async fn assert_kept_for_its_time(run: &Run) {
    assert_eq!(run.sweep().await.refused, None);
    let report = run.pass(HOUR, 24 * 21).await;
    assert_eq!((report.refused, report.kept), (None, 1));
    let report = run.pass(DAY, 187 - 22).await;
    assert_eq!((report.refused, report.kept), (None, 1));
    assert_eq!(run.backups(), [ID]);
}

#[tokio::test]
async fn an_upload_in_1970_stays_when_the_clock_is_set_in_the_same_run() {
    let run = Run::start(Site::new(), UNIX_EPOCH + MINUTE);
    assert_eq!(label(&run.sweep().await), Some("clock_behind"));
    let first = run.upload(ID).await;
    let second = run.upload(ID).await;
    assert!(first >= UNIX_EPOCH + DAY * 19_723 && second >= first);
    run.pass(HOUR, 3).await;
    assert!(run.upload(ID).await > second);

    assert!(run.set_clock(today()), "the change is noticed at once");
    assert_kept_for_its_time(&run).await;
    // It is over when its time has really passed; and then a person has to look.
    let report = run.pass(HOUR, 50).await;
    let all = Refusal::TooMany { expired: 1, of: 1 };
    assert_eq!((report.refused, run.backups().len()), (Some(all), 1));
}

#[tokio::test]
async fn an_upload_in_1970_stays_when_the_clock_is_right_in_the_next_run() {
    for hours in [1, 24 * 5] {
        let run = Run::start(Site::new(), UNIX_EPOCH + MINUTE);
        run.sweep().await;
        run.pass(HOUR, hours).await;
        run.upload(ID).await;
        let run = run.restart(MINUTE, today());
        assert_kept_for_its_time(&run).await;
    }
}

#[tokio::test]
async fn an_upload_in_1970_stays_where_a_state_tells_of_earlier_times() {
    for (off, in_same_run) in [(HOUR, true), (DAY * 40, true), (DAY * 40, false)] {
        let run = Run::steady().await;
        run.upload(OTHER_ID).await;
        let run = run.restart(off, UNIX_EPOCH);
        assert_eq!(label(&run.sweep().await), Some("clock_behind"));
        assert!(run.upload(ID).await >= today(), "the highest time known");
        run.pass(HOUR, 5).await;

        let now = today() + off + HOUR * 5;
        let run = if in_same_run {
            assert!(run.set_clock(now));
            run
        } else {
            run.restart(MINUTE, now)
        };
        let report = run.sweep().await;
        // Forty days are more than a server without a right clock can believe.
        assert_eq!(label(&report), (off > DAY).then_some("clock_ahead"));
        if off > DAY {
            assert!(run.accept_clock().await);
            assert!(run.clock.was_accepted(&run.state()));
        }
        let report = run.pass(DAY, 150).await;
        assert_eq!((report.refused, report.kept), (None, 2), "{off:?}");
        // The other one was uploaded before, but no more than a day.
        let report = run.pass(DAY, 36).await;
        assert_eq!((report.refused, report.kept), (None, 2), "{off:?}");
    }
}

#[tokio::test]
async fn a_removal_in_1970_is_in_the_trash_for_its_days() {
    let run = Run::steady().await;
    run.upload(ID).await;
    let run = run.restart(HOUR, UNIX_EPOCH);
    run.sweep().await;
    run.delete(ID).await;
    assert!(run.set_clock(today() + HOUR * 2));
    let report = run.pass(HOUR, 24 * 6).await;
    assert_eq!(
        (report.refused, report.trash_erased, run.trash()),
        (None, 0, 1)
    );
    let report = run.pass(DAY, 2).await;
    assert_eq!((report.refused, run.trash()), (None, 0));
}

/// The trash that a clock must not erase, and a backup that it must not remove.
async fn with_trash(run: &Run) {
    run.upload(ID).await;
    run.upload(OTHER_ID).await;
    run.delete(OTHER_ID).await;
    assert_eq!((run.backups(), run.trash()), (vec![ID.to_owned()], 1));
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_erases_nothing_in_one_run() {
    for days in [1, 8, 30, 90, 400, 36_500] {
        let run = Run::steady().await;
        with_trash(&run).await;

        assert!(run.set_clock(today() + DAY * days + SECOND), "{days}");
        for _ in 0..3 {
            let report = run.sweep().await;
            assert_eq!(label(&report), Some("clock_ahead"), "{days}");
            let upload = run.upload(&digits(7)).await;
            assert!(upload >= today() + DAY * days);
        }
        // A command beside the server, by hand, with force, and by a timer.
        for mode in [Mode::Remove, Mode::Force, Mode::DryRun] {
            assert_eq!(label(&run.prune(mode).await), Some("clock_ahead"), "{days}");
        }
        assert_eq!((run.backups().len(), run.trash()), (2, 1));

        // The clock is right again.
        assert!(run.set_clock(today() + SECOND * 3));
        let report = run.pass(HOUR, 24).await;
        assert_eq!((report.refused, report.kept, run.trash()), (None, 2, 1));
        assert_eq!(run.state().clock.jump, None);
        let report = run.pass(DAY, 8).await;
        assert_eq!((report.refused, report.kept, run.trash()), (None, 2, 0));
    }
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_erases_nothing_from_one_run_to_the_next() {
    for days in [2, 8, 30, 90] {
        let run = Run::steady().await;
        with_trash(&run).await;

        let mut run = run.restart(SECOND, today() + DAY * days);
        for restart in 0..20 {
            let report = run.sweep().await;
            assert_eq!(label(&report), Some("clock_ahead"), "{days}, {restart}");
            run.upload(&digits(7)).await;
            let now = SYSTEM.get() + MINUTE;
            run = run.restart(MINUTE, now);
        }
        assert_eq!((run.backups().len(), run.trash()), (2, 1));
    }
}

#[tokio::test]
async fn a_jump_of_less_than_a_day_is_not_made_credible_by_a_restart() {
    let run = Run::steady().await;
    with_trash(&run).await;
    let mut run = run;
    for jump in 1..20 {
        // The server looks every minute, and sweeps at once.
        run.set_clock(SYSTEM.get() + HOUR * 20);
        let report = run.sweep().await;
        assert_eq!(label(&report), Some("clock_ahead"), "{jump}");
        let now = SYSTEM.get() + SECOND;
        run = run.restart(SECOND, now);
        assert_eq!(label(&run.sweep().await), Some("clock_ahead"), "{jump}");
    }
    assert_eq!(run.trash(), 1);
}

#[tokio::test]
async fn a_server_that_was_off_for_less_than_a_day_sweeps_without_a_doubt() {
    let run = Run::steady().await;
    let run = run.restart(HOUR * 23, today() + HOUR * 23);
    assert_eq!(run.sweep().await.refused, None);
    // Nor is one in doubt whose clock drifts, or that was suspended.
    assert!(!run.set_clock(SYSTEM.get() + MINUTE * 59));
    assert_eq!(run.pass(DAY * 3, 1).await.refused, None);
}

#[tokio::test]
async fn a_jump_is_over_when_its_time_has_really_passed_and_nothing_is_older_than_it_is() {
    let run = Run::steady().await;
    with_trash(&run).await;
    run.set_clock(today() + DAY * 30);
    let report = run.pass(DAY, 15).await;
    assert_eq!(label(&report), Some("clock_ahead"));
    // Restarts do not shorten it.
    let now = SYSTEM.get();
    let run = run.restart(SECOND, now);
    let report = run.pass(DAY, 14).await;
    assert_eq!((label(&report), run.trash()), (Some("clock_ahead"), 1));
    run.upload(&digits(7)).await;

    let report = run.pass(DAY, 2).await;
    // The trash is 31 days old by now, and goes.
    assert_eq!((report.refused, report.kept, run.trash()), (None, 2, 0));
    let report = run.pass(DAY, 187 - 31).await;
    assert_eq!((report.refused, report.kept), (None, 2));
    let report = run.pass(DAY, 2).await;
    assert_eq!((report.refused, run.backups()), (None, vec![digits(7)]));
}

#[tokio::test]
async fn an_accepted_jump_ages_what_the_wrong_clock_stamped_from_its_true_time() {
    // A board that boots at the time of its last shutdown, forty days ago.
    let run = Run::steady().await;
    run.site
        .place_backup(OTHER_ID, &[7; 41], today() - DAY * 160);
    run.site
        .place_backup(&digits(3), &[7; 41], today() - DAY * 2);
    let run = run.restart(DAY * 40, today() + MINUTE);
    assert_eq!(run.sweep().await.refused, None);
    run.upload(ID).await;
    run.upload(&digits(1)).await;
    run.delete(&digits(1)).await;
    run.set_clock(today() + DAY * 40 + HOUR);
    assert_eq!(label(&run.sweep().await), Some("clock_ahead"));

    // The command sweeps at once: the one that has really expired goes, to the trash.
    assert!(run.accept_clock().await);
    let report = run.prune(Mode::Remove).await;
    assert_eq!(
        (report.refused, report.removed, report.trash_erased),
        (None, 1, 0)
    );
    assert_eq!(run.backups(), [digits(3), ID.to_owned()]);
    assert!(run.clock.was_accepted(&run.state()));
    let report = run.pass(DAY, 6).await;
    assert_eq!((report.refused, report.kept, run.trash()), (None, 2, 2));
    assert!(!run.clock.was_accepted(&run.state()));
    assert!(!run.accept_clock().await, "there is no doubt to accept");

    let report = run.pass(DAY, 181).await;
    assert!(run.backups().contains(&ID.to_owned()), "{report:?}");
    assert_eq!(run.trash(), 0);
}

#[tokio::test]
async fn small_steps_back_are_no_alarm_and_larger_ones_end_by_themselves() {
    for (step, behind) in [
        (SECOND * 2, false),
        (MINUTE * 5, false),
        (MINUTE * 6, true),
        (HOUR * 20, true),
    ] {
        let run = Run::steady().await;
        with_trash(&run).await;
        assert_eq!(run.set_clock(today() - step), behind, "{step:?}");
        let report = run.sweep().await;
        let expected = behind.then_some("clock_behind");
        assert_eq!(label(&report), expected, "{step:?}");
        let seconds = Some(step.as_secs()).filter(|_| behind);
        assert_eq!(
            report.refused,
            seconds.map(|seconds| Refusal::ClockBehind { seconds })
        );
        assert!(run.upload(ID).await >= today());
        let report = run.pass(HOUR, 20).await;
        assert_eq!(report.refused, None, "{step:?}");
        assert_eq!((run.backups().len(), run.trash()), (1, 1));
    }
}

#[tokio::test]
async fn a_clock_that_was_accepted_years_ahead_is_accepted_back() {
    let run = Run::steady().await;
    with_trash(&run).await;
    run.set_clock(today() + DAY * 3_650);
    run.sweep().await;
    assert!(run.accept_clock().await);
    assert_eq!(run.sweep().await.refused, None);
    assert_eq!((run.backups().len(), run.trash()), (1, 1));

    run.set_clock(today());
    assert_eq!(label(&run.pass(DAY, 3).await), Some("clock_behind"));
    assert_eq!(label(&run.prune(Mode::Force).await), Some("clock_behind"));
    assert!(run.accept_clock().await);
    assert!(run.clock.was_accepted(&run.state()));
    let report = run.sweep().await;
    assert_eq!((report.refused, run.trash()), (None, 1));
    assert!(run.state().clock.corrections.is_empty());
    let upload = run.upload(&digits(7)).await;
    assert!(upload < today() + DAY * 4, "not years ahead");
    // The trash ages as if nothing had been.
    assert_eq!(run.pass(DAY, 5).await.refused, None);
    assert_eq!((run.backups().len(), run.trash()), (2, 0));
}

#[tokio::test]
async fn a_highest_time_that_no_clock_can_have_shown_is_none() {
    for time in [u64::MAX, u64::MAX - 1, 300_000_000_000, 0, 5_000] {
        let site = Site::new();
        fs::create_dir_all(site.data()).unwrap();
        let text = format!("{{\"highestTime\":{time}}}");
        write(&site.data().join("state.json"), text);
        site.place_backup(ID, &[7; 41], today() - DAY * 300);
        let run = Run::start(site, today());

        let upload = run.upload(OTHER_ID).await;
        assert!(upload >= today() && upload < today() + MINUTE, "{upload:?}");
        assert_eq!(label(&run.sweep().await), Some("first_sweep"), "{time}");
        assert_eq!(run.backups().len(), 2);
    }
    // Absurd numbers in the rest of the state harm nothing.
    let site = Site::new();
    fs::create_dir_all(site.data()).unwrap();
    let max = u64::MAX;
    let text = format!(
        r#"{{"highestTime":{}, "clock":{{"jump":{{"since":{max},"runStarted":{max},"to":0}},
        "estimated":{{"from":{max},"until":{max}}}, "acceptances":{max},
        "corrections":[{{"from":0,"until":{max},"shift":{max}}},{{"from":0,"until":{max},"shift":{max}}}]}},
        "firstSweep":{{"waited":{max}}}, "expired":[{{"last":{max},"backups":{max}}}],
        "retentionPeriods":[{{"since":{max},"keepSeconds":{max}}}]}}"#,
        1_795_996_800 - 60,
    );
    write(&site.data().join("state.json"), text);
    site.place_backup(ID, &[7; 41], today() - DAY * 300);
    let run = Run::start(site, today());
    run.upload(OTHER_ID).await;
    run.sweep().await;
    run.set_clock(today() + DAY * 90);
    run.sweep().await;
    run.accept_clock().await;
    run.sweep().await;
    assert_eq!(run.backups().len(), 2);
}

#[tokio::test]
async fn a_shorter_retention_and_a_jump_together_keep_what_was_promised() {
    let mut run = Run::steady().await;
    run.upload(ID).await;
    run.set_clock(today() + DAY * 60);
    run.retention = Retention::of_days(30, 7, 7);
    assert_eq!(label(&run.sweep().await), Some("clock_ahead"));
    run.upload(OTHER_ID).await;
    let report = run.pass(DAY, 59).await;
    assert_eq!(label(&report), Some("clock_ahead"));
    // Accepted by itself: the first one keeps its 187 days.
    let report = run.pass(DAY, 127).await;
    assert!(run.backups().contains(&ID.to_owned()), "{report:?}");
    assert_ne!(label(&report), Some("clock_ahead"));
}

#[tokio::test]
async fn what_was_uploaded_in_this_run_stays_whatever_its_file_says() {
    let run = Run::steady().await;
    for id in [digits(1), digits(2)] {
        run.site.place_backup(&id, &[7; 41], today());
    }
    run.upload(ID).await;
    // The clock of a file server that refuses other times.
    set_modified(&run.site.backup_file(ID), UNIX_EPOCH);
    let report = run.pass(DAY, 180).await;
    assert_eq!((report.refused, report.kept), (None, 3));
    // By a command the file would go.
    assert_eq!(run.prune(Mode::DryRun).await.removed, 1);
}
