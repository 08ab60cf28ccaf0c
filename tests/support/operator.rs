//! What an operator has beside a server: the built commands over the same site, and the admin listener.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::program::{PROGRAM, text};
use crate::support::wire::soon;
use crate::support::{Site, write};

/// How a command ended, and what it said.
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

/// A command over the site, not started yet.
pub(crate) fn command(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .arg("--config")
        .arg(site.config_file())
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null());
    command
}

/// Runs a command over the site.
pub(crate) fn run(site: &Site, arguments: &[&str]) -> Ended {
    run_with(site, arguments, "")
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
    let config = std::fs::read(site.config_file()).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["admin"]["listen"] = admin.to_string().into();
    let file = site.folder().join("operator.json");
    write(&file, config.to_string());
    let mut command = command(site, &["status"]);
    command.args(arguments).arg("--config").arg(file);
    command
}

pub(crate) fn finish(mut command: Command, input: &[u8]) -> Ended {
    let mut running = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without having read all.
    drop(running.stdin.take().unwrap().write_all(input));
    let output = running.wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        out: text(&output.stdout),
        errors: text(&output.stderr),
    }
}

/// The lines of the metrics that begin so.
pub(crate) async fn metrics(admin: SocketAddr, beginning: &str) -> Vec<String> {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
    let lines = answer.lines().filter(|line| line.starts_with(beginning));
    let mut lines: Vec<_> = lines.map(Into::into).collect();
    lines.sort();
    lines
}
