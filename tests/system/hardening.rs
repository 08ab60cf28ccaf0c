//! Rights of a server: what the systemd unit allows, and how few rights are enough.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use threema_safe_server::durable;

use crate::support::commands::{PROGRAM, finish};
use crate::support::modes;
use crate::support::process::ServerProcess;
use crate::support::wire::Protocol;
use crate::support::{ID, Site, backup_path, mode, set_mode};

tests! {
    the_systemd_unit_leaves_little_open: blocking [SYSTEMD_ANALYZE];
    the_systemd_unit_allows_the_system_calls_of_a_server: tokio [SYSTEMD_ANALYZE, STRACE];
    a_read_only_system_and_no_right_at_all_are_enough_for_a_server: tokio [NAMESPACES];
    a_file_that_is_replaced_keeps_its_owner: blocking [ROOT];
}

fn a_file_that_is_replaced_keeps_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.json");
    durable::replace(&path, b"old").unwrap();
    chown(&path, Some(65_534), Some(65_534)).unwrap();

    durable::replace(&path, b"new").unwrap();

    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid()), (65_534, 65_534));
}

fn the_systemd_unit_leaves_little_open() {
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/systemd/threema-safe-server.service"
    );
    let mut analyze = Command::new("systemd-analyze");
    analyze.args([
        "security",
        "--offline=true",
        "--no-pager",
        "--threshold=15",
        unit,
    ]);
    let output = finish(analyze, b"");
    let said = output.out + &output.errors;

    // The threshold is 1.5, in tenths.
    assert_eq!(output.code, Some(0), "{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
    // A systemd before 253 does not know this one, as the unit says.
    let said = said.replace("Failed to parse service type, ignoring: notify-reload", "");
    for complaint in ["Unknown", "Failed to parse", "ignoring"] {
        assert!(!said.contains(complaint), "{said}");
    }
}

async fn the_systemd_unit_allows_the_system_calls_of_a_server() {
    // These may be refused: the server goes on without giving files away, and the unit sets the
    // limit itself.
    const REFUSED: [&str; 3] = ["fchown", "setrlimit", "prlimit64"];
    let allowed = allowed_calls();
    let site = Site::new();
    let calls = site.folder().join("calls");
    let calls_file = calls.to_str().unwrap().to_owned();
    let server = ServerProcess::start_under(
        // As a grandchild, so that the server is our child as ever.
        &[
            "strace",
            "-D",
            "-f",
            "-qq",
            "-e",
            "signal=none",
            "-o",
            &calls_file,
        ],
        site,
    );
    let mut phone = server.phone(Protocol::Http2).await;
    phone.send("PUT", &backup_path(), &[], "a backup").await;
    phone.send("PUT", &backup_path(), &[], "another").await;
    phone.ask("GET", &backup_path(), &[]).await;
    phone.ask("DELETE", &backup_path(), &[]).await;
    assert_eq!(phone.ask("GET", &backup_path(), &[]).await.status, 404);
    drop(phone);
    // Else the end would wait for the phone.
    server.has_no_new_descriptors().await;
    server.signal(Signal::TERM);
    let (code, _, site) = server.ended();
    assert_eq!(code, Some(0));

    let log = fs::read_to_string(&calls).unwrap();
    let mut made: Vec<_> = log
        .lines()
        .filter_map(|line| {
            let call = line.split_whitespace().nth(1)?;
            let (name, _) = call.split_once('(')?;
            Some(name)
        })
        .collect();
    made.sort_unstable();
    made.dedup();
    assert!(made.contains(&"renameat2") && made.len() > 40, "{made:?}");
    assert_eq!(mode(&site.data()), 0o700);
    assert!(!site.backup_file(ID).exists());
    let missing: Vec<_> = made
        .into_iter()
        .filter(|call| !allowed.iter().any(|allowed| allowed == call) && !REFUSED.contains(call))
        .collect();
    assert_eq!(missing, [""; 0]);
}

/// The system calls that the unit's filter lets through.
fn allowed_calls() -> Vec<String> {
    fn expand(set: &str) -> Vec<String> {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["syscall-filter", "--no-pager", set]);
        let said = finish(analyze, b"").out;
        let words = said.lines().skip(1).map(str::trim);
        let words = words.filter(|word| !word.is_empty() && !word.starts_with('#'));
        words
            .flat_map(|word| {
                if word.starts_with('@') {
                    expand(word)
                } else {
                    vec![word.to_owned()]
                }
            })
            .collect()
    }
    // As the unit says it.
    let unit = include_str!("../../docs/systemd/threema-safe-server.service");
    assert!(unit.contains(
        "\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\n"
    ));
    let mut allowed = expand("@system-service");
    let refused = [expand("@privileged"), expand("@resources")].concat();
    allowed.retain(|call| !refused.contains(call));
    // What strace names otherwise, and what a filter of systemd always lets through.
    allowed.extend(expand("@default"));
    allowed
}

/// As `docs/compose.yaml` runs it: nothing but the data directory can be written, and the user has
/// no rights.
async fn a_read_only_system_and_no_right_at_all_are_enough_for_a_server() {
    const NOBODY: u32 = 65_534;
    const SCRIPT: &str = "set -e
        mount --make-rprivate /; mount --bind \"$1\" \"$1\"; mount -o remount,ro,bind /; shift
        exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs \\
            --inh-caps=-all --ambient-caps=-all --bounding-set=-all \"$@\"";
    // Where the user `nobody` can read it.
    let shared = tempfile::tempdir().unwrap();
    set_mode(shared.path(), 0o755);
    let program = shared.path().join("program");
    fs::copy(PROGRAM, &program).unwrap();
    let site = Site::new();
    fs::create_dir(site.data()).unwrap();
    set_mode(&site.data(), 0o700);
    for path in [site.folder().to_owned(), site.data()] {
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let folder = site.folder().to_owned();
    for (name, _) in modes(&folder) {
        chown(folder.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let data = site.data().to_str().unwrap().to_owned();
    let program = program.to_str().unwrap();

    let server = ServerProcess::start_by(
        &[
            "unshare", "--mount", "sh", "-c", SCRIPT, "sh", &data, program,
        ],
        Stdio::null(),
        site,
    );
    let mut phone = server.phone(Protocol::Http2).await;
    let mut statuses = Vec::new();
    for method in ["PUT", "PUT", "GET", "DELETE"] {
        let answer = phone.send(method, &backup_path(), &[], "a backup").await;
        statuses.push(answer.status);
    }

    assert_eq!(statuses, [201, 204, 200, 204]);
    let proc = format!("/proc/{}", server.pid());
    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    for expected in [
        "Uid:\t65534\t",
        "CapEff:\t0000000000000000\n",
        "CapBnd:\t0000000000000000\n",
        "NoNewPrivs:\t1\n",
    ] {
        assert!(status.contains(expected), "{expected:?} in {status}");
    }
    let mounts = fs::read_to_string(format!("{proc}/mountinfo")).unwrap();
    let root = mounts.lines().find(|line| line.contains(" / / "));
    assert!(
        root.is_some_and(|line| line.contains(" / / ro")),
        "{mounts}"
    );
    drop(phone);
    server.has_no_new_descriptors().await;
    server.signal(Signal::TERM);
    assert_eq!(server.ended().0, Some(0));
}
