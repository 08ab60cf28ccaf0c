//! Hardening: modes of files, memory dumps, and files that other users could read or change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::commands::{Folder, PROGRAM, finish};
use crate::support::modes;
use crate::support::process::ServerProcess;
use crate::support::wire::{FAIL_SAFE, Protocol};
use crate::support::{Listening, Site, set_mode, write};

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
        // As another WebDAV server left it.
        fs::create_dir(folder.path("data/backups")).unwrap();
        set_mode(&folder.path("data/backups"), 0o700);
        run(&["prune"]);
        run(&["demo", "--once", "--directory", "demo"]);

        let found = modes(&path);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "accounts.json",
            "certs/privkey.pem",
            "config.json",
            "data/audit.jsonl",
            "data/trash/",
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
            (0o660, "other users than its owner can change it: chmod 600"),
        ] {
            set_mode(&path, exposed);

            let expected = format!("{file}: {problem}");
            let checked = folder.run(&["check"]);
            assert_eq!(checked.code, Some(1));
            let said = checked.out;
            let line = said.lines().find(|line| line.contains(&expected));
            assert!(
                line.is_some_and(|line| line.starts_with(&format!("critical  {place}: "))),
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
            assert!(checked.contains("0 critical"), "{private:o}: {checked}");
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
    let log = server.log_through(|line| line.contains("accounts reload failed"));
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
