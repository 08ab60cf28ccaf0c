//! Disks that are full, out of inodes or read-only, and a process out of descriptors: the real causes of what
//! `faults` makes up. The phone is told so, the old backup stays, and there is full service when the cause is gone.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use tempfile::TempDir;

use crate::support::process::ServerProcess;
use crate::support::wire::{Answer, Client, Protocol};
use crate::support::{ID, Listening, OTHER_ID, Site, backup_path, names, now, skip, write};

/// Far below the size of a disk, and above that of a memory page.
static OLD: [u8; 60_000] = [1; 60_000];
static NEW: [u8; 60_000] = [2; 60_000];

/// A file system of its own; gone when dropped.
struct Disk(TempDir);

impl Disk {
    /// Mounts one with these options and has the site's data lie there; says loudly that `test` skips where that is
    /// not permitted.
    fn mount(site: &Site, options: &str, test: &str) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let options = format!("mode=700,{options}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(at.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            skip(&format!("{test}: mounting is not permitted"));
            return None;
        }
        symlink(at.path(), site.data()).unwrap();
        Some(Self(at))
    }

    fn remount(&self, options: &str) {
        let output = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.0.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A server that still runs on it keeps it until its end.
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

/// A site that takes new backups down to the last byte of its disk, which is small.
fn site_without_reserve() -> Site {
    Site::new().with(json!({ "quotas": { "minFreeBytes": 0 } }))
}

/// Paths of a backup that is there and of one that is not.
fn both_paths() -> [String; 2] {
    [backup_path(), format!("/backups/{OTHER_ID}")]
}

#[track_caller]
fn assert_stored(answer: &Answer) {
    assert!([201, 204].contains(&answer.status), "{answer:?}");
}

/// Makes sure that the old backup, and nothing else, is there, and that it is served.
async fn assert_old(server: &ServerProcess, phone: &mut Client) {
    let data = server.site().data();
    assert_eq!(names(&data.join("backups")), [ID]);
    assert!(names(&data.join("tmp")).is_empty());
    assert!(names(&data.join("trash")).is_empty());
    let old = phone.ask("GET", &backup_path(), &[]).await;
    assert!(old.status == 200 && old.body == OLD[..], "{}", old.status);
}

/// Makes sure that everything works, for old connections and new ones.
async fn assert_full_service(server: &ServerProcess, old_connection: &mut Client) {
    let new_connection = &mut server.phone(Protocol::Http2).await;
    for phone in [old_connection, new_connection] {
        for path in both_paths() {
            assert_stored(&phone.send("PUT", &path, &[], &NEW[..]).await);
            assert!(phone.ask("GET", &path, &[]).await.body == NEW[..]);
            assert_eq!(phone.ask("DELETE", &path, &[]).await.status, 204);
            assert_eq!(phone.ask("GET", &path, &[]).await.status, 404);
        }
        for name in names(&server.site().data().join("trash")) {
            fs::remove_file(server.site().data().join("trash").join(name)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_keeps_the_old_backup() {
    let site = site_without_reserve();
    let data = site.data();
    let name = "a_full_disk_is_said_and_keeps_the_old_backup";
    let Some(_disk) = Disk::mount(&site, "size=256k", name) else {
        return;
    };
    let mut server = ServerProcess::start(site);
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        assert_stored(&phone.send("PUT", &backup_path(), &[], &OLD[..]).await);
        write(&data.join("filler"), vec![0; 120_000]);

        for path in both_paths() {
            let refused = phone.send("PUT", &path, &[], vec![9; 100_000]).await;
            refused.assert_refused(507);
            assert_eq!(refused.text(), "no space left\n");
            let told = server.log_through(|line| line.contains("ERROR storage failed"));
            let told = told.last().unwrap();
            assert!(told.contains("write temporary file failed"), "{told}");
            assert!(told.contains("No space left on device"), "{told}");
            assert!(!told.contains(ID), "{told}");
        }

        assert_old(&server, &mut phone).await;
        // What needs no space is done all the same.
        assert_eq!(phone.ask("DELETE", &backup_path(), &[]).await.status, 204);
        fs::remove_file(data.join("filler")).unwrap();
        for name in names(&data.join("trash")) {
            fs::remove_file(data.join("trash").join(name)).unwrap();
        }
        assert_full_service(&server, &mut phone).await;
    }
    server.has_no_new_descriptors().await;
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_is_kept_for_those_who_have_a_backup_and_the_operator_is_told() {
    let site = Site::new();
    let name =
        "a_disk_that_is_nearly_full_is_kept_for_those_who_have_a_backup_and_the_operator_is_told";
    // Less than what `quotas.minFreeBytes` keeps free by default.
    let Some(_disk) = Disk::mount(&site, "size=10m", name) else {
        return;
    };
    site.place_backup(ID, &OLD, now());
    let mut server = ServerProcess::start(site);
    let mut phone = server.phone(Protocol::Http2).await;
    let [old, new] = both_paths();

    let refused = phone.send("PUT", &new, &[], &NEW[..]).await;
    refused.assert_refused(507);
    assert_eq!(refused.text(), "no space left for new backups\n");
    let told = server.log_through(|line| line.contains("the disk is nearly full"));
    assert!(told.last().unwrap().contains(" WARN "), "{told:?}");
    assert_eq!(phone.send("PUT", &old, &[], &NEW[..]).await.status, 204);
    assert!(phone.ask("GET", &old, &[]).await.body == NEW[..]);
}

#[tokio::test]
async fn a_disk_out_of_inodes_is_a_full_one() {
    let site = site_without_reserve();
    let data = site.data();
    let name = "a_disk_out_of_inodes_is_a_full_one";
    let Some(_disk) = Disk::mount(&site, "size=10m,nr_inodes=32", name) else {
        return;
    };
    let server = ServerProcess::start(site);
    let mut phone = server.phone(Protocol::Http1).await;
    assert_stored(&phone.send("PUT", &backup_path(), &[], &OLD[..]).await);
    let filler = |number: u8| data.join(format!("filler-{number}"));
    let placed = (0..32).find(|number| fs::File::create(filler(*number)).is_err());
    let placed = placed.expect("32 inodes do not hold 32 files more");

    for path in both_paths() {
        let refused = phone.send("PUT", &path, &[], &NEW[..]).await;
        refused.assert_refused(507);
    }

    assert_old(&server, &mut phone).await;
    for number in 0..placed {
        fs::remove_file(filler(number)).unwrap();
    }
    assert_full_service(&server, &mut phone).await;
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_serves_what_is_there() {
    let site = site_without_reserve();
    let name = "a_disk_that_becomes_read_only_serves_what_is_there";
    let Some(disk) = Disk::mount(&site, "size=10m", name) else {
        return;
    };
    let server = ServerProcess::start(site);
    let mut phone = server.phone(Protocol::Http1).await;
    assert_stored(&phone.send("PUT", &backup_path(), &[], &OLD[..]).await);
    disk.remount("ro");

    for path in both_paths() {
        let refused = phone.send("PUT", &path, &[], &NEW[..]).await;
        refused.assert_refused(500);
        assert_eq!(refused.text(), "the storage failed\n");
    }
    let refused = phone.ask("DELETE", &backup_path(), &[]).await;
    refused.assert_refused(500);

    assert_old(&server, &mut phone).await;
    disk.remount("rw");
    assert_full_service(&server, &mut phone).await;
}

#[tokio::test]
async fn a_server_out_of_descriptors_loses_nothing_and_recovers() {
    let mut server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http1).await;
    assert_stored(&phone.send("PUT", &backup_path(), &[], &OLD[..]).await);
    let pid = server.pid();
    let limit = |current| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current, maximum };
        prlimit(Some(pid), Resource::Nofile, limit).unwrap()
    };
    // Every new descriptor would be above standard error's.
    let before = limit(Some(3));

    for path in both_paths() {
        let refused = phone.send("PUT", &path, &[], &NEW[..]).await;
        refused.assert_refused(500);
    }
    // A phone must not take its backup for lost.
    for method in ["GET", "DELETE"] {
        let refused = phone.ask(method, &backup_path(), &[]).await;
        refused.assert_refused(500);
    }
    let waiting = tokio::net::TcpStream::connect(server.address()).await;
    let waiting = waiting.unwrap();
    server.log_through(|line| line.contains("accepting a connection failed"));

    limit(before.current);
    // Whoever was idle may have made room.
    let mut phone = server.phone(Protocol::Http1).await;
    assert_old(&server, &mut phone).await;
    assert_full_service(&server, &mut phone).await;
    drop((phone, waiting));
    server.has_no_new_descriptors().await;
}
