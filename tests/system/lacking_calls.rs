//! File systems that lack a call, as network, FUSE and FAT file systems do: strace makes the call
//! fail for the built program from its start. Everything works all the same, and the log says once
//! what is lacking; where it cannot be safe, the start is refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::UNIX_EPOCH;

use crate::strace::Strace;
use crate::support::commands::{Ended, PROGRAM, command, finish};
use crate::support::process::{LoggingProcess, ServerProcess, serve};
use crate::support::trash::{TEN, in_trash, place_trash};
use crate::support::wire::Protocol;
use crate::support::{ID, Listening, OTHER_ID, Site, ask_admin, backup_path, names};

tests! {
    a_file_system_that_cannot_sync_directories_does_everything: tokio [STRACE_OF_SERVERS];
    a_file_system_that_cannot_lock_does_everything: tokio [STRACE_OF_SERVERS];
    a_file_system_that_cannot_rename_exclusively_does_everything: tokio [STRACE_OF_SERVERS];
    a_file_system_without_hard_links_as_well_does_everything: tokio [STRACE_OF_SERVERS];
    a_file_system_that_cannot_set_times_does_everything: tokio [STRACE_OF_SERVERS];
    a_file_system_without_owners_and_attributes_does_everything: tokio [STRACE_OF_SERVERS];
    a_file_system_that_lacks_all_of_them_does_everything: tokio [STRACE_OF_SERVERS];
    uploads_and_removals_at_the_same_time_are_kept_apart_without_locks: tokio_2 [STRACE_OF_SERVERS];
    a_file_system_that_cannot_sync_files_is_refused: blocking [STRACE_OF_SERVERS];
    a_server_is_ready_only_while_uploads_renewals_and_removals_work: tokio [STRACE_OF_SERVERS];
    what_root_restores_as_a_copy_or_tries_belongs_to_the_owner_of_the_backups: blocking [STRACE_OF_SERVERS, NAMESPACES];
    a_server_that_may_not_rename_starts_and_serves_restores: tokio [STRACE_OF_SERVERS];
    a_removal_that_fails_between_link_and_unlink_leaves_nothing_in_the_trash: tokio [STRACE_OF_SERVERS];
}

const UNSUPPORTED: [&str; 3] = ["EINVAL", "ENOSYS", "EOPNOTSUPP"];

/// A call that fails, and what the log says of it; nothing if there is nothing to say.
struct Lack {
    call: &'static str,
    /// Only on these directories; everywhere if there are none.
    on: &'static [&'static str],
    says: Option<&'static str>,
}

const NO_SYNC: Lack = Lack {
    call: "fsync",
    on: &["data", "data/backups", "data/trash", "data/tmp"],
    says: Some("fsync of a directory"),
};
const NO_LOCK: Lack = Lack {
    call: "flock",
    on: &[],
    says: Some("flock"),
};
const NO_RENAME: Lack = Lack {
    call: "renameat2",
    on: &[],
    says: Some("renameat2: replaced by link and unlink"),
};
const NO_TIMES: Lack = Lack {
    call: "utimensat",
    on: &[],
    says: Some("utimensat"),
};

/// The words of strace that make each call fail with its error.
fn strace(site: &Site, lacks: &[(&Lack, &str)]) -> Vec<String> {
    let words = ["strace", "-D", "-f", "-qq", "-o", "/dev/null"];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    for (lack, error) in lacks {
        words.push("-e".to_owned());
        words.push(format!("inject={}:error={error}", lack.call));
        for directory in lack.on {
            let path = site.folder().join(directory);
            words.extend(["-P".to_owned(), path.to_str().unwrap().to_owned()]);
        }
    }
    words
}

/// Runs a command of the program on such a file system.
fn run(site: &Site, lacks: &[(&Lack, &str)], arguments: &[&str]) -> Ended {
    let words = strace(site, lacks);
    let ours = command(site, arguments);
    let mut strace = Command::new(&words[0]);
    strace
        .args(&words[1..])
        .arg(ours.get_program())
        .args(ours.get_args());
    finish(strace, b"")
}

fn start(site: Site, lacks: &[(&Lack, &str)]) -> ServerProcess {
    let words = strace(&site, lacks);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    ServerProcess::start_under(&words, site)
}

fn has_no_trial(data: &Path) {
    assert!(names(&data.join("tmp")).is_empty());
    for directory in ["backups", "trash"] {
        let names = names(&data.join(directory));
        assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
    }
}

async fn is_ready(server: &ServerProcess) {
    let answer = ask_admin(server.admin_address(), "/readyz").await;
    assert!(answer.ends_with("ready\n"), "{answer}");
}

/// Start, readiness, upload, renewal, GET, DELETE, restore, sweep and `check`.
async fn does_everything(lacks: &[(&Lack, &str)]) {
    let case = || {
        format!(
            "{:?}",
            lacks.iter().map(|(l, e)| (l.call, e)).collect::<Vec<_>>()
        )
    };
    let site = Site::new();
    fs::create_dir(site.data()).unwrap();
    // As killed trials leave them.
    for directory in ["backups", "trash"] {
        fs::create_dir(site.data().join(directory)).unwrap();
        fs::write(site.data().join(directory).join(".trial.tmp"), "x").unwrap();
    }
    let server = start(site, lacks);
    let (site, data) = (server.site(), server.site().data());
    has_no_trial(&data);
    is_ready(&server).await;
    let mut phone = server.phone(Protocol::Http1).await;
    let path = backup_path();
    for (body, status) in [(&[1; 50][..], 201), (&[2; 60], 204), (&[3; 70], 204)] {
        let answer = phone.send("PUT", &path, &[], body).await;
        assert_eq!(answer.status, status, "{}", case());
        assert_eq!(phone.ask("GET", &path, &[]).await.body, body, "{}", case());
    }
    assert_eq!(
        phone.ask("DELETE", &path, &[]).await.status,
        204,
        "{}",
        case()
    );
    assert_eq!(phone.ask("GET", &path, &[]).await.status, 404, "{}", case());
    assert_eq!(in_trash(site).len(), 1, "{}", case());
    run(site, lacks, &["trash", "restore", "--all"]).with_code(0);
    assert_eq!(
        phone.ask("GET", &path, &[]).await.body,
        [3; 70][..],
        "{}",
        case()
    );
    assert!(in_trash(site).is_empty(), "{}", case());

    // A restore never replaces, and a restored backup is a new one.
    place_trash(site, ID, TEN, [4; 80]);
    run(site, lacks, &["trash", "restore", "--all"]).with_code(0);
    assert_eq!(
        phone.ask("GET", &path, &[]).await.body,
        [3; 70][..],
        "{}",
        case()
    );
    site.place_backup(OTHER_ID, &[5; 90], UNIX_EPOCH);
    let pruned = run(site, lacks, &["prune", "--force", "--json"]);
    pruned.with_code(0);
    let counts = [&pruned.json()["kept"], &pruned.json()["removed"]].map(|n| n.as_u64());
    assert_eq!(counts, [Some(1), Some(1)], "{}", case());

    let checked = run(site, lacks, &["check"]);
    is_ready(&server).await;
    has_no_trial(&data);
    let (log, _site) = server.stop();
    for (lack, _) in lacks {
        let Some(says) = lack.says else { continue };
        // Once, however often the call was made.
        let said = |line: &&str| line.contains("file system lacks a call") && line.contains(says);
        assert_eq!(log.lines().filter(said).count(), 1, "{}: {log}", case());
        let expected = format!("the file system lacks {says}");
        assert!(checked.out.contains(&expected), "{}: {checked:?}", case());
    }
    assert!(!log.contains("ERROR"), "{}: {log}", case());
}

async fn a_file_system_that_cannot_sync_directories_does_everything() {
    for error in UNSUPPORTED.into_iter().chain(["EBADF"]) {
        does_everything(&[(&NO_SYNC, error)]).await;
    }
}

async fn a_file_system_that_cannot_lock_does_everything() {
    // EBADF: NFSv4, and EPERM: a sandbox.
    for error in UNSUPPORTED.into_iter().chain(["ENOLCK", "EBADF", "EPERM"]) {
        does_everything(&[(&NO_LOCK, error)]).await;
    }
}

async fn a_file_system_that_cannot_rename_exclusively_does_everything() {
    for error in UNSUPPORTED.into_iter().chain(["EPERM"]) {
        does_everything(&[(&NO_RENAME, error)]).await;
    }
}

async fn a_file_system_without_hard_links_as_well_does_everything() {
    let says = Some("renameat2 and link");
    let no_rename = Lack { says, ..NO_RENAME };
    let no_link = Lack {
        call: "linkat",
        on: &[],
        says,
    };
    for error in UNSUPPORTED.into_iter().chain(["EPERM", "EXDEV"]) {
        does_everything(&[(&no_rename, "EINVAL"), (&no_link, error)]).await;
    }
}

async fn a_file_system_that_cannot_set_times_does_everything() {
    for error in UNSUPPORTED.into_iter().chain(["EPERM"]) {
        does_everything(&[(&NO_TIMES, error)]).await;
    }
}

async fn a_file_system_without_owners_and_attributes_does_everything() {
    let [owner, attribute] = ["fchown", "fsetxattr"].map(|call| Lack {
        call,
        on: &[],
        says: None,
    });
    for error in UNSUPPORTED.into_iter().chain(["EPERM"]) {
        does_everything(&[(&owner, error), (&attribute, error)]).await;
    }
}

async fn a_file_system_that_lacks_all_of_them_does_everything() {
    let lacks = [NO_LOCK, NO_RENAME, NO_TIMES].map(|lack| (lack, "EOPNOTSUPP"));
    let lacks: Vec<_> = lacks.iter().map(|(lack, error)| (lack, *error)).collect();
    does_everything(&lacks).await;
}

async fn uploads_and_removals_at_the_same_time_are_kept_apart_without_locks() {
    const TIMES: usize = 20;
    let server = start(Site::new(), &[(&NO_LOCK, "ENOSYS"), (&NO_RENAME, "EINVAL")]);
    let path = &backup_path();
    let mut phones = Vec::new();
    for _ in 0..4 {
        phones.push(server.phone(Protocol::Http1).await);
    }
    let work = phones
        .into_iter()
        .enumerate()
        .map(|(number, mut phone)| async move {
            let mut removed = 0;
            for time in 0..TIMES {
                let answer = if number % 2 == 0 {
                    let body = vec![u8::try_from(time).unwrap(); 41 + number];
                    phone.send("PUT", path, &[], body).await
                } else {
                    phone.ask("DELETE", path, &[]).await
                };
                assert!([201, 204, 404].contains(&answer.status), "{answer:?}");
                removed += usize::from(number % 2 == 1 && answer.status == 204);
            }
            removed
        });
    let removed: usize = futures_util::future::join_all(work).await.iter().sum();

    // Each removal has its own version in the trash: none was lost, none is there twice.
    assert_eq!(in_trash(server.site()).len(), removed);
    has_no_trial(&server.site().data());
}

fn a_file_system_that_cannot_sync_files_is_refused() {
    for error in UNSUPPORTED {
        let site = Site::new();
        let no_sync = Lack { on: &[], ..NO_SYNC };
        let words = strace(&site, &[(&no_sync, error)]);
        let words: Vec<&str> = words.iter().map(String::as_str).chain([PROGRAM]).collect();
        let (code, log) = LoggingProcess::spawn(&mut serve(&words, &site)).ended();

        assert_eq!(code, Some(2), "{log:#?}");
        let log = log.concat();
        assert!(log.contains("fsync temporary file failed"), "{log}");
        let checked = run(&site, &[(&no_sync, error)], &["check"]);
        assert_eq!(checked.code, Some(1), "{checked:?}");
    }
}

async fn a_server_is_ready_only_while_uploads_renewals_and_removals_work() {
    let server = ServerProcess::start(Site::new());
    let (site, admin) = (server.site(), server.admin_address());
    is_ready(&server).await;
    for (call, step, paths) in [
        ("pwrite64", "write temporary file", None),
        // Of an upload, of a renewal, and of a removal.
        ("renameat2", "rename", None),
        ("rename", "rename", None),
        ("flock", "lock backup", Some("data/backups/.trial.tmp")),
        ("fsync", "fsync directory", Some("data/backups")),
        ("fsync", "fsync directory", Some("data/trash")),
    ] {
        let inject = format!("inject={call}:error=EIO");
        let path = paths.map(|path| site.folder().join(path));
        let path = path.as_ref().map(|path| path.to_str().unwrap());
        let trace = format!("trace={call}");
        let mut arguments = vec!["-e", &trace, "-e", &inject];
        if let Some(path) = path {
            arguments.extend(["-P", path]);
        }
        let strace = Strace::attach(&server, &arguments);
        let ready = ask_admin(admin, "/readyz").await;
        drop(strace);

        assert!(ready.starts_with("HTTP/1.1 503"), "{call}: {ready}");
        assert!(ready.contains(step), "{call}: {ready}");
        is_ready(&server).await;
        has_no_trial(&site.data());

        let no_call = Lack {
            call,
            on: &[],
            says: None,
        };
        let checked = run(site, &[(&no_call, "EIO")], &["check"]);
        assert_eq!(checked.code, Some(1), "{call}: {checked:?}");
        has_no_trial(&site.data());
    }
}

/// A server that is not root could neither read, renew nor try what belongs to root.
fn what_root_restores_as_a_copy_or_tries_belongs_to_the_owner_of_the_backups() {
    const OWNER: u32 = 65_534;
    let site = Site::new();
    let trashed = place_trash(&site, ID, TEN, [4; 80]);
    let data = site.data();
    let backups = data.join("backups");
    for path in [&data, &backups, &data.join("trash"), &trashed] {
        chown(path, Some(OWNER), Some(OWNER)).unwrap();
    }
    run(
        &site,
        &[(&NO_TIMES, "EINVAL")],
        &["trash", "restore", "--all"],
    )
    .with_code(0);
    let restored = site.backup_file(ID);
    assert_eq!(fs::read(&restored).unwrap(), [4; 80]);
    assert_eq!(fs::metadata(&restored).unwrap().uid(), OWNER);

    // Killed where the trial file has its name: what a trial of the server may find beside it.
    let trial = backups.join(".trial.tmp");
    let killed = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-P"])
        .arg(&trial)
        .args(["-e", "inject=flock:signal=SIGKILL", PROGRAM, "--config"])
        .arg(site.config_file())
        .arg("check")
        .output()
        .unwrap();
    assert!(!killed.status.success(), "{killed:?}");
    assert_eq!(fs::metadata(&trial).unwrap().uid(), OWNER);
    run(&site, &[], &["check"]);
    assert!(!trial.exists());
}

/// As in a directory with the attribute "immutable".
async fn a_server_that_may_not_rename_starts_and_serves_restores() {
    let no_rename = ["rename", "renameat2", "linkat"].map(|call| Lack {
        call,
        on: &[],
        says: None,
    });
    let site = Site::new();
    site.place_backup(ID, &[5; 90], UNIX_EPOCH);
    let lacks: Vec<_> = no_rename.iter().map(|lack| (lack, "EPERM")).collect();
    let server = start(site, &lacks);
    let mut phone = server.phone(Protocol::Http1).await;

    assert_eq!(
        phone.ask("GET", &backup_path(), &[]).await.body,
        [5; 90][..]
    );
    let other = format!("/backups/{OTHER_ID}");
    let refused = phone.send("PUT", &other, &[], &[1; 50][..]).await;
    refused.assert_refused(503);
    let ready = ask_admin(server.admin_address(), "/readyz").await;
    assert!(ready.contains("the storage is read-only"), "{ready}");
    let (log, _site) = server.stop();
    let said = "storage not writable: only restores are served";
    assert!(log.contains(said), "{log}");
}

/// A directory with the sticky bit lets nobody but the owner rename a file or remove its name.
async fn a_removal_that_fails_between_link_and_unlink_leaves_nothing_in_the_trash() {
    let site = Site::new();
    site.place_backup(ID, &[5; 90], UNIX_EPOCH);
    let server = ServerProcess::start(site);
    let mut phone = server.phone(Protocol::Http1).await;
    let backup = server.site().backup_file(ID);
    let mut arguments = vec!["-P", backup.to_str().unwrap()];
    for inject in ["inject=renameat2:error=EPERM", "inject=unlink:error=EPERM"] {
        arguments.extend(["-e", inject]);
    }
    let strace = Strace::attach(&server, &arguments);
    for _ in 0..3 {
        let refused = phone.ask("DELETE", &backup_path(), &[]).await;
        refused.assert_refused(500);
    }
    drop(strace);

    assert_eq!(fs::metadata(&backup).unwrap().nlink(), 1);
    assert!(in_trash(server.site()).is_empty());
    assert_eq!(phone.ask("DELETE", &backup_path(), &[]).await.status, 204);
}
