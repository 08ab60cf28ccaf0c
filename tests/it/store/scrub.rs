//! Damage of every kind, done to real files: it is reported and never removed, and nothing else is taken for damage.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use threema_safe_server::scrub::scrub;
use threema_safe_server::state::{Scrubbed, StateFile};
use threema_safe_server::store::{FileStore, Store};

use crate::support::commands::{Ended, command, finish, metrics, run, status};
use crate::support::process::ServerProcess;
use crate::support::wire::{Protocol, soon};
use crate::support::{
    ID, Listening, OTHER_ID, Site, files, names, now, set_modified, skip, skip_without_program,
    write,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

fn digits(number: usize) -> String {
    format!("{number:064x}")
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// Changes a file in place, without a trace in its time.
fn damage(path: &Path, how: impl FnOnce(&File)) {
    let time = modified(path);
    let file = File::options().write(true).open(path).unwrap();
    how(&file);
    file.set_modified(time).unwrap();
}

fn flip(file: &File) {
    file.write_all_at(b"?", 40).unwrap();
}

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

/// Whether the file system of the site remembers what a backup was.
fn remembers(site: &Site) -> bool {
    let probe = site.folder().join("probe");
    let file = File::create(probe).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(&file, "user.probe", b"1", flags).is_ok()
}

#[track_caller]
fn assert_remembers(site: &Site) -> bool {
    let can = remembers(site);
    if !can {
        skip("changes are not noticed here: the file system has no extended attributes");
    }
    can
}

#[test]
fn damage_is_told_from_what_may_happen_to_a_file() {
    type Change = fn(&Path);
    let site = Site::new();
    if !assert_remembers(&site) {
        return;
    }
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
        // Whoever does this has a reason, such as another program that stored a backup.
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
        (1, "changed, and not by an upload"),
        (4, "too short to be a backup"),
    ] {
        let line = format!("{}  {text}\n", digits(number));
        assert!(said.out.contains(&line), "{said:?}");
    }
    assert!(said.out.ends_with("6 sound, 5 damaged\n"), "{said:?}");
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_read() {
    if Command::new("strace").arg("-V").output().is_err() {
        skip_without_program("a backup cannot be read: strace is not installed");
        return;
    }
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

#[tokio::test]
async fn what_the_server_finds_is_in_the_log_the_metrics_and_the_status() {
    let server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http2).await;
    for number in 0..6 {
        let path = format!("/backups/{}", digits(number));
        assert_eq!(phone.send("PUT", &path, &[], vec![7; 64]).await.status, 201);
    }
    drop(phone);
    server.has_no_new_descriptors().await;
    let (_, site) = server.stop();
    let can_remember = assert_remembers(&site);
    damage(&site.backup_file(&digits(0)), flip);
    damage(&site.backup_file(&digits(1)), |file| {
        file.set_len(1).unwrap();
    });
    damage(&site.backup_file(&digits(2)), |file| {
        file.set_len(0).unwrap();
    });
    let changed = u64::from(can_remember);
    let before = files(&site.data().join("backups"));
    // As if the week were over.
    fs::remove_file(site.data().join("state.json")).unwrap();

    let server = ServerProcess::start(site);

    let admin = server.admin_address();
    let damaged = [
        format!("safe_damaged_backups{{kind=\"changed\"}} {changed}"),
        "safe_damaged_backups{kind=\"short\"} 2".into(),
        "safe_damaged_backups{kind=\"unreadable\"} 0".into(),
    ];
    assert_eq!(metrics(admin, "safe_damaged_backups").await, damaged);
    let text = format!(
        "attention   {} backups are damaged (2 too short, {changed} changed, 0 unreadable); `scrub` says which\n",
        2 + changed
    );
    let shown = status(server.site(), admin, &[]);
    assert!(shown.with_code(0).contains(&text), "{shown:?}");
    let shown = status(server.site(), admin, &["--json"]).json();
    assert_eq!(shown["scrub"]["short"], 2);
    let (log, site) = server.stop();
    let line = log
        .lines()
        .find(|line| line.contains("backups are damaged"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for word in [
        "ERROR",
        "short=2",
        &format!("changed={changed}"),
        "unreadable=0",
    ] {
        assert!(line.contains(word), "{line}");
    }
    for number in 0..6 {
        assert!(!log.contains(&digits(number)), "{log}");
    }
    assert_eq!(files(&site.data().join("backups")), before);
}

#[tokio::test]
async fn a_server_reports_what_a_scrub_by_hand_found_until_the_phone_has_uploaded_again() {
    let site = Site::new();
    site.place_backup(ID, &[7; 40], now());
    run(&site, &["scrub"]).with_code(1);
    let server = ServerProcess::start(site);
    let damaged = "safe_damaged_backups{kind=\"short\"}";
    let found = metrics(server.admin_address(), damaged).await;
    assert_eq!(found, [format!("{damaged} 1")]);

    let mut phone = server.phone(Protocol::Http1).await;
    let path = format!("/backups/{ID}");
    assert_eq!(phone.send("PUT", &path, &[], vec![7; 64]).await.status, 204);
    drop(phone);
    let scrubbed = run(server.site(), &["scrub"]);
    assert_eq!(scrubbed.with_code(0), "1 sound, 0 damaged\n");
    server.has_no_new_descriptors().await;
    let server = ServerProcess::start(server.stop().1);
    let found = metrics(server.admin_address(), damaged).await;
    assert_eq!(found, [format!("{damaged} 0")]);
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

#[test]
fn copies_made_by_rsync_give_no_alarm_and_are_watched_over() {
    if Command::new("rsync").arg("--version").output().is_err() {
        skip_without_program("copies are compared: rsync is not installed");
        return;
    }
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
        if !assert_remembers(&site) {
            return;
        }
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

#[tokio::test]
async fn without_extended_attributes_nothing_is_missed() {
    let site = Site::new();
    fs::create_dir(site.data()).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "ramfs", "none"])
        .arg(site.data())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        skip("a file system without extended attributes: mounting is not permitted");
        return;
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn uploads_during_a_scrub_are_no_damage() {
    let site = Site::new();
    let store = Arc::new(FileStore::open(&site.data()).unwrap());
    let put = |number: usize, byte: u8| {
        let store = Arc::clone(&store);
        let length = 50_000 + usize::from(byte);
        async move {
            let id = digits(number).parse().unwrap();
            store.put(id, vec![byte; length].into()).await.unwrap();
            id
        }
    };
    for number in 0..16 {
        put(number, 0).await;
    }
    let ended = Arc::new(AtomicBool::new(false));
    let phones: Vec<_> = (0..4)
        .map(|phone| {
            let (ended, store) = (Arc::clone(&ended), Arc::clone(&store));
            tokio::spawn(async move {
                for turn in 0..100_000_usize {
                    if ended.load(Relaxed) {
                        break;
                    }
                    let id = digits(phone * 4 + turn % 4).parse().unwrap();
                    let byte = u8::try_from(turn % 251).unwrap();
                    let body = vec![byte; 50_000 + usize::from(byte)];
                    store.put(id, body.into()).await.unwrap();
                    if turn % 5 == 0 {
                        store.remove(id, now()).await.unwrap();
                    }
                }
            })
        })
        .collect();

    let mut all = Scrubbed::default();
    for _ in 0..30 {
        let scrubbed = scrub(&*store, None, |_, _| ()).await.unwrap();
        all.sound += scrubbed.sound;
        assert_eq!(scrubbed.findings(), 0, "{scrubbed:?}");
    }
    ended.store(true, Relaxed);
    for phone in phones {
        soon(phone).await.unwrap();
    }
    assert!(all.sound > 0);
}

#[tokio::test]
async fn a_scrub_that_a_stop_cuts_off_leaves_no_trace_and_begins_anew() {
    let site = Site::new();
    // At the server's pace that is most of a minute.
    for number in 0..1_000 {
        site.place_backup(&digits(number), &[7; 41], now());
    }
    let state = StateFile::in_directory(&site.data());
    let mut site = site;
    for _ in 0..2 {
        let server = site.start().await;
        soon(async {
            while state.load().unwrap().last_sweep.is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        site = server.stop().await;
        assert_eq!(state.load().unwrap().scrub, None);
        state.update(|state| state.last_sweep = None).unwrap();
    }

    let whole = run(&site, &["scrub"]);
    assert_eq!(whole.with_code(0), "1000 sound, 0 damaged\n");
}

#[test]
fn what_was_found_is_said_also_when_it_cannot_be_remembered() {
    let site = Site::new();
    site.place_backup(ID, &[7; 40], now());
    write(&site.data().join("state.json"), "{");

    let found = run(&site, &["scrub"]);

    assert_eq!(found.code, Some(1));
    assert!(found.out.starts_with(ID), "{found:?}");
    assert!(found.errors.contains("state.json"), "{found:?}");
    let emptied = run(&site, &["trash", "empty", "--yes"]);
    assert_eq!(
        (emptied.code, emptied.out.as_str()),
        (Some(1), "0 erased\n")
    );
}
