//! What a server remembers from one run to the next: `state.json` in the data directory.
//!
//! Everything in it can be lost without losing a backup: a sweep then knows less, and is let through by fewer of its
//! guards. It is read and replaced whole, under a lock, because commands run beside the server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable;

pub use crate::time::unix;

/// What is remembered. Times are Unix times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// When a sweep last went through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sweep: Option<u64>,
    /// The highest time that a sweep has seen on a clock which it had no reason to doubt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest_time: Option<u64>,
    /// What phones were promised, the oldest first: a later promise does not shorten an earlier one.
    #[serde(alias = "promises")]
    pub retention_periods: Vec<RetentionPeriod>,
    /// Why nothing is erased from the trash, until an operator confirms the removals.
    #[serde(alias = "burst", skip_serializing_if = "Option::is_none")]
    pub deletion_burst: Option<DeletionBurst>,
    /// Removals up to this time were confirmed by an operator.
    #[serde(alias = "confirmed", skip_serializing_if = "Option::is_none")]
    pub acknowledged_until: Option<u64>,
    /// Uploads of the last days, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uploads: Vec<DayOfUploads>,
    /// How the last scrub ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub: Option<Scrubbed>,
}

/// How long backups were kept from some time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPeriod {
    /// From when on.
    pub since: u64,
    /// How long a backup is kept after its last upload.
    pub keep_seconds: u64,
    /// Whether a command noted it: perhaps a server still announces the one before.
    #[serde(alias = "byHand", default, skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
}

/// More removals in one day than phones make by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletionBurst {
    /// When a sweep noticed.
    pub noticed: u64,
    /// When the day began in which the most were removed.
    #[serde(default)]
    pub since: u64,
    /// How many backups were removed within a day.
    pub removed: u64,
    /// Of how many that were there before.
    pub of: u64,
}

/// The uploads of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DayOfUploads {
    /// Days since 1970, in UTC.
    pub day: u64,
    /// How many.
    pub uploads: u64,
}

/// How a scrub ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scrubbed {
    /// When.
    pub finished: u64,
    /// Backups that are as they were stored, or were seen for the first time.
    pub sound: u64,
    /// Backups that are too short to be any.
    pub short: u64,
    /// Backups whose contents changed without an upload.
    pub changed: u64,
    /// Backups that cannot be read.
    pub unreadable: u64,
}

impl Scrubbed {
    /// Backups that somebody has to look at.
    #[must_use]
    pub fn findings(&self) -> u64 {
        self.short + self.changed + self.unreadable
    }
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error("{}: not valid; `prune --force` writes it anew", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: serde_json::Error,
    },
    /// The file cannot be written.
    #[error("{}: cannot be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The step that failed.
        #[source]
        source: durable::Error,
    },
}

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFile {
    path: PathBuf,
    /// Where a file is that is not whole yet; leftovers are swept there.
    tmp: PathBuf,
}

impl StateFile {
    /// The state of a data directory.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            path: directory.join("state.json"),
            tmp: directory.join("tmp"),
        }
    }

    /// Reads the state; where there is no file, nothing is remembered.
    ///
    /// # Errors
    /// When the file cannot be read or is not valid.
    pub fn load(&self) -> Result<State, Error> {
        let path = || self.path.clone();
        match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| Error::Syntax {
                path: path(),
                source,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(source) => Err(Error::Read {
                path: path(),
                source,
            }),
        }
    }

    /// Reads the state, changes it and replaces the file durably. Programs that do this at once do it one after the
    /// other.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is not valid.
    pub fn update(&self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        self.replace(|| self.load(), change)
    }

    /// As [`StateFile::update`], where a file that is not valid counts as none.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn update_or_reset(&self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        let load = || match self.load() {
            Err(Error::Syntax { .. }) => Ok(State::default()),
            other => other,
        };
        self.replace(load, change)
    }

    /// Lets `work` read or change the state on a thread where that may wait for the disk.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let file = self.clone();
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || work(&file))
            .await
            .unwrap_or_else(|_| {
                // A panic's own text may hold anything; the panic hook says where it was.
                let source = io::Error::other("the task panicked");
                Err(Error::Read { path, source })
            })
    }

    fn replace(
        &self,
        load: impl FnOnce() -> Result<State, Error>,
        change: impl FnOnce(&mut State),
    ) -> Result<(), Error> {
        let failed = |source| Error::Write {
            path: self.path.clone(),
            source,
        };
        let _lock = durable::lock_directory(durable::parent(&self.path)).map_err(failed)?;
        let mut state = load()?;
        change(&mut state);
        let mut text = serde_json::to_vec_pretty(&state).map_err(|source| Error::Syntax {
            path: self.path.clone(),
            source,
        })?;
        text.push(b'\n');
        durable::replace_by_way_of(&self.tmp, &self.path, &text).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_kept_and_what_others_wrote_stays() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("tmp")).unwrap();
        let file = StateFile::in_directory(directory.path());
        assert_eq!(file.load().unwrap(), State::default());

        file.update(|state| state.last_sweep = Some(1)).unwrap();
        file.update(|state| state.acknowledged_until = Some(2))
            .unwrap();

        let expected = State {
            last_sweep: Some(1),
            acknowledged_until: Some(2),
            ..State::default()
        };
        assert_eq!(file.load().unwrap(), expected);
    }

    #[test]
    fn the_keys_of_earlier_versions_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let text = br#"{
            "lastSweep": 1,
            "promises": [{ "since": 0, "keepSeconds": 2, "byHand": true }],
            "burst": { "noticed": 3, "since": 4, "removed": 5, "of": 6 },
            "confirmed": 7
        }"#;
        durable::replace(&directory.path().join("state.json"), text).unwrap();

        let expected = State {
            last_sweep: Some(1),
            retention_periods: vec![RetentionPeriod {
                since: 0,
                keep_seconds: 2,
                manual: true,
            }],
            deletion_burst: Some(DeletionBurst {
                noticed: 3,
                since: 4,
                removed: 5,
                of: 6,
            }),
            acknowledged_until: Some(7),
            ..State::default()
        };
        assert_eq!(
            StateFile::in_directory(directory.path()).load().unwrap(),
            expected
        );
    }

    #[test]
    fn a_file_that_is_not_valid_is_an_error_that_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("tmp")).unwrap();
        let file = StateFile::in_directory(directory.path());
        durable::replace(&directory.path().join("state.json"), b"{\"lastSweep\": -1").unwrap();

        let error = file.load().unwrap_err().to_string();
        assert!(error.contains("prune --force"), "{error}");
        assert!(file.update(|_| ()).is_err());

        file.update_or_reset(|state| state.last_sweep = Some(3))
            .unwrap();
        assert_eq!(file.load().unwrap().last_sweep, Some(3));
    }
}
