//! The first sweep of a directory whose state is missing, invalid or of another version.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::json;
use threema_safe_server::state::{State, StateFile};

use super::clocks::{DAY, HOUR, Run, SYSTEM, label, today};
use crate::support::commands::run;
use crate::support::{ID, OTHER_ID, Site, digits, make_fifo, names, now, set_modified, write};

fn remembered(site: &Site) -> State {
    StateFile::in_directory(&site.data()).load().unwrap()
}

#[test]
fn a_directory_whose_files_are_all_old_and_whose_state_is_missing_waits_for_a_person() {
    for state in [
        None,
        Some(""),
        Some("{"),
        Some("null"),
        Some("{}"),
        Some("\0\0\0\0"),
    ] {
        let site = Site::new();
        let old = now() - DAY * 300;
        for number in 0..10 {
            site.place_backup(&digits(number), &[7; 41], old);
        }
        place_over(&site);
        let path = site.data().join("state.json");
        if let Some(text) = state {
            write(&path, text);
        }
        let is_invalid = state.is_some_and(|text| text != "{}");

        let dry = run(&site, &["prune", "--dry-run", "--json"]).json();
        assert_eq!(dry["refused"]["reason"], "firstSweep", "{state:?}");
        assert_eq!(
            (&dry["removed"], &dry["trashErased"]),
            (&json!(10), &json!(1))
        );
        for _ in 0..3 {
            let refused = run(&site, &["prune"]);
            assert_eq!(refused.code, Some(1));
            assert!(
                refused.errors.contains("10 of 10 backups and 1 in"),
                "{refused:?}"
            );
            assert_eq!(refused.out.contains("not valid"), is_invalid, "{refused:?}");
        }
        let aside = site.data().join("state.json.invalid");
        let kept = fs::read_to_string(&aside).ok();
        assert_eq!(kept.as_deref(), state.filter(|_| is_invalid));
        let checked = run(&site, &["check"]);
        assert_eq!(
            checked.out.contains("state.json.invalid"),
            is_invalid,
            "{checked:?}"
        );
        assert_eq!(names(&site.data().join("backups")).len(), 10);
        assert_eq!(names(&site.data().join("trash")).len(), 1);

        run(&site, &["prune", "--force"]).with_code(0);
        assert!(names(&site.data().join("backups")).is_empty());
        assert_eq!(remembered(&site).first_sweep, None);
        // Both guards are still there.
        for number in 0..3 {
            site.place_backup(&digits(number), &[7; 41], old);
        }
        assert_eq!(run(&site, &["prune"]).code, Some(1));
        assert_eq!(names(&site.data().join("backups")).len(), 3);
    }
}

/// Puts something into the trash that is over.
fn place_over(site: &Site) {
    let trash = site.data().join("trash");
    fs::create_dir_all(&trash).unwrap();
    write(&trash.join(format!("{OTHER_ID}.1000000000")), [7; 41]);
}

#[test]
fn a_state_that_cannot_be_read_or_is_of_another_version_loses_no_backup() {
    let site = Site::new();
    let state = site.data().join("state.json");
    site.place_backup(ID, &[7; 41], now() - DAY * 188);
    site.place_backup(&digits(1), &[7; 41], now());
    place_over(&site);
    // A directory in its place cannot even be replaced.
    fs::create_dir(&state).unwrap();
    for arguments in [&["prune"][..], &["prune", "--force"]] {
        assert_eq!(run(&site, arguments).code, Some(1));
    }
    assert_eq!(names(&site.data().join("backups")).len(), 2);
    fs::remove_dir(&state).unwrap();

    // Of another version; and only to be read.
    let text = format!(
        r#"{{"highestTime":{},"unheardOf":{{"a":[1]}}}}"#,
        now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 60
    );
    write(&state, text);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(
        run(&site, &["prune"])
            .with_code(0)
            .starts_with("backups: 1 kept, 1 removed\n")
    );
    assert!(remembered(&site).last_sweep.is_some_and(|time| time > 1));
}

#[test]
fn a_new_directory_and_one_without_old_files_raise_no_alarm() {
    let site = Site::new();
    for number in 0..3 {
        site.place_backup(&digits(number), &[7; 41], now() - DAY * 170);
    }
    run(&site, &["prune"]).with_code(0);
    let state = remembered(&site);
    assert!(state.highest_time.is_some() && state.first_sweep.is_none());
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

#[tokio::test]
async fn a_first_sweep_with_at_most_half_expired_waits_a_week_in_which_phones_renew() {
    for (expired, of, removed) in [(3, 10, 2), (8, 10, 0), (1, 1, 0)] {
        let site = Site::new();
        for number in 0..of {
            let age = if number < expired { 300 } else { 1 };
            site.place_backup(&digits(number), &[7; 41], today() - DAY * age);
        }
        let run = Run::start(site, today());
        assert_eq!(label(&run.sweep().await), Some("first_sweep"));
        if of > 1 {
            run.upload(&digits(0)).await;
        }
        // A suspended machine does not wait, nor does one that is off.
        let report = run.pass(DAY, 3).await;
        assert_eq!(label(&report), Some("first_sweep"));
        let now = SYSTEM.get() + HOUR * 20;
        let run = run.restart(HOUR * 20, now);
        let report = run.pass(HOUR, 24 * 7 - 7).await;
        assert_eq!(label(&report), Some("first_sweep"));
        assert_eq!(run.backups().len(), of);

        let report = run.pass(HOUR, 2).await;
        let too_many = (removed == 0).then_some("too_many");
        assert_eq!(label(&report), too_many, "{expired} of {of}");
        assert_eq!(of - run.backups().len(), removed);
    }
}
