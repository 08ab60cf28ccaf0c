//! Safety of the sweep, which does nothing where a wrong clock or setting is likelier than the
//! passing of time: to the second and to the backup, over real files, and how the operator learns
//! of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use threema_safe_server::retention::{self, Mode, Refusal, Report, Retention};
use threema_safe_server::state::{State, StateFile};
use threema_safe_server::store::FileStore;

use crate::support::commands::{command, metrics, run, status};
use crate::support::process::ServerProcess;
use crate::support::{
    ID, Listening, OTHER_ID, Site, contents, create_private, digits, make_fifo, names, now,
    set_modified, write,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A day on which tests take place.
fn today() -> SystemTime {
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

async fn sweep_with(site: &Site, retention: Retention, now: SystemTime, mode: Mode) -> Report {
    let store = FileStore::open(&site.data()).unwrap();
    let before = contents(&site.data());
    let state = StateFile::in_directory(&site.data());
    let report = retention::sweep(&store, &state, retention, now, mode).await;
    let report = report.unwrap();
    // Whatever was refused has touched nothing; that there are too many does not make the clock
    // doubtful.
    let mut after = contents(&site.data());
    let mut before = before;
    if matches!(report.refused, Some(Refusal::TooMany { .. })) && mode != Mode::DryRun {
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

fn remembered(site: &Site) -> State {
    StateFile::in_directory(&site.data()).load().unwrap()
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn more_than_ten_and_more_than_a_fifth_at_once_are_refused() {
    for (expired, all, refused) in [(10, 10, false), (11, 55, false), (11, 54, true)] {
        for mode in [Mode::Serve, Mode::Remove] {
            let site = Site::new();
            place(&site, expired, all, today());

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
            let again = sweep(&site, today() + DAY * 80, mode).await;
            assert_eq!(again.refused.is_some(), refused);
            let forced = sweep(&site, today() + DAY * 80, Mode::Force).await;
            assert_eq!(forced.refused, None);
            assert_eq!(names(&site.data().join("backups")).len(), all - expired);
        }
    }
}

#[tokio::test]
async fn a_clock_that_went_back_or_jumped_ahead_is_refused_to_the_second() {
    let seconds = unix(UNIX_EPOCH + DAY * 90) + 1;
    for (later, refused) in [
        (Ok(DAY * 90), None),
        (Ok(DAY * 90 + SECOND), Some(Refusal::ClockAhead { seconds })),
        (Err(SECOND), Some(Refusal::ClockBehind { seconds: 1 })),
        (
            Err(DAY * 19_000),
            Some(Refusal::ClockBehind {
                seconds: unix(UNIX_EPOCH + DAY * 19_000),
            }),
        ),
    ] {
        let site = Site::new();
        assert_eq!(sweep(&site, today(), Mode::Serve).await.refused, None);
        let then = match later {
            Ok(later) => today() + later,
            Err(earlier) => today() - earlier,
        };
        place(&site, 1, 9, then);

        for mode in [Mode::DryRun, Mode::Remove, Mode::Serve, Mode::Serve] {
            let report = sweep(&site, then, mode).await;
            assert_eq!(report.refused, refused, "{later:?}");
            if refused.is_none() {
                break;
            }
        }
        let forced = sweep(&site, then, Mode::Force).await;
        assert_eq!((forced.refused, forced.removed), (None, 1), "{later:?}");
        // The clock is believed from now on.
        let after = sweep(&site, then + SECOND, Mode::Serve).await;
        assert_eq!((after.refused, after.kept), (None, 8), "{later:?}");
    }
}

/// Sweeps every ten days; nothing may be refused. Returns the names that are left.
async fn sweep_on(site: &Site, retention: Retention, from: u32, until: u32) -> Vec<String> {
    for day in (from..until).step_by(10).chain([until]) {
        let report = sweep_with(site, retention, today() + DAY * day, Mode::Serve).await;
        assert_eq!(report.refused, None);
    }
    names(&site.data().join("backups"))
}

#[tokio::test]
async fn after_retention_was_lowered_the_longer_holds_until_renewed_or_over() {
    let site = Site::new();
    let (long, short) = (Retention::of_days(180, 7, 7), Retention::of_days(30, 7, 7));
    let (old, renewed) = (ID, OTHER_ID);
    for id in [old, renewed] {
        site.place_backup(id, &[7; 41], today());
    }
    sweep_on(&site, long, 0, 1).await;
    sweep_on(&site, short, 2, 2).await;
    site.place_backup(renewed, &[7; 41], today() + DAY * 3);

    assert_eq!(sweep_on(&site, short, 3, 40).await, [old, renewed]);
    assert_eq!(sweep_on(&site, short, 41, 187).await, [old]);
    assert_eq!(remembered(&site).retention_periods.len(), 2);
    assert!(sweep_on(&site, short, 188, 190).await.is_empty());
    assert_eq!(
        remembered(&site).retention_periods.len(),
        1,
        "nothing has it now"
    );
}

#[tokio::test]
async fn retention_that_is_raised_again_holds_for_all() {
    let site = Site::new();
    let (long, short) = (Retention::of_days(180, 7, 7), Retention::of_days(30, 7, 7));
    sweep_on(&site, long, 0, 0).await;
    sweep_on(&site, short, 1, 1).await;
    site.place_backup(ID, &[7; 41], today() + DAY * 2);

    sweep_on(&site, short, 10, 30).await;
    assert_eq!(sweep_on(&site, long, 31, 189).await, [ID]);
    assert_eq!(remembered(&site).retention_periods.len(), 1);
    assert!(sweep_on(&site, long, 190, 190).await.is_empty());
}

#[tokio::test]
async fn a_command_does_not_shorten_what_a_server_still_announces() {
    let site = Site::new();
    let (long, short) = (Retention::of_days(180, 7, 7), Retention::of_days(30, 7, 7));
    sweep_on(&site, long, 0, 0).await;
    // The configuration was changed, and the server is started again only the day after.
    let by_hand = sweep_with(&site, short, today() + DAY, Mode::Remove).await;
    assert_eq!(by_hand.refused, None);
    site.place_backup(ID, &[7; 41], today() + DAY + SECOND);

    assert_eq!(sweep_on(&site, short, 2, 188).await, [ID]);
    assert!(sweep_on(&site, short, 189, 189).await.is_empty());
}

#[tokio::test]
async fn times_near_the_ends_of_time_are_accepted() {
    let site = Site::new();
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
async fn assert_refusal_is_said(site: Site, word: &str, reason: &str, text: &str) -> Site {
    let before = names(&site.data().join("backups"));
    let server = ServerProcess::start(site);
    let admin = server.admin_address();

    let refused = |word: &str| format!("safe_sweep_refused{{reason=\"{word}\"}} 1");
    let all = metrics(admin, "safe_sweep_refused{").await;
    let on: Vec<_> = all.iter().filter(|line| line.ends_with(" 1")).collect();
    assert_eq!((all.len(), on), (3, vec![&refused(word)]));
    assert_eq!(
        metrics(admin, "safe_sweep_last_time_seconds").await,
        ["safe_sweep_last_time_seconds 0"]
    );
    let shown = status(server.site(), admin, &[]);
    let alert = format!("alerts      warning: the sweep removed nothing: {text}");
    assert!(shown.with_code(0).contains(&alert), "{shown:?}");
    assert!(shown.out.contains("`prune --force`"), "{shown:?}");
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

fn remember_time(site: &Site, time: SystemTime) {
    fs::create_dir_all(site.data()).unwrap();
    let state = json!({ "highestTime": unix(time) });
    write(&site.data().join("state.json"), state.to_string());
}

#[tokio::test]
async fn a_refusal_is_in_the_log_the_metrics_and_the_status() {
    let site = Site::new();
    place(&site, 11, 20, now());
    let text = "11 of 20 backups would be removed at once, more than a fifth";
    let site = assert_refusal_is_said(site, "too_many", "tooMany", text).await;

    remember_time(&site, now() - DAY * 91);
    let text = "the clock is 91 days ahead of the last sweep, more than half of retentionDays";
    let site = assert_refusal_is_said(site, "clock_ahead", "clockAhead", text).await;

    remember_time(&site, now() + DAY * 9 / 2);
    let text = "the clock is 4 days behind the latest time seen";
    let site = assert_refusal_is_said(site, "clock_behind", "clockBehind", text).await;

    assert_eq!(run(&site, &["prune", "--force"]).code, Some(0));
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
a sweep would remove nothing without --force: 11 of 21 backups would be removed at once, more than a fifth
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
        "refused": { "reason": "tooMany", "expired": 11, "of": 21 }, "ages": ages, "sizes": sizes,
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
fn a_state_that_is_missing_old_or_damaged_loses_no_backup() {
    let site = Site::new();
    let state = site.data().join("state.json");
    place(&site, 1, 2, now());
    for damaged in ["", "{", "null", "{\"highestTime\":-1}", "\0\0\0\0"] {
        write(&state, damaged);
        let backups = contents(&site.data().join("backups"));
        for arguments in [&["prune"][..], &["prune", "--dry-run"]] {
            let refused = run(&site, arguments);
            assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
            assert!(refused.errors.contains("`prune --force`"), "{refused:?}");
        }
        let names: Vec<_> = backups.keys().collect();
        let still = contents(&site.data().join("backups"));
        assert_eq!(names, still.keys().collect::<Vec<_>>());
    }

    // A directory in its place cannot even be replaced.
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    for arguments in [&["prune"][..], &["prune", "--force"]] {
        assert_eq!(run(&site, arguments).code, Some(1));
    }
    assert_eq!(names(&site.data().join("backups")).len(), 2);
    fs::remove_dir(&state).unwrap();

    // Of another version; and only to be read.
    write(&state, r#"{"lastSweep":1,"unheardOf":{"a":[1]}}"#);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(
        run(&site, &["prune"])
            .with_code(0)
            .starts_with("backups: 1 kept, 1 removed\n")
    );
    assert!(remembered(&site).last_sweep.is_some_and(|time| time > 1));

    place(&site, 1, 2, now());
    write(&state, "{");
    run(&site, &["prune", "--force"]).with_code(0);
    assert!(remembered(&site).last_sweep.is_some());
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

#[test]
fn a_directory_that_was_taken_over_is_swept_with_care_from_the_first_time_on() {
    let site = Site::new();
    for number in 0..20 {
        site.place_backup(&digits(number), &[7; 41], UNIX_EPOCH);
    }
    let backups = site.data().join("backups");
    for name in ["index.html", ".htaccess"] {
        write(&backups.join(name), "not ours");
        set_modified(&backups.join(name), UNIX_EPOCH);
    }
    symlink(Path::new("/etc/passwd"), backups.join(OTHER_ID)).unwrap();
    make_fifo(&backups.join(ID));
    let before = names(&backups);

    let refused = run(&site, &["prune"]);

    refused.with_code(1);
    assert!(refused.errors.contains("20 of 20 backups"), "{refused:?}");
    assert_eq!(names(&backups), before);
    run(&site, &["prune", "--force"]).with_code(0);
    assert_eq!(names(&backups), [".htaccess", ID, OTHER_ID, "index.html"]);
}
