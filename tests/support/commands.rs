//! Commands of the built program, run to their end: in a folder of their own, or over a site.

use std::borrow::BorrowMut;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{Site, ask_admin, write};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_threema-safe-server");
/// A document that both apps restore.
pub(crate) const DOCUMENT: &str = r#"{"info":{"version":1,"device":"test"},"user":{"privatekey":"AQIDBAUGBwhkZWZnaGlqawECAwQFBgcIZGVmZ2hpams="},"contacts":[],"settings":{"syncContacts":false}}"#;

/// The exit code of a command, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) errors: String,
}

impl Ended {
    /// Its JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it answered; it must have ended with this code.
    #[track_caller]
    pub(crate) fn with_code(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        &self.out
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            errors: text(&output.stderr),
        }
    }
}

/// Runs a command to its end, with this on standard input.
pub(crate) fn finish(mut command: impl BorrowMut<Command>, input: &[u8]) -> Ended {
    let mut running = command
        .borrow_mut()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without having read all.
    drop(running.stdin.take().unwrap().write_all(input));
    running.wait_with_output().unwrap().into()
}

/// As [`finish`], without blocking a server in this process.
pub(crate) async fn finish_beside(command: Command) -> Ended {
    let ended = tokio::task::spawn_blocking(move || finish(command, b""));
    ended.await.unwrap()
}

/// The program with no environment and no input.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// An empty folder in which commands run.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        write(&self.path(name), text);
        name.to_owned()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.current_dir(self.0.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        finish(self.command(arguments), b"")
    }

    /// What a successful command prints.
    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.errors);
        ended.out
    }

    /// The exit code and the message of a command that fails; it must print no answer.
    #[track_caller]
    pub(crate) fn failed(&self, arguments: &[&str]) -> (i32, String) {
        let ended = self.run(arguments);
        assert_eq!(ended.out, "", "{arguments:?}");
        (ended.code.unwrap(), ended.errors)
    }
}

/// A command over the site, not started yet.
pub(crate) fn command(site: &Site, arguments: &[&str]) -> Command {
    let mut command = program(&[]);
    command
        .arg("--config")
        .arg(site.config_file())
        .args(arguments);
    command
}

/// Runs a command over the site.
pub(crate) fn run(site: &Site, arguments: &[&str]) -> Ended {
    finish(command(site, arguments), b"")
}

/// As [`run`], with this on standard input.
pub(crate) fn run_with(site: &Site, arguments: &[&str], input: impl AsRef<[u8]>) -> Ended {
    finish(command(site, arguments), input.as_ref())
}

/// Asks the server that has this admin listener for its status.
pub(crate) fn status(site: &Site, admin: SocketAddr, arguments: &[&str]) -> Ended {
    finish(status_command(site, admin, arguments), b"")
}

/// What [`status`] runs.
pub(crate) fn status_command(site: &Site, admin: SocketAddr, arguments: &[&str]) -> Command {
    let file = site.folder().join("operator.json");
    write_config_for(site, admin, &file);
    let mut command = command(site, &["status"]);
    command.args(arguments).arg("--config").arg(file);
    command
}

/// Writes the site's configuration with the port that the admin listener really has.
pub(crate) fn write_config_for(site: &Site, admin: SocketAddr, file: &Path) {
    let config = std::fs::read(site.config_file()).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["admin"]["listen"] = admin.to_string().into();
    write(file, config.to_string());
}

/// The lines of the metrics that begin with this text, sorted.
pub(crate) async fn metrics(admin: SocketAddr, beginning: &str) -> Vec<String> {
    let answer = ask_admin(admin, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
    let lines = answer.lines().filter(|line| line.starts_with(beginning));
    let mut lines: Vec<_> = lines.map(Into::into).collect();
    lines.sort();
    lines
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
