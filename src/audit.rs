//! Audit log of operator commands: one JSON line for each command that changed something, appended
//! to `audit.jsonl` in the storage's local directory and flushed to disk before the command ends.
//!
//! A line is written after the command's work, not before: on a full disk an operator can still
//! empty the trash. The file is opened before the work, so that most errors that would prevent the
//! line also prevent a command from removing backups or granting access. Commands that rescue
//! backups, such as a restore from the trash, run without the log if it cannot be opened, and
//! commands that make room open it at their end if there was no room before. The log contains names
//! of accounts, but never ids or secrets.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::Storage;
use crate::durable::{self, AppendLog};

/// Name of the audit log in the data directory.
pub const FILE: &str = "audit.jsonl";

/// The audit log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[error("the audit log {} cannot be written", .path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    source: durable::Error,
}

impl Error {
    /// True if there is no room for the file; a command that makes room may then succeed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        [StorageFull, QuotaExceeded].contains(&self.source.source.kind())
    }
}

/// The outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The command did its work; the counts in the details show how much.
    Done,
    /// The command refused to do its work, for example because of the safety checks.
    Refused,
    /// The command failed. Changes that it made before stay.
    Failed,
}

/// One line of the log, with its fields in the order in which they are written.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'a> {
    /// The time at which the command ended, RFC 3339.
    pub time: String,
    /// The user id under which the command ran.
    pub uid: u32,
    /// The user id of the login session (for example before `sudo`), if the system knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// The command's words without its arguments, such as `account add`.
    pub command: &'a str,
    /// The outcome.
    pub outcome: Outcome,
    /// Counts, and names of accounts.
    #[serde(flatten)]
    pub details: &'a Map<String, Value>,
}

/// The open audit log.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    log: AppendLog,
}

/// Opens the audit log of a storage, in its local directory.
///
/// # Errors
/// When the file cannot be opened for writing, or is not a regular file.
pub fn open(storage: &Storage) -> Result<AuditLog, Error> {
    AuditLog::open(storage.description().local_directory)
}

impl AuditLog {
    /// Opens the audit log of a data directory; creates both if they are missing.
    ///
    /// # Errors
    /// When the file cannot be opened for writing, or is not a regular file.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let opened = durable::create_directory(directory).and_then(|()| AppendLog::open(&path));
        match opened {
            Ok(log) => Ok(Self { path, log }),
            Err(source) => Err(Error { path, source }),
        }
    }

    /// Appends the entry as one line, and flushes it to disk.
    ///
    /// # Errors
    /// When the line cannot be written; a part of it may then be in the file, and the next entry
    /// still begins on a line of its own.
    pub fn append(&self, entry: &Entry<'_>) -> Result<(), Error> {
        let line = serde_json::json!(entry).to_string();
        self.log.append(&line).map_err(|source| Error {
            path: self.path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry(details: &Map<String, Value>) -> Entry<'_> {
        Entry {
            time: "2026-11-24T10:00:00Z".into(),
            uid: 1000,
            login_uid: None,
            command: "prune",
            outcome: Outcome::Done,
            details,
        }
    }

    fn numbered(number: usize) -> Map<String, Value> {
        Map::from_iter([("removed".to_owned(), number.into())])
    }

    fn lines(directory: &Path) -> Vec<String> {
        let text = fs::read_to_string(directory.join(FILE)).unwrap();
        text.lines().map(String::from).collect()
    }

    #[test]
    fn a_line_has_time_user_command_outcome_and_counts() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");

        let log = AuditLog::open(&data).unwrap();
        log.append(&entry(&numbered(3))).unwrap();

        let expected = r#"{"time":"2026-11-24T10:00:00Z","uid":1000,"command":"prune","outcome":"done","removed":3}"#;
        assert_eq!(lines(&data), [expected]);
        let found = fs::metadata(data.join(FILE)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_torn_last_line_does_not_damage_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let log = AuditLog::open(directory.path()).unwrap();
        log.append(&entry(&numbered(1))).unwrap();
        let mut file = File::options()
            .append(true)
            .open(directory.path().join(FILE))
            .unwrap();
        file.write_all(b"{\"time\":\"2026-1").unwrap();

        log.append(&entry(&numbered(2))).unwrap();
        log.append(&entry(&numbered(3))).unwrap();

        let lines = lines(directory.path());
        assert_eq!(lines.len(), 4, "{lines:#?}");
        let parsed = lines.iter().map(|line| serde_json::from_str(line));
        let numbers: Vec<_> = parsed
            .map(|line: serde_json::Result<Value>| line.ok().map(|line| line["removed"].clone()))
            .collect();
        let expected = [Some(1), None, Some(2), Some(3)].map(|n: Option<u64>| n.map(Value::from));
        assert_eq!(numbers, expected);
    }

    #[test]
    fn writers_at_the_same_time_leave_whole_lines() {
        const WRITERS: usize = 8;
        const LINES: usize = 25;
        let directory = tempfile::tempdir().unwrap();

        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let directory = directory.path();
                scope.spawn(move || {
                    for line in 0..LINES {
                        let log = AuditLog::open(directory).unwrap();
                        let details = numbered(writer * LINES + line);
                        log.append(&entry(&details)).unwrap();
                    }
                });
            }
        });

        let mut numbers: Vec<_> = lines(directory.path())
            .iter()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                usize::try_from(line["removed"].as_u64().unwrap()).unwrap()
            })
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, Vec::from_iter(0..WRITERS * LINES));
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("other");
        durable::replace(&other, b"another file").unwrap();
        std::os::unix::fs::symlink(&other, directory.path().join(FILE)).unwrap();

        let error = AuditLog::open(directory.path()).unwrap_err();

        assert!(
            error.to_string().ends_with("audit.jsonl cannot be written"),
            "{error}"
        );
        assert_eq!(fs::read(&other).unwrap(), b"another file");
    }
}
