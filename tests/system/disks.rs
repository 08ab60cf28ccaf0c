//! Disks that are full, out of inodes or read-only: the real causes of what `faults` injects. The
//! client is told, the old backup stays, and there is full service when the cause is gone.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::join_all;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use tempfile::TempDir;

use crate::support::commands::{run, run_with};
use crate::support::process::ServerProcess;
use crate::support::service::{
    NEW, OLD, assert_full_service, assert_old, assert_stored, both_paths,
};
use crate::support::trash::{TEN, place_trash};
use crate::support::wire::{Answer, Protocol};
use crate::support::{ID, Site, backup_path, digits, names, now, write};

tests! {
    a_full_disk_is_said_and_keeps_the_old_backup: tokio [MOUNT];
    a_disk_that_is_nearly_full_is_kept_for_renewals_and_the_operator_is_told: tokio [MOUNT];
    a_disk_out_of_inodes_is_a_full_one: tokio [MOUNT];
    a_disk_that_becomes_read_only_serves_what_is_there: tokio [MOUNT];
    backups_that_grow_leave_room_to_renew_all_of_them: tokio [MOUNT];
    the_extremes_of_times_lengths_and_kinds_of_files_stop_nothing: tokio [MOUNT];
}

/// A file system of its own; gone when dropped.
pub(crate) struct Disk(TempDir);

impl Disk {
    /// Mounts one with these options, and has the site's data lie there.
    pub(crate) fn mount(site: &Site, options: &str) -> Self {
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

    pub(crate) fn remount(&self, options: &str) {
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

#[track_caller]
pub(crate) fn assert_read_only(refused: &Answer) {
    refused.assert_refused(503);
    assert_eq!(refused.header("retry-after"), Some("30"));
    assert_eq!(refused.text(), "the storage is read-only\n");
}

/// A site that takes new backups down to the last byte of its disk, which is small.
pub(crate) fn site_without_reserve() -> Site {
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
    let placed = (0..32).find(|number| File::create(filler(*number)).is_err());
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
        assert_read_only(&refused);
    }
    assert_read_only(&phone.ask("DELETE", &backup_path(), &[]).await);

    assert_old(&server, &mut phone).await;
    disk.remount("rw");
    assert_full_service(&server, &mut phone).await;
}

async fn backups_that_grow_leave_room_to_renew_all_of_them() {
    const LARGEST: usize = 512 << 10;
    let site = Site::new().with(json!({ "quotas": { "minFreeBytes": 4 << 20 } }));
    let _disk = Disk::mount(&site, "size=16m");
    for number in 0..60 {
        site.place_backup(&digits(number), &[7; 100], now());
    }
    let server = ServerProcess::start(site);
    let mut phone = server.phone(Protocol::Http1).await;
    let path = |number| format!("/backups/{}", digits(number));

    let mut lengths = [100; 60];
    for (number, length) in lengths.iter_mut().enumerate() {
        let path = path(number);
        let grown = phone.send("PUT", &path, &[], vec![8; LARGEST]).await;
        match grown.status {
            204 => *length = LARGEST,
            status => assert_eq!(status, 507),
        }
    }
    let grown = lengths.iter().filter(|length| **length == LARGEST).count();
    // 12 MiB but for what the rest takes.
    assert!((20..=24).contains(&grown), "{grown}");

    // All of them, six at once, by a contact more; and once more the same.
    let phones = join_all((0..6).map(|_| server.phone(Protocol::Http2))).await;
    let mut phones = Vec::from_iter(phones);
    for more in [280, 280, 0] {
        for length in &mut lengths {
            *length = (*length + more).min(LARGEST);
        }
        for first in (0..60).step_by(6) {
            let renewals = phones.iter_mut().enumerate().map(|(at, phone)| {
                let (number, length) = (first + at, lengths[first + at]);
                let path = path(number);
                async move { phone.send("PUT", &path, &[], vec![9; length]).await.status }
            });
            assert_eq!(join_all(renewals).await, [204; 6], "{first} {more}");
        }
    }
}

async fn the_extremes_of_times_lengths_and_kinds_of_files_stop_nothing() {
    let site = site_without_reserve();
    let _disk = Disk::mount(&site, "size=16m");
    let far = Duration::from_secs(i64::MAX as u64);
    let times = [
        UNIX_EPOCH + far,
        UNIX_EPOCH - far,
        UNIX_EPOCH - Duration::from_secs(1),
    ];
    for (number, time) in times.into_iter().enumerate() {
        site.place_backup(&digits(number), &[7; 41], time);
        let trashed = place_trash(&site, &digits(number), TEN, [7; 41]);
        crate::support::set_modified(&trashed, time);
    }
    for number in 10..13 {
        site.place_backup(&digits(number), b"start", now());
        let file = File::options()
            .write(true)
            .open(site.backup_file(&digits(number)));
        file.unwrap().set_len(i64::MAX as u64).unwrap();
    }
    // /dev/zero, and a block device that nobody has.
    for (number, kind, device) in [
        (20, FileType::CharacterDevice, rustix::fs::makedev(1, 5)),
        (21, FileType::BlockDevice, rustix::fs::makedev(254, 254)),
    ] {
        let path = site.backup_file(&digits(number));
        mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, device).unwrap();
    }

    run(&site, &["prune", "--dry-run"]).with_code(0);
    let list = run(&site, &["trash", "list"]);
    assert_eq!(
        list.with_code(0)
            .matches("uploaded 1970-01-01T00:00:00Z")
            .count(),
        2
    );
    assert_eq!(list.out.matches("uploaded 9999-12-31T23:59:59Z").count(), 1);
    let scrubbed = run(&site, &["scrub"]);
    assert_eq!(
        scrubbed.out.matches("cannot be read").count(),
        3,
        "{scrubbed:?}"
    );
    let server = ServerProcess::start(site);
    let mut phone = server.phone(Protocol::Http1).await;
    let path = |number| format!("/backups/{}", digits(number));
    for number in [10, 11, 12] {
        phone
            .ask("GET", &path(number), &[])
            .await
            .assert_refused(500);
        assert_eq!(phone.ask("HEAD", &path(number), &[]).await.status, 200);
    }
    for number in [20, 21] {
        assert_eq!(phone.ask("GET", &path(number), &[]).await.status, 404);
        assert_eq!(
            phone.send("PUT", &path(number), &[], "new").await.status,
            201
        );
    }
    let answer = phone.ask("GET", &path(0), &[]).await;
    assert_eq!((answer.status, answer.body.len()), (200, 41));
    assert!(!answer.header("last-modified").unwrap().contains("9999"));
    for number in 0..3 {
        let put = phone.send("PUT", &path(number), &[], &NEW[..]).await;
        assert!([201, 204].contains(&put.status), "{put:?}");
    }
    let site = server.stop().1;
    for number in 0..3 {
        fs::remove_file(site.backup_file(&digits(number))).unwrap();
    }
    let restored = run_with(&site, &["trash", "restore"], &list.out);
    assert_eq!(restored.with_code(0), "3 restored\n");
}
