//! What a server remembers from one run to the next: the [`StateStore`] trait and its
//! implementation as a file.
//!
//! Everything in it can be lost without losing a backup: a sweep then knows less, and is let
//! through by fewer of its guards. It is read and replaced whole, one program after the other,
//! because commands run beside the server.

mod data;
mod file;

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;

pub use data::{Burst, DayOfUploads, Promise, Scrubbed, State};
pub use file::StateFile;

/// A cause of any kind; what it is depends on the backend.
type Cause = Box<dyn StdError + Send + Sync>;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state cannot be read.
    #[error("{place}: cannot be read")]
    Read {
        /// Where the state is kept.
        place: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The state is not what this program writes.
    #[error("{place}: not valid; `prune --force` writes it anew")]
    Syntax {
        /// Where the state is kept.
        place: String,
        /// Where and what.
        #[source]
        source: serde_json::Error,
    },
    /// The state cannot be written.
    #[error("{place}: cannot be written")]
    Write {
        /// Where the state is kept.
        place: String,
        /// The cause.
        #[source]
        source: Cause,
    },
}

/// A change of the state. A store without locks calls it again, on the newer state, when another
/// program wrote first.
pub type Change = Box<dyn FnMut(&mut State) + Send>;

/// What a change is applied to where the state is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfInvalid {
    /// To nothing: the change fails.
    Fail,
    /// To an empty state, which replaces the one that is not valid.
    StartEmpty,
}

/// A place that keeps the [`State`], beside the backups of one server.
pub trait StateStore: Send + Sync + 'static {
    /// Reads the state; where there is none, nothing is remembered.
    fn load(&self) -> BoxFuture<'_, Result<State, Error>>;

    /// Reads the state, changes it and replaces it; durable when it returns. Programs that do this
    /// at once do it one after the other: no change is lost.
    fn apply(&self, change: Change, if_invalid: IfInvalid) -> BoxFuture<'_, Result<(), Error>>;
}

impl dyn StateStore + '_ {
    /// Changes the state as [`StateStore::apply`] does, and returns what `change` returned for the
    /// state that it changed.
    ///
    /// # Errors
    /// When the state cannot be read or written, or is not valid.
    pub async fn update<T: Send + 'static>(
        &self,
        mut change: impl FnMut(&mut State) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let returned = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&returned);
        let change = move |state: &mut State| {
            let value = change(state);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        };
        self.apply(Box::new(change), IfInvalid::Fail).await?;
        let value = returned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Ok(value.expect("a state store applies a change before it reports success"))
    }
}

/// Whole seconds since 1970, as times are remembered; 0 for what was before.
#[must_use]
pub fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
