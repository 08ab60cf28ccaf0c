//! The state as a file: `state.json` in the data directory, replaced whole under the directory's
//! lock.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;

use super::{Change, Error, IfInvalid, State, StateStore};
use crate::durable;

/// The state of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFile {
    path: PathBuf,
    /// Where a file is that is not whole yet; leftovers are swept there.
    tmp: PathBuf,
}

impl StateFile {
    /// The file in this data directory.
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
        let place = || self.place();
        match fs::read(&self.path) {
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

    /// Reads the state, changes it and replaces the file durably. Programs that do this at once do
    /// it one after the other.
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
    pub fn update_or_begin_anew(&self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        let load = || match self.load() {
            Err(Error::Syntax { .. }) => Ok(State::default()),
            other => other,
        };
        self.replace(load, change)
    }

    /// Lets `work` read or change the state on a thread where that may wait for the disk.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let file = self.clone();
        tokio::task::spawn_blocking(move || work(&file))
            .await
            .unwrap_or_else(|_| {
                // A panic's own text may hold anything; the panic hook says where it was.
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
        durable::replace_by_way_of(&self.tmp, &self.path, &text).map_err(failed)
    }
}

impl StateStore for StateFile {
    fn load(&self) -> BoxFuture<'_, Result<State, Error>> {
        Box::pin(self.aside(Self::load))
    }

    fn apply(&self, change: Change, if_invalid: IfInvalid) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.aside(move |file| match if_invalid {
            IfInvalid::Fail => file.update(change),
            IfInvalid::StartEmpty => file.update_or_begin_anew(change),
        }))
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
        file.update(|state| state.confirmed = Some(2)).unwrap();

        let expected = State {
            last_sweep: Some(1),
            confirmed: Some(2),
            ..State::default()
        };
        assert_eq!(file.load().unwrap(), expected);
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

        file.update_or_begin_anew(|state| state.last_sweep = Some(3))
            .unwrap();
        assert_eq!(file.load().unwrap().last_sweep, Some(3));
    }
}
