//! What the process and its files keep from others on the same machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;

use crate::support::commands::{Ended, Folder, PROGRAM, finish};
use crate::support::process::ServerProcess;
use crate::support::wire::{FAIL_SAFE, Protocol};
use crate::support::{
    ID, Listening, Site, backup_path, mode, set_mode, skip, skip_without_program, write,
};

/// The mode of everything in a folder, folders with a slash at the end.
fn modes(folder: &Path) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display();
            let slash = if path.is_dir() { "/" } else { "" };
            all.push((format!("{name}{slash}"), mode(&path)));
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    all.sort();
    all
}

#[test]
fn what_the_program_makes_is_private_whatever_the_umask() {
    for umask in ["000", "022", "077", "777"] {
        let folder = Folder::new();
        let path = folder.path("");
        let run = |arguments: &[&str]| {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", "umask $0; exec \"$@\"", umask, PROGRAM])
                .args(arguments)
                .current_dir(&path)
                .env_clear();
            let output = finish(shell, b"");
            assert_eq!(output.code, Some(0), "{}", output.errors);
        };

        run(&["init", "--yes"]);
        run(&["account", "add", "office"]);
        run(&["prune"]);
        run(&["demo", "--once", "--directory", "demo"]);

        let found = modes(&path);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "accounts.json",
            "certs/privkey.pem",
            "config.json",
            "data/audit.jsonl",
            "data/backups/",
            "data/state.json",
            "demo/data/trash/",
        ] {
            assert!(names.contains(&name), "{name} is not in {names:#?}");
        }
        assert!(
            names
                .iter()
                .any(|name| name.starts_with("demo/data/trash/") && !name.ends_with('/')),
            "the demo left no backup: {names:#?}"
        );
        for (name, mode) in found {
            let expected = if name.ends_with('/') { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "{name} under umask {umask}: {mode:o}");
        }
    }
}

#[test]
fn a_key_or_accounts_file_that_others_can_read_or_change_is_refused_with_the_remedy() {
    let folder = Folder::new();
    folder.done(&["init", "--yes", "--listen", "127.0.0.1:0"]);
    let config = fs::read_to_string(folder.path("config.json")).unwrap();
    let config = config.replace("127.0.0.1:9180", "127.0.0.1:0");
    folder.write("config.json", &config);

    for (file, place) in [
        ("certs/privkey.pem", "tls"),
        ("accounts.json", "accountsFile"),
    ] {
        let path = folder.path(file);
        for (exposed, problem) in [
            (0o644, "every user of this machine can read it: chmod 600"),
            (0o444, "every user of this machine can read it: chmod 600"),
            (0o660, "others than its owner can change it: chmod 600"),
        ] {
            set_mode(&path, exposed);

            let expected = format!("{file}: {problem}");
            let checked = folder.run(&["check"]);
            assert_eq!(checked.code, Some(1));
            let said = checked.out;
            let line = said.lines().find(|line| line.contains(&expected));
            assert!(
                line.is_some_and(|line| line.starts_with(&format!("error    {place}: "))),
                "{said}"
            );

            // Comes second: a server that starts does not end.
            let (code, message) = folder.failed(&["serve"]);
            assert_eq!(code, 2, "{message}");
            assert!(
                message.contains(&format!("\n  {place}: ")) && message.contains(&expected),
                "{message}"
            );
        }
        for private in [0o640, 0o440, 0o400, 0o600] {
            set_mode(&path, private);
            let checked = folder.done(&["check"]);
            assert!(checked.contains("0 errors"), "{private:o}: {checked}");
        }
    }
}

#[tokio::test]
async fn an_accounts_file_that_is_opened_to_others_changes_nothing_in_a_running_server() {
    let mut server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http1).await;
    let file = server.site().accounts_file();
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);

    // As an editor leaves it: another file, without any account, and with the rights of the umask.
    let new = file.with_extension("new");
    write(&new, r#"{"accounts": []}"#);
    set_mode(&new, 0o644);
    fs::rename(&new, &file).unwrap();

    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    let log = server.log_through(|line| line.contains("accounts file is bad"));
    let line = log.last().unwrap();
    assert!(
        line.contains("every user of this machine can read it"),
        "{line}"
    );
}

#[test]
fn memory_of_the_program_is_neither_dumped_nor_open_to_its_own_user() {
    const NOBODY: u32 = 65_534;
    // What is in the way of others is in the way of root only if he is another user to the program.
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o755);
    let program = folder.path().join("program");
    fs::copy(PROGRAM, &program).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\""])
        .arg(&program)
        .args([
            "client",
            "derive",
            "--id",
            "ECHOECHO",
            "--password-file",
            "-",
        ])
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    // Waits for the password, and so goes on until it is killed.
    let mut child = command.spawn().unwrap();
    let process = format!("/proc/{}", child.id());

    let is_closed = || {
        let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core"))
            .unwrap();
        let no_core = core
            .split_whitespace()
            .skip(4)
            .take(2)
            .all(|limit| limit == "0");
        // The files of a process that is not dumpable belong to root (proc(5)).
        let owner = fs::metadata(format!("{process}/limits")).unwrap().uid();
        no_core && owner == 0
    };
    let began = Instant::now();
    while !is_closed() && began.elapsed() < FAIL_SAFE {
        std::thread::yield_now();
    }
    let closed = is_closed();
    drop(child.kill());
    drop(child.wait());
    assert!(closed);
}

#[test]
fn the_systemd_unit_leaves_little_open() {
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/systemd/threema-safe-server.service"
    );
    let analyzed = Command::new("systemd-analyze")
        .args([
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold=15",
            unit,
        ])
        .output();
    let Ok(output) = analyzed else {
        return skip_without_program("the unit's exposure: systemd-analyze is not installed");
    };
    let output = Ended::from(output);
    let said = output.out + &output.errors;
    if said.contains("--offline") {
        return skip("the unit's exposure: this systemd-analyze is older than 250");
    }

    // The threshold is 1.5, in tenths.
    assert_eq!(output.code, Some(0), "{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
    // A systemd before 253 does not know this one, as the unit says.
    let said = said.replace("Failed to parse service type, ignoring: notify-reload", "");
    for complaint in ["Unknown", "Failed to parse", "ignoring"] {
        assert!(!said.contains(complaint), "{said}");
    }
}

#[tokio::test]
async fn the_systemd_unit_allows_the_system_calls_of_a_server() {
    // These may be refused: who may not give files away need not, and the unit sets the limit itself.
    const REFUSED: [&str; 3] = ["fchown", "setrlimit", "prlimit64"];
    let test = "the unit's system calls";
    let Some(allowed) = allowed_calls() else {
        return skip_without_program(&format!("{test}: systemd-analyze is not installed"));
    };
    if Command::new("strace").arg("-V").output().is_err() {
        return skip_without_program(&format!("{test}: strace is not installed"));
    }
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

/// The system calls that the unit's filter lets through; `None` without systemd.
fn allowed_calls() -> Option<Vec<String>> {
    fn expand(set: &str) -> Option<Vec<String>> {
        let output = Command::new("systemd-analyze")
            .args(["syscall-filter", "--no-pager", set])
            .output()
            .ok()?;
        let said = Ended::from(output).out;
        let words = said.lines().skip(1).map(str::trim);
        let words = words.filter(|word| !word.is_empty() && !word.starts_with('#'));
        let expanded = words.map(|word| {
            if word.starts_with('@') {
                expand(word)
            } else {
                Some(vec![word.to_owned()])
            }
        });
        Some(expanded.collect::<Option<Vec<_>>>()?.concat())
    }
    // As the unit says it.
    let unit = include_str!("../../../docs/systemd/threema-safe-server.service");
    assert!(unit.contains(
        "\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\n"
    ));
    let mut allowed = expand("@system-service")?;
    let refused = [expand("@privileged")?, expand("@resources")?].concat();
    allowed.retain(|call| !refused.contains(call));
    // What strace names otherwise, and what a filter of systemd always lets through.
    allowed.extend(expand("@default")?);
    Some(allowed)
}

/// As `docs/compose.yaml` runs it: nothing but the data directory can be written, and the user is nobody in particular.
#[tokio::test]
async fn a_read_only_system_and_no_right_at_all_are_enough_for_a_server() {
    const NOBODY: u32 = 65_534;
    const SCRIPT: &str = "set -e
        mount --make-rprivate /; mount --bind \"$1\" \"$1\"; mount -o remount,ro,bind /; shift
        exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs \\
            --inh-caps=-all --ambient-caps=-all --bounding-set=-all \"$@\"";
    let test = "a server on a read-only system";
    if !rustix::process::geteuid().is_root() {
        return skip(&format!("{test}: only root can take rights away"));
    }
    let tried = Command::new("unshare")
        .args(["--mount", "sh", "-c", SCRIPT, "sh", "/var", "setpriv", "-d"])
        .output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return skip(&format!("{test}: unshare or setpriv is not permitted"));
    }
    // Where nobody can read it.
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
