//! The built program, for the tests of its commands.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_threema-safe-server");
pub(crate) const DOCUMENT: &str = r#"{"info":{"version":1,"device":"test"},"user":{"privatekey":"AQIDBAUGBwhkZWZnaGlqawECAwQFBgcIZGVmZ2hpams="},"contacts":[],"settings":{"syncContacts":false}}"#;

/// The program in a folder of its own, with nothing of our environment in it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        name.to_owned()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a terminal shows of a successful command, at whose prompts the lines of `typed` are typed.
    pub(crate) fn on_a_terminal(&self, arguments: &[&str], typed: &str) -> String {
        let (code, shown) = self.ended_on_a_terminal(arguments, typed);
        assert_eq!(code, Some(0), "{shown}");
        shown
    }

    /// The exit code of a command and what a terminal shows of it.
    pub(crate) fn ended_on_a_terminal(
        &self,
        arguments: &[&str],
        typed: &str,
    ) -> (Option<i32>, String) {
        let mut terminal = Command::new("python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/support/terminal.py"
            ))
            .arg(PROGRAM)
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = terminal.stdin.take().unwrap();
        input.write_all(typed.as_bytes()).unwrap();
        drop(input);
        let output = terminal.wait_with_output().unwrap();
        (output.status.code(), text(&output.stdout))
    }

    /// What a successful command prints.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// The exit code and the message of one that fails, and makes sure that it answers nothing.
    pub(crate) fn failed(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        (output.status.code().unwrap(), text(&output.stderr))
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
