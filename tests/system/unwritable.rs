//! Servers and commands where nothing can be written: restores are served, what reads writes nothing,
//! what makes room needs none, and there is full service when the cause is gone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::Path;

use crate::disks::{Disk, assert_read_only, site_without_reserve};
use crate::support::commands::{PROGRAM, run, status};
use crate::support::process::{LoggingProcess, ServerProcess, serve};
use crate::support::service::{NEW, OLD, assert_full_service, both_paths};
use crate::support::trash::{HOUR, TEN, in_trash, place_trash};
use crate::support::wire::{Client, Protocol, basic};
use crate::support::{
    ID, Listening, OTHER_ID, Site, ask_admin, backup_path, names, now, set_mode, write,
};

tests! {
    a_server_that_starts_on_a_read_only_disk_serves_restores_and_recovers: tokio [MOUNT];
    a_server_that_starts_on_a_disk_out_of_inodes_serves_restores_and_recovers: tokio [MOUNT];
    a_server_that_starts_on_a_full_disk_serves_restores_and_recovers: tokio [MOUNT];
    a_server_without_the_right_to_write_serves_restores_and_recovers: tokio [NAMESPACES];
    a_directory_without_backups_or_the_right_to_read_them_refuses_the_start: blocking [MOUNT, NAMESPACES];
    commands_that_read_work_on_a_read_only_disk_and_write_nothing: blocking [MOUNT];
    commands_that_make_room_work_on_a_disk_out_of_inodes: blocking [MOUNT];
}

/// A user without rights, where the server is root otherwise.
const NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// Makes sure that a server that cannot write serves restores, and says everywhere what it cannot
/// do.
async fn serves_restores(server: &mut ServerProcess, phone: &mut Client, cause: &str) {
    let told = server.log_seen().iter().filter(|line| {
        line.contains("ERROR storage not writable: only restores are served")
            && line.contains(cause)
    });
    assert_eq!(told.count(), 1, "{:#?}", server.log_seen());
    for method in ["GET", "HEAD"] {
        let answer = phone.ask(method, &backup_path(), &[]).await;
        assert_eq!(answer.status, 200, "{method}");
    }
    assert!(phone.ask("GET", &backup_path(), &[]).await.body == OLD[..]);
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    let credentials = basic(format!("operator:{}", server.site().operator_secret()));
    let mut operator = Client::connect(server, Protocol::Http1, Some(credentials)).await;
    let listed = operator
        .ask("PROPFIND", "/backups/", &[("depth", "1")])
        .await;
    assert!(listed.status == 207 && listed.text().contains(ID));

    let admin = server.admin_address();
    let ready = ask_admin(admin, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.contains("the storage is not writable"), "{ready}");
    assert!(ready.contains(cause), "{ready}");
    let metrics = ask_admin(admin, "/metrics").await;
    assert!(metrics.contains("\nsafe_storage_writable 0\n"), "{metrics}");
    let counted = |line: &str| line.starts_with("safe_backups{") && line.ends_with(" 1");
    assert!(metrics.lines().any(counted), "{metrics}");
    let said = status(server.site(), admin, &[]);
    assert!(said.out.contains(cause), "{said:?}");
    let checked = run(server.site(), &["check"]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    is_in_use(server.site());
}

/// Makes sure that a second server is refused.
fn is_in_use(site: &Site) {
    let (code, log) = LoggingProcess::spawn(&mut serve(&[PROGRAM], site)).ended();
    assert_eq!(code, Some(2), "{log:#?}");
    assert!(
        log.concat().contains("in use by another server"),
        "{log:#?}"
    );
}

/// Makes sure that everything works again without a restart.
async fn recovers(server: &mut ServerProcess, phone: &mut Client) {
    assert_full_service(server, phone).await;
    let ready = ask_admin(server.admin_address(), "/readyz").await;
    // A disk of this size counts as full.
    assert!(!ready.contains("not writable"), "{ready}");
    server.log_through(|line| line.contains("INFO storage writable again"));
    let data = server.site().data();
    for directory in ["tmp", "backups", "trash"] {
        assert!(names(&data.join(directory)).is_empty(), "{directory}");
    }
    is_in_use(server.site());
}

async fn a_server_that_starts_on_a_read_only_disk_serves_restores_and_recovers() {
    // A used directory, one that lacks what a server creates, and one with leftovers.
    for is_used in [true, false] {
        let site = site_without_reserve();
        let disk = Disk::mount(&site, "size=10m");
        site.place_backup(ID, &OLD, now());
        if is_used {
            for directory in ["tmp", "trash"] {
                fs::create_dir(site.data().join(directory)).unwrap();
            }
            write(&site.data().join("tmp/.0123.tmp"), "left by a crash");
            write(&site.data().join("backups/.trial.tmp"), "1");
        }
        disk.remount("ro");
        let mut server = ServerProcess::start(site);
        let mut phone = server.phone(Protocol::Http1).await;

        if is_used {
            serves_restores(&mut server, &mut phone, "Read-only file system").await;
        }
        for path in both_paths() {
            assert_read_only(&phone.send("PUT", &path, &[], &NEW[..]).await);
        }
        assert_read_only(&phone.ask("DELETE", &backup_path(), &[]).await);

        disk.remount("rw");
        recovers(&mut server, &mut phone).await;
    }
}

async fn a_server_that_starts_on_a_disk_out_of_inodes_serves_restores_and_recovers() {
    let site = site_without_reserve();
    let data = site.data();
    let _disk = Disk::mount(&site, "size=10m,nr_inodes=32");
    site.place_backup(ID, &OLD, now());
    place_trash(&site, OTHER_ID, TEN, OLD);
    let filled = fill_inodes(&data);
    let mut server = ServerProcess::start(site);
    let mut phone = server.phone(Protocol::Http1).await;

    serves_restores(&mut server, &mut phone, "No space left on device").await;
    for path in both_paths() {
        phone
            .send("PUT", &path, &[], &NEW[..])
            .await
            .assert_refused(507);
    }

    for number in 0..filled {
        fs::remove_file(data.join(format!("filler-{number}"))).unwrap();
    }
    fs::remove_file(data.join("trash").join(format!("{OTHER_ID}.{TEN}"))).unwrap();
    recovers(&mut server, &mut phone).await;
}

async fn a_server_that_starts_on_a_full_disk_serves_restores_and_recovers() {
    let site = site_without_reserve();
    let data = site.data();
    let _disk = Disk::mount(&site, "size=256k");
    site.place_backup(ID, &OLD, now());
    for directory in ["tmp", "trash"] {
        fs::create_dir(data.join(directory)).unwrap();
    }
    fill(&data);
    let mut server = ServerProcess::start(site);
    // What the start has given back.
    fill(&data);
    let mut phone = server.phone(Protocol::Http1).await;

    serves_restores(&mut server, &mut phone, "No space left on device").await;
    let refused = phone.send("PUT", &backup_path(), &[], &NEW[..]).await;
    refused.assert_refused(507);
    // What needs no space is done all the same.
    assert_eq!(phone.ask("DELETE", &backup_path(), &[]).await.status, 204);
    assert_eq!(in_trash(server.site()).len(), 1);

    fs::remove_file(data.join("filler")).unwrap();
    for name in in_trash(server.site()) {
        fs::remove_file(data.join("trash").join(name)).unwrap();
    }
    recovers(&mut server, &mut phone).await;
}

/// Gives everything below this directory to a user without rights.
fn give_away(directory: &Path) {
    chown(directory, Some(65_534), Some(65_534)).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        chown(&path, Some(65_534), Some(65_534)).unwrap();
        if path.is_dir() {
            give_away(&path);
        }
    }
}

async fn a_server_without_the_right_to_write_serves_restores_and_recovers() {
    let site = site_without_reserve();
    site.place_backup(ID, &OLD, now());
    let data = site.data();
    for directory in ["tmp", "trash"] {
        fs::create_dir(data.join(directory)).unwrap();
    }
    give_away(site.folder());
    let directories = ["", "tmp", "backups", "trash"].map(|name| data.join(name));
    for directory in &directories {
        set_mode(directory, 0o500);
    }
    let mut server = ServerProcess::start_under(&NOBODY, site);
    let mut phone = server.phone(Protocol::Http1).await;

    let told = server.log_seen().concat();
    assert!(told.contains("only restores are served"), "{told}");
    assert!(phone.ask("GET", &backup_path(), &[]).await.body == OLD[..]);
    for path in both_paths() {
        assert_read_only(&phone.send("PUT", &path, &[], &NEW[..]).await);
    }
    assert_read_only(&phone.ask("DELETE", &backup_path(), &[]).await);
    let ready = ask_admin(server.admin_address(), "/readyz").await;
    assert!(ready.contains("Permission denied"), "{ready}");
    is_in_use(server.site());

    for directory in &directories {
        set_mode(directory, 0o700);
    }
    recovers(&mut server, &mut phone).await;
}

fn a_directory_without_backups_or_the_right_to_read_them_refuses_the_start() {
    let site = Site::new();
    let disk = Disk::mount(&site, "size=1m");
    disk.remount("ro");
    let (code, log) = LoggingProcess::spawn(&mut serve(&[PROGRAM], &site)).ended();
    assert_eq!(code, Some(2), "{log:#?}");

    // Of another user, as when a service starts as the wrong one.
    let site = Site::new();
    site.place_backup(ID, &OLD, now());
    give_away(site.folder());
    let backups = site.data().join("backups");
    chown(&backups, Some(0), Some(0)).unwrap();
    set_mode(&backups, 0o700);
    let words = [&NOBODY[..], &[PROGRAM]].concat();
    let (code, log) = LoggingProcess::spawn(&mut serve(&words, &site)).ended();
    assert_eq!(code, Some(2), "{log:#?}");
    assert!(log.concat().contains("Permission denied"), "{log:#?}");
}

/// Uses up all space of a small disk.
fn fill(data: &Path) {
    let mut filler = fs::File::options();
    let filler = filler.create(true).append(true);
    let mut filler = filler.open(data.join("filler")).unwrap();
    while filler.write_all(&[0; 64]).is_ok() {}
}

/// Uses up all inodes of a small disk; the number of the files.
fn fill_inodes(data: &Path) -> u32 {
    let placed =
        (0..64).find(|number| fs::File::create(data.join(format!("filler-{number}"))).is_err());
    placed.unwrap()
}

fn commands_that_read_work_on_a_read_only_disk_and_write_nothing() {
    let site = site_without_reserve();
    let disk = Disk::mount(&site, "size=10m");
    site.place_backup(ID, &OLD, now());
    let read: [&[&str]; 4] = [
        &["trash", "list"],
        &["prune", "--dry-run"],
        &["scrub"],
        &["account", "list"],
    ];
    // Without the directories that a server creates: taken over, and not started yet.
    disk.remount("ro");
    for command in read {
        run(&site, command).with_code(0);
    }
    disk.remount("rw");
    assert_eq!(names(&site.data()), ["backups"]);
    for command in [&["trash", "list"][..], &["prune", "--dry-run"]] {
        run(&site, command).with_code(0);
        assert_eq!(names(&site.data()), ["backups"], "{command:?}");
    }

    place_trash(&site, OTHER_ID, TEN, OLD);
    disk.remount("ro");
    let listed = run(&site, &["trash", "list"]);
    assert!(listed.with_code(0).contains(OTHER_ID));
    let pruned = run(&site, &["prune", "--dry-run", "--json"]);
    pruned.with_code(0);
    assert_eq!(pruned.json()["kept"], 1);
    let scrubbed = run(&site, &["scrub"]);
    assert_eq!(scrubbed.with_code(0), "1 sound, 0 damaged\n");
    assert!(
        scrubbed.errors.contains("the result was not recorded"),
        "{scrubbed:?}"
    );
    // Where something would be changed, the cause is said, and nothing is.
    for command in [
        &["trash", "empty", "--yes"][..],
        &["trash", "restore", "--all"],
    ] {
        let failed = run(&site, command);
        assert_eq!(failed.code, Some(1), "{failed:?}");
        assert!(
            failed.errors.contains("Read-only file system"),
            "{failed:?}"
        );
    }
    assert_eq!(in_trash(&site).len(), 1);
}

fn commands_that_make_room_work_on_a_disk_out_of_inodes() {
    for command in [&["trash", "empty", "--yes"][..], &["prune", "--force"]] {
        let site = site_without_reserve();
        let data = site.data();
        let _disk = Disk::mount(&site, "size=10m,nr_inodes=32");
        site.place_backup(ID, &OLD, now());
        for number in 0..4 {
            // No burst of deletions.
            place_trash(&site, OTHER_ID, 1 + number * 90 * HOUR, OLD);
        }
        fs::create_dir(data.join("tmp")).unwrap();
        fill_inodes(&data);
        for command in [&["trash", "list"][..], &["prune", "--dry-run"], &["scrub"]] {
            run(&site, command).with_code(0);
        }

        let done = run(&site, command);

        done.with_code(0);
        assert!(done.out.contains("4 erased"), "{done:?}");
        assert!(in_trash(&site).is_empty());
        let audited = fs::read_to_string(data.join("audit.jsonl")).unwrap();
        assert!(audited.contains(command[0]), "{audited}");
        assert!(data.join("state.json").exists());
    }
}
