//! The line that a command leaves in the audit log (`crate::audit`).

use std::path::Path;

use serde_json::{Map, Value};

use super::terminal::warn;
use super::when::date;
use crate::audit::{self, AuditLog, Entry, Error, Outcome};
use crate::config::Config;

/// The user who logged in, whoever he became since (`proc(5)`).
const LOGIN_UID: &str = "/proc/self/loginuid";
/// What stands there when nobody logged in.
const NOBODY: u32 = u32::MAX;

/// A command that is under way. If it ends before [`Audit::done`], its line says that it failed.
pub(super) struct Audit {
    /// `None` if it could not be opened, which the operator was told.
    log: Option<AuditLog>,
    command: &'static str,
    details: Map<String, Value>,
    is_written: bool,
}

impl Audit {
    /// Opens the log, before anything is done: where it cannot be written, nothing is.
    pub(super) fn begin(config: &Config, command: &'static str) -> Result<Self, Error> {
        Ok(Self::of(Some(audit::open(&config.storage)?), command))
    }

    /// As [`Audit::begin`], for what saves backups: a log that cannot be written must not keep anybody from it, and is
    /// an error only at the end.
    pub(super) fn begin_in_any_case(config: &Config, command: &'static str) -> Self {
        let opened = audit::open(&config.storage).map_err(|error| {
            let text = format!("{:#}", anyhow::Error::from(error));
            warn(&format!("error: {text}; this command goes on without it"));
        });
        Self::of(opened.ok(), command)
    }

    fn of(log: Option<AuditLog>, command: &'static str) -> Self {
        Self {
            log,
            command,
            details: Map::new(),
            is_written: false,
        }
    }

    /// Adds a count, or the name of an account. Never an id, never a secret.
    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// Writes the line of a command that did its work; `false` if that fails, which the operator is told. Comes before
    /// the command's own words, which may go to somebody who does not listen any more.
    pub(super) fn done(mut self) -> bool {
        self.write(Outcome::Done)
    }

    /// As [`Audit::done`], of a command that found a reason to do nothing.
    pub(super) fn refused(mut self) -> bool {
        self.write(Outcome::Refused)
    }

    fn write(&mut self, outcome: Outcome) -> bool {
        self.is_written = true;
        let Some(log) = &self.log else {
            return false;
        };
        let entry = Entry {
            time: date(super::now()),
            uid: rustix::process::getuid().as_raw(),
            login_uid: login_uid(Path::new(LOGIN_UID)),
            command: self.command,
            outcome,
            details: &self.details,
        };
        match log.append(&entry) {
            Ok(()) => true,
            Err(error) => {
                let text = format!("{:#}", anyhow::Error::from(error));
                warn(&format!("error: {text}; what this command did stays done"));
                false
            }
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.is_written {
            self.write(Outcome::Failed);
        }
    }
}

fn login_uid(file: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    text.trim().parse().ok().filter(|&uid| uid != NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_logged_in_is_known_if_somebody_did() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("loginuid");
        for (text, expected) in [("1000", Some(1000)), ("4294967295", None), ("", None)] {
            crate::durable::replace(&file, text.as_bytes()).unwrap();
            assert_eq!(login_uid(&file), expected, "{text}");
        }
        assert_eq!(login_uid(&directory.path().join("absent")), None);
    }
}
