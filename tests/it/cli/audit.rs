//! Audit log: `audit.jsonl` in the data directory records what operators do.

use std::fs;
use std::ops::Range;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::support::commands::Folder;
use crate::support::{ID, OTHER_ID, mode};

/// The lines of the audit log, without their times and users, which have to be there.
fn audited(folder: &Folder) -> Vec<Value> {
    let uid = rustix::process::getuid().as_raw();
    let lines = fs::read_to_string(folder.path("data/audit.jsonl")).unwrap();
    lines
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let object = line.as_object_mut().unwrap();
            let time = object.remove("time").unwrap();
            assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
            assert_eq!(object.remove("uid"), Some(uid.into()));
            object.remove("loginUid");
            line
        })
        .collect()
}

#[test]
fn what_operators_do_is_written_down_with_names_and_counts_and_without_ids_and_secrets() {
    let folder = Folder::new();
    let said = folder.done(&["init", "--yes", "--account", "phones"]);
    let secret = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Password   "))
        .unwrap();
    folder.write("chosen", "a chosen password");
    folder.done(&["account", "add", "boss", "--role", "operator"]);
    folder.done(&["account", "add", "büro", "--secret-file", "chosen"]);
    folder.failed(&["account", "add", "boss"]);
    folder.done(&["account", "remove", "boss"]);
    place_expired(&folder, 0..1);
    folder.run(&["prune"]);
    folder.done(&["prune", "--force", "--accept-clock"]);
    folder.done(&["trash", "restore", "--all"]);
    place_expired(&folder, 1..12);
    assert_eq!(folder.run(&["prune"]).code, Some(1));
    folder.done(&["prune", "--force"]);
    folder.write("damaged", "");
    folder.run(&["scrub"]);
    folder.done(&["trash", "confirm"]);
    fs::write(folder.path("data/trash").join(format!("{OTHER_ID}.1")), "x").unwrap();
    folder.done(&["trash", "empty", "--yes"]);
    // These change nothing.
    folder.done(&["account", "list"]);
    folder.done(&["prune", "--dry-run"]);
    folder.done(&["trash", "list"]);
    folder.failed(&["trash", "empty"]);

    let expected = [
        json!({ "command": "init", "outcome": "done", "account": "phones" }),
        json!({ "command": "account add", "outcome": "done", "account": "boss", "role": "operator" }),
        json!({ "command": "account add", "outcome": "done", "account": "büro", "role": "phone" }),
        json!({ "command": "account add", "outcome": "failed", "account": "boss", "role": "phone" }),
        json!({ "command": "account remove", "outcome": "done", "account": "boss" }),
        json!({
            "command": "prune", "outcome": "refused", "reason": "first_sweep",
            "removed": 0, "trashErased": 0, "failed": 0,
        }),
        json!({
            "command": "prune --force --accept-clock", "outcome": "done",
            "removed": 1, "trashErased": 0, "failed": 0, "clockAccepted": false,
        }),
        json!({
            "command": "trash restore", "outcome": "done",
            "restored": 1, "newer": 0, "missing": 0, "failed": 0,
        }),
        json!({
            "command": "prune", "outcome": "refused", "reason": "too_many",
            "removed": 0, "trashErased": 0, "failed": 0,
        }),
        json!({
            "command": "prune --force", "outcome": "done",
            "removed": 11, "trashErased": 0, "failed": 0,
        }),
        json!({ "command": "scrub", "outcome": "done", "sound": 0, "damaged": 1 }),
        json!({ "command": "trash confirm", "outcome": "done", "removals": null }),
        json!({ "command": "trash empty", "outcome": "done", "erased": 12 }),
    ];
    let found = audited(&folder);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(*found, expected);
    }
    let log = fs::read_to_string(folder.path("data/audit.jsonl")).unwrap();
    for hidden in [&*id(0), &id(1), OTHER_ID, secret, "a chosen password"] {
        assert!(!log.contains(hidden));
    }
    assert_eq!(mode(&folder.path("data/audit.jsonl")), 0o600);
}

/// The id of a backup of these tests.
fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// Places backups that were last renewed in 1970.
fn place_expired(folder: &Folder, numbers: Range<usize>) {
    let backups = folder.path("data/backups");
    fs::create_dir_all(&backups).unwrap();
    for number in numbers {
        let old = fs::File::create(backups.join(id(number))).unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
}

/// A directory in the place of the audit log.
fn spoil_the_log(folder: &Folder) {
    fs::remove_file(folder.path("data/audit.jsonl")).unwrap();
    fs::create_dir(folder.path("data/audit.jsonl")).unwrap();
}

#[test]
fn backups_are_saved_also_where_it_cannot_be_written_down() {
    let folder = Folder::new();
    folder.write("config.json", "{}");
    folder.done(&["account", "add", "phones"]);
    for name in ["backups", "trash"] {
        fs::create_dir(folder.path("data").join(name)).unwrap();
    }
    let trashed = folder.path("data/trash").join(format!("{ID}.1"));
    fs::write(trashed, "a backup that is long enough to be one").unwrap();
    spoil_the_log(&folder);

    for (command, said) in [
        (&["trash", "restore", "--all"][..], "1 restored\n"),
        (&["scrub"], "1 damaged\n"),
    ] {
        let output = folder.run(command);
        let message = &output.errors;
        assert_eq!(output.code, Some(1), "{message}");
        assert!(output.out.ends_with(said), "{output:?}");
        let expected = "error: the audit log data/audit.jsonl cannot be written: ";
        assert!(message.starts_with(expected), "{message}");
        assert!(
            message.contains("continuing without audit log"),
            "{message}"
        );
    }
    assert!(folder.path("data/backups").join(ID).exists());
}

#[test]
fn nothing_is_done_where_it_cannot_be_written_down() {
    let folder = Folder::new();
    folder.write("config.json", "{}");
    folder.done(&["account", "add", "phones"]);
    let accounts = fs::read(folder.path("accounts.json")).unwrap();
    let trashed = folder.path("data/trash").join(format!("{ID}.1"));
    for name in ["backups", "trash"] {
        fs::create_dir(folder.path("data").join(name)).unwrap();
    }
    fs::write(&trashed, "a backup").unwrap();
    spoil_the_log(&folder);

    for command in [
        &["account", "add", "boss"][..],
        &["account", "remove", "phones"],
        &["prune", "--force"],
        &["prune"],
        &["trash", "confirm"],
        &["trash", "empty", "--yes"],
    ] {
        let (code, message) = folder.failed(command);
        assert_eq!(code, 1, "{message}");
        let expected = "error: the audit log data/audit.jsonl cannot be written";
        assert!(message.starts_with(expected), "{message}");
    }
    assert_eq!(fs::read(folder.path("accounts.json")).unwrap(), accounts);
    assert!(trashed.exists());
    fs::remove_file(folder.path("config.json")).unwrap();
    let (code, message) = folder.failed(&["init", "--yes"]);
    assert_eq!(code, 1, "{message}");
    assert!(!folder.path("config.json").exists(), "{message}");
    folder.write("config.json", "{}");
    // Commands that only read still work.
    folder.done(&["prune", "--dry-run"]);
    folder.done(&["trash", "list"]);
}

#[test]
fn a_name_with_a_password_in_it_is_refused_and_not_repeated() {
    let folder = Folder::new();
    folder.write("config.json", "{}");

    for command in [
        &["account", "add", "phones:hunter2"][..],
        &["account", "remove", "phones:hunter2"],
        &["init", "--yes", "--account", "phones:hunter2"],
    ] {
        let (code, message) = folder.failed(command);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains("no colon"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}
