//! Audit log entries of commands (`crate::audit`).

use std::path::Path;

use serde_json::{Map, Value};

use super::runtime;
use super::terminal::warn;
use super::when::date;
use crate::audit::{self, AuditLog, Entry, Error, Outcome};
use crate::config::{Config, Storage};

/// The login user id, which stays the same after su and sudo (`proc(5)`).
const LOGIN_UID: &str = "/proc/self/loginuid";
/// The value without a login.
const UNSET: u32 = u32::MAX;

/// The entry of a running command. If it is dropped before [`Audit::done`], the outcome is
/// `failed`.
pub(super) struct Audit {
    /// `None` if it could not be opened, which was reported on standard error.
    log: Option<AuditLog>,
    /// Where the log is opened at the end, when the command has made room for it.
    reopened: Option<Storage>,
    command: &'static str,
    details: Map<String, Value>,
    is_written: bool,
}

impl Audit {
    /// Opens the audit log before the command changes anything.
    ///
    /// # Errors
    /// When the log cannot be opened; the command must not continue then.
    pub(super) fn begin(config: &Config, command: &'static str) -> Result<Self, Error> {
        Ok(Self::of(Some(audit::open(&config.storage)?), command))
    }

    /// As [`Audit::begin`], for commands that rescue backups: they continue if the audit log cannot
    /// be opened, and fail only at the end.
    pub(super) fn begin_best_effort(config: &Config, command: &'static str) -> Self {
        let opened = audit::open(&config.storage);
        let opened = opened.map_err(|error| warn_of(error, "continuing without audit log"));
        Self::of(opened.ok(), command)
    }

    /// As [`Audit::begin`], for commands that make room: if there is none for the log, they continue,
    /// and open it at the end.
    ///
    /// # Errors
    /// When the log cannot be opened for another reason.
    pub(super) fn begin_making_room(config: &Config, command: &'static str) -> Result<Self, Error> {
        match audit::open(&config.storage) {
            Err(error) if error.is_full() => {
                let mut audit = Self::of(None, command);
                audit.reopened = Some(config.storage.clone());
                Ok(audit)
            }
            opened => Ok(Self::of(Some(opened?), command)),
        }
    }

    fn of(log: Option<AuditLog>, command: &'static str) -> Self {
        Self {
            log,
            reopened: None,
            command,
            details: Map::new(),
            is_written: false,
        }
    }

    /// Adds a detail: a count, a role or the name of an account; never a backup id, never a secret.
    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// Writes the entry of a successful command; `false` if that fails, which is reported on
    /// standard error. Call it before the command prints its result, because printing fails if the
    /// reader has closed the pipe.
    pub(super) fn done(mut self) -> bool {
        self.write(Outcome::Done)
    }

    /// As [`Audit::done`], for a command that refused to act.
    pub(super) fn refused(mut self) -> bool {
        self.write(Outcome::Refused)
    }

    fn write(&mut self, outcome: Outcome) -> bool {
        self.is_written = true;
        if let Some(storage) = self.reopened.take() {
            let opened = audit::open(&storage);
            self.log = opened
                .map_err(|error| warn_of(error, "the command's changes remain"))
                .ok();
        }
        let Some(log) = &self.log else {
            return false;
        };
        let entry = Entry {
            time: date(runtime::now()),
            uid: rustix::process::getuid().as_raw(),
            login_uid: login_uid(Path::new(LOGIN_UID)),
            command: self.command,
            outcome,
            details: &self.details,
        };
        match log.append(&entry) {
            Ok(()) => true,
            Err(error) => {
                warn_of(error, "the command's changes remain");
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

fn warn_of(error: Error, consequence: &str) {
    let text = format!("{:#}", anyhow::Error::from(error));
    warn(&format!("error: {text}; {consequence}"));
}

fn login_uid(file: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    text.trim().parse().ok().filter(|&uid| uid != UNSET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_uid_is_read_if_there_was_a_login() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("loginuid");
        for (text, expected) in [("1000", Some(1000)), ("4294967295", None), ("", None)] {
            crate::durable::replace(&file, text.as_bytes()).unwrap();
            assert_eq!(login_uid(&file), expected, "{text}");
        }
        assert_eq!(login_uid(&directory.path().join("absent")), None);
    }
}
