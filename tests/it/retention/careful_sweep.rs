//! Safety of the sweep, which does nothing where a wrong clock or setting is likelier than the
//! passing of time: to the second and to the backup, over real files, and how the operator learns
//! of it.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use threema_safe_server::retention::{self, Mode, Refusal, Report, Retention};
use threema_safe_server::state::{State, StateFile};
use threema_safe_server::store::FileStore;

use crate::support::commands::{command, metrics, run, status};
use crate::support::process::ServerProcess;
use crate::support::{
    ID, Listening, OTHER_ID, Site, contents, create_private, digits, names, now, set_modified,
    write,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A day on which tests take place.
pub(super) fn today() -> SystemTime {
    UNIX_EPOCH + DAY * 20_000
}

/// Places so many backups, the first of them expired at that time, and something in the trash that
/// is over.
fn place(site: &Site, expired: usize, all: usize, now: SystemTime) {
    for number in 0..all {
        let age = if number < expired { DAY * 188 } else { DAY };
        site.place_backup(&digits(number), &[7; 41], now - age);
    }
    let trash = site.data().join("trash");
    create_private(&trash);
    let trashed = trash.join(format!("{OTHER_ID}.1000000000"));
    write(&trashed, [7; 41]);
    set_modified(&trashed, UNIX_EPOCH);
}

pub(super) async fn sweep_with(
    site: &Site,
    retention: Retention,
    now: SystemTime,
    mode: Mode,
) -> Report {
    let store = FileStore::open(&site.data()).unwrap();
    let before = contents(&site.data());
    let state = StateFile::in_directory(&site.data());
    let report = retention::sweep(&store, &state, retention, now, mode).await;
    let report = report.unwrap();
    // Whatever was refused has touched nothing but the state.
    let mut after = contents(&site.data());
    let mut before = before;
    if mode != Mode::DryRun {
        let state = site.data().join("state.json");
        for contents in [&mut before, &mut after] {
            contents.remove(&state);
            contents.remove(&site.data());
            contents.remove(&site.data().join("tmp"));
        }
    }
    if report.refused.is_some() || mode == Mode::DryRun {
        assert_eq!(before, after);
    }
    report
}

async fn sweep(site: &Site, now: SystemTime, mode: Mode) -> Report {
    sweep_with(site, Retention::of_days(180, 7, 7), now, mode).await
}

pub(super) fn remembered(site: &Site) -> State {
    StateFile::in_directory(&site.data()).load().unwrap()
}

fn unix(time: SystemTime) -> u64 {
    let time = time.duration_since(UNIX_EPOCH);
    time.unwrap_or_default().as_secs()
}

#[tokio::test]
async fn more_than_ten_and_more_than_a_fifth_at_once_are_refused() {
    for (expired, all, refused) in [(10, 20, false), (11, 55, false), (11, 54, true)] {
        for mode in [Mode::Serve, Mode::Remove] {
            let site = Site::new();
            place(&site, expired, all, today());
            site.swept_at(today());

            let dry = sweep(&site, today(), Mode::DryRun).await;
            let report = sweep(&site, today(), mode).await;

            let reason = refused.then_some(Refusal::TooMany {
                expired: 11,
                of: 54,
            });
            assert_eq!((dry.refused, report.refused), (reason, reason), "{all}");
            assert_eq!((dry.removed, dry.trash_erased), (expired as u64, 1));
            let done = if refused { (0, 0) } else { (expired as u64, 1) };
            assert_eq!((report.removed, report.trash_erased), done, "{all}");
            let state = remembered(&site);
            assert_eq!(state.last_sweep.is_none(), refused);
            assert_eq!(state.highest_time, Some(unix(today())));

            // It stays so until a person has looked.
            site.swept_at(today() + DAY * 80);
            let again = sweep(&site, today() + DAY * 80, mode).await;
            assert_eq!(again.refused.is_some(), refused);
            let forced = sweep(&site, today() + DAY * 80, Mode::Force).await;
            assert_eq!(forced.refused, None);
            assert_eq!(names(&site.data().join("backups")).len(), all - expired);
        }
    }
}

#[tokio::test]
async fn more_than_half_of_any_number_at_once_are_refused() {
    for (expired, all, refused) in [
        (1, 1, true),
        (1, 2, false),
        (2, 3, true),
        (3, 3, true),
        (3, 6, false),
        (10, 10, true),
    ] {
        let site = Site::new();
        place(&site, expired, all, today());
        site.swept_at(today());

        let report = sweep(&site, today(), Mode::Serve).await;

        let of = all as u64;
        let expired = expired as u64;
        let reason = refused.then_some(Refusal::TooMany { expired, of });
        assert_eq!(report.refused, reason);
        let forced = sweep(&site, today(), Mode::Force).await;
        assert_eq!(report.removed + forced.removed, expired);
    }
}

#[tokio::test]
async fn one_after_the_other_is_no_way_around_the_check_and_a_confirmation_holds_once() {
    for trash_days in [0, 7] {
        let site = Site::new();
        let retention = Retention::of_days(180, 7, trash_days);
        for (number, hours) in [0, 5, 10, 24 * 30].into_iter().enumerate() {
            let time = today() - DAY * 187 + SECOND * 3_600 * hours;
            site.place_backup(&digits(number), &[7; 41], time);
        }
        let mut removed = 0;
        for hour in 1..=24 {
            let now = today() + SECOND * 3_600 * hour;
            site.swept_at(now);
            let report = sweep_with(&site, retention, now, Mode::Serve).await;
            removed += report.removed;
            let too_many = Refusal::TooMany { expired: 3, of: 4 };
            assert_eq!(report.refused, (hour > 10).then_some(too_many), "{hour}");
        }
        assert_eq!(removed, 2);

        let now = today() + DAY;
        let forced = sweep_with(&site, retention, now, Mode::Force).await;
        assert_eq!((forced.refused, forced.removed), (None, 1));
        let after = sweep_with(&site, retention, now, Mode::Serve).await;
        assert_eq!((after.refused, after.kept), (None, 1));
        // The last one needs another confirmation.
        let now = today() + DAY * 31;
        site.swept_at(now);
        let after = sweep_with(&site, retention, now, Mode::Serve).await;
        let last = Refusal::TooMany { expired: 1, of: 1 };
        assert_eq!(after.refused, Some(last));
    }
}

#[tokio::test]
async fn a_clock_that_went_back_or_jumped_ahead_is_refused_to_the_second() {
    let ahead = |time: Duration| {
        Some(Refusal::ClockAhead {
            seconds: time.as_secs(),
        })
    };
    let behind = |seconds| Some(Refusal::ClockBehind { seconds });
    let minutes = SECOND * 300;
    for (later, refused) in [
        (Ok(DAY), None),
        (Ok(DAY + SECOND), ahead(DAY + SECOND)),
        (Ok(DAY * 90), ahead(DAY * 90)),
        (Err(SECOND * 2), None),
        (Err(minutes), None),
        (Err(minutes + SECOND), behind(301)),
        (Err(DAY * 200), behind(unix(UNIX_EPOCH + DAY * 200))),
        (Err(DAY * 19_000), behind(unix(UNIX_EPOCH + DAY * 19_000))),
    ] {
        let site = Site::new();
        assert_eq!(sweep(&site, today(), Mode::Serve).await.refused, None);
        let then = match later {
            Ok(later) => today() + later,
            Err(earlier) => today() - earlier,
        };
        place(&site, 1, 9, then);

        for mode in [Mode::DryRun, Mode::Remove, Mode::Serve, Mode::Force] {
            let report = sweep(&site, then, mode).await;
            assert_eq!(report.refused, refused, "{later:?}");
            if refused.is_none() {
                break;
            }
        }
        if refused.is_none() {
            continue;
        }
        let state = StateFile::in_directory(&site.data());
        let can_be_right = then > today() - DAY * 277;
        let accepted = retention::accept_clock(&state, then).await.unwrap();
        assert_eq!(accepted, can_be_right);
        let after = sweep(&site, then + SECOND, Mode::Serve).await;
        if can_be_right {
            assert_eq!((after.refused, after.kept), (None, 8), "{later:?}");
        } else {
            assert!(after.refused.is_some());
        }
    }
}

#[tokio::test]
async fn times_near_the_ends_of_time_are_accepted() {
    let site = Site::new();
    site.swept_at(today());
    let year_9999 = UNIX_EPOCH + SECOND * u32::MAX * 59;
    for (id, time) in [(ID, UNIX_EPOCH - DAY * 3_000), (OTHER_ID, year_9999)] {
        site.place_backup(id, &[7; 41], time);
    }
    let trash = site.data().join("trash");
    fs::create_dir_all(&trash).unwrap();
    let not_ours = ["007", "+7", "-7", "", "7.7", "18446744073709551616"];
    for removed_at in ["0", "18446744073709551615"].iter().chain(&not_ours) {
        write(&trash.join(format!("{ID}.{removed_at}")), [7; 41]);
    }

    let report = sweep(&site, today(), Mode::Serve).await;

    assert_eq!((report.kept, report.removed, report.failed), (1, 1, 0));
    // One that is not over, and the one that has just expired.
    assert_eq!((report.trash_kept, report.trash_erased), (2, 1));
    let left = names(&trash);
    assert!(!left.contains(&format!("{ID}.0")));
    for name in not_ours {
        assert!(left.contains(&format!("{ID}.{name}")), "{name}");
    }
    assert_eq!(names(&site.data().join("backups")), [OTHER_ID]);
}

/// Starts a server over the site, and makes sure that it says why it refuses, wherever an operator
/// looks.
async fn assert_refusal_is_said(
    site: Site,
    word: &str,
    reason: &str,
    text: &str,
    remedy: &str,
) -> Site {
    let before = names(&site.data().join("backups"));
    let checked = run(&site, &["check"]);
    let finding = format!("the sweep removed nothing: {text}");
    assert!(checked.out.contains(&finding), "{checked:?}");
    let dry = run(&site, &["prune", "--dry-run"]);
    assert!(dry.with_code(0).contains(text), "{dry:?}");
    let server = ServerProcess::start(site);
    let admin = server.admin_address();

    let refused = |word: &str| format!("safe_sweep_refused{{reason=\"{word}\"}} 1");
    let all = metrics(admin, "safe_sweep_refused{").await;
    let on: Vec<_> = all.iter().filter(|line| line.ends_with(" 1")).collect();
    assert_eq!((all.len(), on), (4, vec![&refused(word)]));
    assert_eq!(
        metrics(admin, "safe_sweep_last_time_seconds").await,
        ["safe_sweep_last_time_seconds 0"]
    );
    let shown = status(server.site(), admin, &[]);
    let alert = format!("alerts      warning: the sweep removed nothing: {text}");
    assert!(shown.with_code(0).contains(&alert), "{shown:?}");
    assert!(shown.out.contains(&format!("`{remedy}`")), "{shown:?}");
    let shown = status(server.site(), admin, &["--json"]).json();
    assert_eq!(shown["sweep"]["report"]["refused"]["reason"], reason);

    let (log, site) = server.stop();
    let line = log
        .lines()
        .find(|line| line.contains("sweep refused: nothing was removed"))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("ERROR") && line.contains(text), "{line}");
    assert!(!before.iter().any(|id| log.contains(id.as_str())), "{log}");
    assert_eq!(names(&site.data().join("backups")), before);
    site
}

#[tokio::test]
async fn a_refusal_is_in_the_log_the_metrics_the_status_and_the_check() {
    let (force, accept) = ("prune --force", "prune --accept-clock");
    let site = Site::new();
    place(&site, 11, 20, now());
    let text =
        "without the state of earlier sweeps, 11 of 20 backups and 1 in the trash look too old";
    let site = assert_refusal_is_said(site, "first_sweep", "firstSweep", text, force).await;

    let state = site.data().join("state.json");
    fs::remove_file(&state).unwrap();
    site.swept_at(now());
    let text = "11 of 20 backups would be removed at once, more than a fifth";
    let site = assert_refusal_is_said(site, "too_many", "tooMany", text, force).await;

    fs::remove_file(&state).unwrap();
    site.swept_at(now() - DAY * 91);
    let text = "the clock is 91 days ahead of the time that can have passed";
    let site = assert_refusal_is_said(site, "clock_ahead", "clockAhead", text, accept).await;

    fs::remove_file(&state).unwrap();
    site.swept_at(now() + DAY * 9 / 2);
    let text = "the clock is 4 days behind the latest time seen";
    let site = assert_refusal_is_said(site, "clock_behind", "clockBehind", text, accept).await;

    // The number is confirmed, but not the clock.
    let refused = run(&site, &["prune", "--force"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.errors.contains("not the clock"), "{refused:?}");
    assert!(
        refused.errors.contains("`prune --accept-clock`"),
        "{refused:?}"
    );
    assert_eq!(names(&site.data().join("backups")).len(), 20);
    let forced = run(&site, &["prune", "--force", "--accept-clock"]);
    forced.with_code(0);
    assert!(
        forced.errors.contains("the clock is accepted"),
        "{forced:?}"
    );
    let server = ServerProcess::start(site);
    let admin = server.admin_address();
    let calm = status(server.site(), admin, &[]);
    assert!(calm.out.ends_with("alerts      none\n"), "{calm:?}");
    let refused = metrics(admin, "safe_sweep_refused{").await;
    assert!(
        refused.iter().all(|line| line.ends_with(" 0")),
        "{refused:?}"
    );
    let (log, site) = server.stop();
    assert!(!log.contains("nothing was removed"), "{log}");
    let gone = status(&site, admin, &[]);
    assert_eq!((gone.code, gone.out.as_str()), (Some(1), ""));
    assert!(gone.errors.contains("admin.listen"), "{gone:?}");
}

#[test]
fn prune_counts_by_age_refuses_and_is_forced() {
    let site = Site::new();
    for (number, days) in [0, 1, 2, 7, 30, 90, 179, 180, 187].into_iter().enumerate() {
        // A minute younger or older than the bound: the clock goes on.
        let time = now() - DAY * days - SECOND * 60;
        let time = if days == 187 {
            time + SECOND * 120
        } else {
            time
        };
        site.place_backup(&digits(1_000 + number), &[7; 50], time);
    }
    place(&site, 11, 12, now());
    site.swept_at(now());

    let dry = run(&site, &["prune", "--dry-run"]);
    let expected = "\
backups: 10 kept, 11 would be removed
                1 younger than 1 day
                2 younger than 2 days
                1 younger than 7 days
                1 younger than 30 days
                1 younger than 90 days
                2 younger than 180 days
               13 older
trash:   0 kept, 1 would be erased
a sweep would remove nothing: 11 of 21 backups would be removed at once, more than a fifth
if this is intended, run `prune --force`
";
    assert_eq!(dry.with_code(0), expected);
    let wet = run(&site, &["prune"]);
    assert!(
        wet.with_code(1)
            .starts_with("backups: 21 kept, 0 removed\n")
    );
    assert!(
        wet.errors
            .starts_with("error: nothing was removed: 11 of 21"),
        "{wet:?}"
    );
    assert!(wet.errors.contains("--force"), "{wet:?}");
    assert_eq!(run(&site, &["prune", "--force", "--dry-run"]).code, Some(2));

    let dry = run(&site, &["prune", "--dry-run", "--json"]);
    let ages = [
        (json!(1), 1),
        (json!(2), 2),
        (json!(7), 1),
        (json!(30), 1),
        (json!(90), 1),
    ];
    let ages = ages.into_iter().chain([(json!(180), 2), (json!(null), 13)]);
    let ages: Vec<_> = ages
        .map(|(days, backups)| json!({ "youngerThanDays": days, "backups": backups }))
        .collect();
    let sizes = [10, 25, 50, 80, 90, 100].map(|percent| json!(percent));
    let sizes: Vec<_> = sizes
        .into_iter()
        .chain([json!(null)])
        .map(|percent| json!({ "upToPercent": percent, "backups": if percent == 10 { 21 } else { 0 } }))
        .collect();
    let mut expected = json!({
        "kept": 10, "keptBytes": 491, "removed": 11, "removedBytes": 451,
        "trashKept": 0, "trashBytes": 0, "trashErased": 1, "trashHeld": null, "failed": 0,
        "refused": { "reason": "tooMany", "expired": 11, "of": 21 }, "invalidState": false, "ages": ages, "sizes": sizes,
        "expiringIn14Days": 3, "expiringIn30Days": 3,
    });
    dry.with_code(0);
    assert_eq!(dry.json(), expected);
    let forced = run(&site, &["prune", "--force", "--json"]);
    forced.with_code(0);
    expected["refused"] = json!(null);
    expected["trashKept"] = 11.into();
    expected["trashBytes"] = 451.into();
    assert_eq!(forced.json(), expected);
}

#[test]
fn two_prunes_at_once_remove_each_backup_once() {
    let site = Site::new();
    place(&site, 300, 320, now());
    let start = || {
        let mut command = command(&site, &["prune", "--force", "--json"]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };

    let removed: u64 = [start(), start()]
        .into_iter()
        .map(|prune| {
            let output = prune.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            report["removed"].as_u64().unwrap()
        })
        .sum();

    assert_eq!(removed, 300);
    assert_eq!(names(&site.data().join("backups")).len(), 20);
    assert_eq!(names(&site.data().join("trash")).len(), 300);
    assert!(names(&site.data().join("tmp")).is_empty());
}
