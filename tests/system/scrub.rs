//! Scrub with extended attributes, behind failing reads, and of copies made by rsync.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use threema_safe_server::state::StateFile;

use crate::support::commands::{Ended, command, finish, run};
use crate::support::damage::{damage, flip, modified};
use crate::support::process::ServerProcess;
use crate::support::wire::Protocol;
use crate::support::{ID, OTHER_ID, Site, digits, files, names, now, set_modified, write};

tests! {
    damage_is_told_from_what_may_happen_to_a_file: blocking [XATTRS];
    what_cannot_be_read_is_named_and_the_rest_is_read: blocking [STRACE];
    copies_made_by_rsync_give_no_alarm_and_are_watched_over: blocking [RSYNC, XATTRS];
    without_extended_attributes_nothing_is_missed: tokio [MOUNT];
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

/// What `scrub` says is wrong, by id.
fn findings(ended: &Ended) -> BTreeMap<String, String> {
    let damaged = ended.json()["damaged"].clone();
    assert_eq!(
        ended.code,
        Some(i32::from(damaged != json!([]))),
        "{ended:?}"
    );
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pairs = damaged.as_array().unwrap().iter();
    let pairs = pairs.map(|each| (text(&each["id"]), text(&each["finding"])));
    pairs.collect()
}

fn damage_is_told_from_what_may_happen_to_a_file() {
    type Change = fn(&Path);
    let site = Site::new();
    let cases: [(&str, Change, Option<&str>); 11] = [
        ("nothing", |_| (), None),
        ("a byte flipped", |path| damage(path, flip), Some("changed")),
        (
            "truncated",
            |path| damage(path, |file| file.set_len(41).unwrap()),
            Some("changed"),
        ),
        (
            "longer",
            |path| damage(path, |file| file.write_all_at(b"?", 100).unwrap()),
            Some("changed"),
        ),
        (
            "too short",
            |path| damage(path, |file| file.set_len(40).unwrap()),
            Some("short"),
        ),
        (
            "empty, with its time",
            |path| File::create(path).unwrap().set_len(0).unwrap(),
            Some("short"),
        ),
        (
            "the same bytes again",
            |path| damage(path, |file| file.write_all_at(&[7; 100], 0).unwrap()),
            None,
        ),
        // Done on purpose, for instance by another program that stored a backup.
        (
            "other bytes and another time",
            |path| {
                damage(path, flip);
                set_modified(path, modified(path) + SECOND);
            },
            None,
        ),
        ("another time", |path| set_modified(path, now() - DAY), None),
        (
            "a time before 1970",
            |path| set_modified(path, SystemTime::UNIX_EPOCH - DAY * 400),
            None,
        ),
        (
            "another file of the same time",
            |path| {
                let (time, new) = (modified(path), path.with_extension("new"));
                write(&new, [8; 77]);
                set_modified(&new, time);
                fs::rename(new, path).unwrap();
            },
            None,
        ),
    ];
    for (number, _) in cases.iter().enumerate() {
        site.place_backup(&digits(number), &[7; 100], now() - DAY);
    }
    // What is no backup is none that is damaged.
    let backups = site.data().join("backups");
    write(&backups.join("README"), "short");
    fs::create_dir(backups.join(ID)).unwrap();
    symlink(site.config_file(), backups.join(OTHER_ID)).unwrap();
    let first = run(&site, &["scrub"]);
    assert_eq!(first.with_code(0), "11 sound, 0 damaged\n");

    for (number, (_, change, _)) in cases.iter().enumerate() {
        change(&backups.join(digits(number)));
    }
    let before = files(&backups);
    // It stays damage for as long as it is there.
    for _ in 0..2 {
        let found = run(&site, &["scrub", "--json"]);
        assert_eq!(found.json()["sound"], 6);
        let found = findings(&found);
        for (number, (what, _, expected)) in cases.iter().enumerate() {
            let finding = found.get(&digits(number)).map(String::as_str);
            assert_eq!(finding, *expected, "{what}");
        }
    }
    assert_eq!(files(&backups), before, "a scrub changed something");
    let state = StateFile::in_directory(&site.data()).load().unwrap();
    let remembered = state.scrub.unwrap();
    assert_eq!((remembered.sound, remembered.findings()), (6, 5));

    let said = run(&site, &["scrub"]);
    said.with_code(1);
    for (number, text) in [
        (1, "changed without an upload"),
        (4, "too short to be a backup"),
    ] {
        let line = format!("{}  {text}\n", digits(number));
        assert!(said.out.contains(&line), "{said:?}");
    }
    assert!(said.out.ends_with("6 sound, 5 damaged\n"), "{said:?}");
}

fn what_cannot_be_read_is_named_and_the_rest_is_read() {
    let site = Site::new();
    for number in 0..5 {
        site.place_backup(&digits(number), &[7; 100], now());
    }
    let scrub = command(&site, &["scrub", "--json"]);
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-o", "/dev/null", "-e", "inject=read:error=EIO", "-P"])
        .arg(site.backup_file(&digits(3)))
        .arg(scrub.get_program())
        .args(scrub.get_args());

    let ended = finish(strace, b"");

    let expected = [(digits(3), "unreadable".to_owned())];
    assert_eq!(findings(&ended), expected.into());
    assert_eq!(ended.json()["sound"], 4);
    assert_eq!(names(&site.data().join("backups")).len(), 5);
}

fn rsync(options: &[&str], from: &Path, to: &Path) {
    let copied = Command::new("rsync")
        .args(options)
        .arg(format!("{}/", from.display()))
        .arg(to)
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
}

fn copies_made_by_rsync_give_no_alarm_and_are_watched_over() {
    for options in [
        &["-a"][..],
        &["-aX"],
        &["-a", "--inplace"],
        &["-aX", "--inplace"],
        &["-r"],
        &["-rX"],
        &["-rX", "--inplace"],
        &["-a", "--checksum", "--delete"],
    ] {
        let (site, copy) = (Site::new(), Site::new());
        let put = |number: usize, byte: u8| {
            site.place_backup(
                &digits(number),
                &[byte; 100],
                now() - DAY + SECOND * byte.into(),
            );
        };
        let watched = |site: &Site| findings(&run(site, &["scrub", "--json"]));
        (0..3).for_each(|number| put(number, 1));
        assert!(watched(&site).is_empty());
        rsync(options, &site.data(), &copy.data());
        assert!(watched(&copy).is_empty(), "{options:?}");

        // Renewed in place and as a new file, and copied over what the copy remembers.
        put(0, 2);
        fs::remove_file(site.backup_file(&digits(1))).unwrap();
        put(1, 2);
        for _ in 0..2 {
            rsync(options, &site.data(), &copy.data());
            assert!(watched(&copy).is_empty(), "{options:?}");
            assert!(watched(&site).is_empty(), "{options:?}");
        }
        let copied = |number| fs::read(copy.backup_file(&digits(number))).unwrap();
        assert_eq!([copied(0)[0], copied(1)[0], copied(2)[0]], [2, 2, 1]);

        for number in 0..3 {
            damage(&copy.backup_file(&digits(number)), flip);
        }
        assert_eq!(watched(&copy).len(), 3, "{options:?}");
        // And brought back from the copy that is sound.
        rsync(&["-a", "--checksum"], &site.data(), &copy.data());
        assert!(watched(&copy).is_empty(), "{options:?}");
    }
}

async fn without_extended_attributes_nothing_is_missed() {
    let site = Site::new();
    fs::create_dir(site.data()).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "ramfs", "none"])
        .arg(site.data())
        .status();
    assert!(mounted.unwrap().success());
    let unmount = |site: &Site| {
        let unmounted = Command::new("umount").arg("-l").arg(site.data()).status();
        assert!(unmounted.unwrap().success());
    };
    let server = ServerProcess::start(site);
    let mut phone = server.phone(Protocol::Http1).await;
    let mut statuses = Vec::new();
    for method in ["PUT", "PUT", "DELETE", "PUT"] {
        let path = format!("/backups/{ID}");
        statuses.push(phone.send(method, &path, &[], vec![7; 64]).await.status);
    }
    drop(phone);
    server.has_no_new_descriptors().await;
    let (log, site) = server.stop();
    damage(&site.backup_file(ID), flip);
    let changed = run(&site, &["scrub"]);
    damage(&site.backup_file(ID), |file| file.set_len(7).unwrap());
    let short = run(&site, &["scrub"]);
    let restored = run(&site, &["trash", "restore", "--all"]);
    unmount(&site);

    assert_eq!(statuses, [201, 204, 204, 201]);
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(changed.with_code(0), "1 sound, 0 damaged\n");
    assert!(short.with_code(1).ends_with("0 sound, 1 damaged\n"));
    assert!(
        restored.with_code(0).starts_with("0 restored\n1 left"),
        "{restored:?}"
    );
}
