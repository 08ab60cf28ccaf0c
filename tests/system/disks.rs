//! Disks that are full, out of inodes or read-only: the real causes of what `faults` injects. The
//! client is told, the old backup stays, and there is full service when the cause is gone.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::support::process::ServerProcess;
use crate::support::service::{
    NEW, OLD, assert_full_service, assert_old, assert_stored, both_paths,
};
use crate::support::wire::Protocol;
use crate::support::{ID, Site, backup_path, names, now, write};

tests! {
    a_full_disk_is_said_and_keeps_the_old_backup: tokio [MOUNT];
    a_disk_that_is_nearly_full_is_kept_for_renewals_and_the_operator_is_told: tokio [MOUNT];
    a_disk_out_of_inodes_is_a_full_one: tokio [MOUNT];
    a_disk_that_becomes_read_only_serves_what_is_there: tokio [MOUNT];
}

/// A file system of its own; gone when dropped.
struct Disk(TempDir);

impl Disk {
    /// Mounts one with these options, and has the site's data lie there.
    fn mount(site: &Site, options: &str) -> Self {
        let at = tempfile::tempdir().unwrap();
        let options = format!("mode=700,{options}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(at.path())
            .output()
            .unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
        symlink(at.path(), site.data()).unwrap();
        Self(at)
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

async fn a_full_disk_is_said_and_keeps_the_old_backup() {
    let site = site_without_reserve();
    let data = site.data();
    let _disk = Disk::mount(&site, "size=256k");
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

async fn a_disk_that_is_nearly_full_is_kept_for_renewals_and_the_operator_is_told() {
    let site = Site::new();
    // Less than what `quotas.minFreeBytes` keeps free by default.
    let _disk = Disk::mount(&site, "size=10m");
    site.place_backup(ID, &OLD, now());
    let mut server = ServerProcess::start(site);
    let mut phone = server.phone(Protocol::Http2).await;
    let [old, new] = both_paths();

    let refused = phone.send("PUT", &new, &[], &NEW[..]).await;
    refused.assert_refused(507);
    assert_eq!(refused.text(), "no space left for new or larger backups\n");
    let told = server.log_through(|line| line.contains("low disk space"));
    assert!(told.last().unwrap().contains(" WARN "), "{told:?}");
    assert_eq!(phone.send("PUT", &old, &[], &NEW[..]).await.status, 204);
    assert!(phone.ask("GET", &old, &[]).await.body == NEW[..]);
}

async fn a_disk_out_of_inodes_is_a_full_one() {
    let site = site_without_reserve();
    let data = site.data();
    let _disk = Disk::mount(&site, "size=10m,nr_inodes=32");
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

async fn a_disk_that_becomes_read_only_serves_what_is_there() {
    let site = site_without_reserve();
    let disk = Disk::mount(&site, "size=10m");
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
