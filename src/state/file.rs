//! State file: `state.json` in the data directory, replaced atomically under the directory's lock.
//! A file that is not valid is kept beside it, as `state.json.invalid`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;

use super::{Change, Error, IfInvalid, State, StateStore};
use crate::durable;

/// Of a longer file, in bytes, only the beginning is read, which is not valid. A state file has a
/// few kilobytes; one that is damaged or sparse can have any length.
const MAX_LENGTH: u64 = 4 << 20;
/// The largest number of invalid files kept aside; the last one is replaced.
const MAX_INVALID: u32 = 9;

/// The state file of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFile {
    path: PathBuf,
    /// Directory for incomplete files; emptied at the start of a server.
    tmp: PathBuf,
}

impl StateFile {
    /// The state file of this data directory.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            path: directory.join("state.json"),
            tmp: directory.join("tmp"),
        }
    }

    /// Reads the state; the default if there is no file.
    ///
    /// # Errors
    /// When the file cannot be read or is not valid.
    pub fn load(&self) -> Result<State, Error> {
        let place = || self.place();
        match self.read() {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| Error::Syntax {
                place: place(),
                source,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(Error::Read {
                place: place(),
                source: error.into(),
            }),
        }
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let file = File::open(&self.path)?;
        file.take(MAX_LENGTH).read_to_end(&mut text)?;
        Ok(text)
    }

    /// Reads the state, changes it and replaces the file durably. A lock serializes concurrent
    /// processes.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is not valid.
    pub fn update(&self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        self.replace(|| self.load(), change)
    }

    /// As [`StateFile::update`], but an invalid file counts as a missing one, and is kept aside.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn update_or_reset(&self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        let load = || match self.load() {
            Err(Error::Syntax { .. }) => self.keep_aside().map(|()| State::default()),
            other => other,
        };
        self.replace(load, change)
    }

    /// Renames an invalid file; earlier ones are kept too, up to [`MAX_INVALID`].
    fn keep_aside(&self) -> Result<(), Error> {
        let aside = |number: u32| {
            let suffix = if number == 1 {
                String::new()
            } else {
                format!(".{number}")
            };
            self.path
                .with_file_name(format!("state.json.invalid{suffix}"))
        };
        // The caller holds the directory's lock.
        let is_free = |number: &u32| fs::symlink_metadata(aside(*number)).is_err();
        let number = (1..MAX_INVALID).find(is_free).unwrap_or(MAX_INVALID);
        fs::rename(&self.path, aside(number)).map_err(|source| Error::Write {
            place: self.place(),
            source: source.into(),
        })
    }

    /// Runs `work` on a blocking thread.
    async fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let file = self.clone();
        tokio::task::spawn_blocking(move || work(&file))
            .await
            .unwrap_or_else(|_| {
                // Without the panic message, which may contain anything; the panic hook logs the
                // location.
                Err(Error::Read {
                    place: self.place(),
                    source: "the task panicked".into(),
                })
            })
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn replace(
        &self,
        load: impl FnOnce() -> Result<State, Error>,
        change: impl FnOnce(&mut State),
    ) -> Result<(), Error> {
        let failed = |error: durable::Error| Error::Write {
            place: self.place(),
            source: error.into(),
        };
        let _lock = durable::lock_directory(durable::parent(&self.path)).map_err(failed)?;
        let mut state = load()?;
        change(&mut state);
        let mut text = serde_json::to_vec_pretty(&state).map_err(|source| Error::Syntax {
            place: self.place(),
            source,
        })?;
        text.push(b'\n');
        durable::replace_via(&self.tmp, &self.path, &text).map_err(failed)
    }
}

impl StateStore for StateFile {
    fn load(&self) -> BoxFuture<'_, Result<State, Error>> {
        Box::pin(self.spawn_blocking(Self::load))
    }

    fn apply(&self, change: Change, if_invalid: IfInvalid) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.spawn_blocking(move |file| match if_invalid {
            IfInvalid::Fail => file.update(change),
            IfInvalid::StartEmpty => file.update_or_reset(change),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::state::{DeletionBurst, RetentionPeriod};

    #[test]
    fn a_change_is_saved_and_keeps_the_fields_that_others_changed() {
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
                overwritten: 0,
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
    fn a_file_of_any_length_is_not_read_into_memory() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("tmp")).unwrap();
        let file = StateFile::in_directory(directory.path());
        file.update(|state| state.last_sweep = Some(1)).unwrap();
        let written = File::options().write(true).open(&file.path).unwrap();
        written.set_len(1 << 40).unwrap();

        assert!(matches!(file.load(), Err(Error::Syntax { .. })));
        file.update_or_reset(|state| state.last_sweep = Some(2))
            .unwrap();
        assert_eq!(file.load().unwrap().last_sweep, Some(2));
    }

    #[test]
    fn an_invalid_file_is_an_error_and_is_kept_aside_when_it_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("tmp")).unwrap();
        let file = StateFile::in_directory(directory.path());
        durable::replace(&directory.path().join("state.json"), b"{\"lastSweep\": -1").unwrap();

        let error = file.load().unwrap_err().to_string();
        assert!(error.contains("keeps it aside"), "{error}");
        assert!(file.update(|_| ()).is_err());

        file.update_or_reset(|state| state.last_sweep = Some(3))
            .unwrap();
        assert_eq!(file.load().unwrap().last_sweep, Some(3));
        let aside = |suffix: &str| {
            let name = format!("state.json.invalid{suffix}");
            fs::read(directory.path().join(name)).ok()
        };
        assert_eq!(aside("").unwrap(), b"{\"lastSweep\": -1");
        for number in 2..=12 {
            let text = format!("{number}");
            durable::replace(&directory.path().join("state.json"), text.as_bytes()).unwrap();
            file.update_or_reset(|state| state.last_sweep = Some(number))
                .unwrap();
            assert_eq!(file.load().unwrap().last_sweep, Some(number));
        }
        assert_eq!(aside("").unwrap(), b"{\"lastSweep\": -1");
        assert_eq!(aside(".2").unwrap(), b"2");
        assert_eq!((aside(".9").unwrap(), aside(".10")), (b"12".to_vec(), None));
    }
}
