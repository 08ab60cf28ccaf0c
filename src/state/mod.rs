//! State between runs: the [`StateStore`] trait, and its implementation as a file.
//!
//! The state is the highest time seen, the time of the last sweep, the retention periods promised
//! to clients, the deletion burst and its acknowledgement, the uploads of each day, and the last
//! scrub. If it is lost, no backup is lost, but sweeps have less data for their safety checks. It
//! is read and replaced as a whole under a lock between processes, because commands run beside the
//! server.

mod clock;
mod data;
mod file;

use std::error::Error as StdError;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;

use crate::lock::lock;

pub use clock::{ClockJump, ClockState, Correction, DayOfExpiry, FirstSweep, TimeSpan};
pub use data::{DayOfUploads, DeletionBurst, RetentionPeriod, Scrubbed, State};
pub use file::StateFile;

/// A cause; its type depends on the backend.
type Cause = Box<dyn StdError + Send + Sync>;

/// An error in reading or writing the state.
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
    /// The state is not in the format of this program.
    #[error("{place}: not a valid state; the next sweep keeps it aside and begins anew")]
    Syntax {
        /// Where the state is kept.
        place: String,
        /// Position and kind of the error.
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

/// A change of the state. A store without locks calls it again, with the newer state, if another
/// process has written in between.
pub type Change = Box<dyn FnMut(&mut State) + Send>;

/// What a change does if the stored state is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfInvalid {
    /// It fails.
    Fail,
    /// It is applied to an empty state, which replaces the invalid one. That is kept aside.
    StartEmpty,
}

/// Storage of the [`State`] of one server, beside its backups.
pub trait StateStore: Send + Sync + 'static {
    /// Reads the state; the default if there is none.
    fn load(&self) -> BoxFuture<'_, Result<State, Error>>;

    /// Reads the state, changes it and replaces it; durable when it returns. Concurrent changes are
    /// applied one after the other: none is lost.
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
            *lock(&slot) = Some(value);
        };
        self.apply(Box::new(change), IfInvalid::Fail).await?;
        let value = lock(&returned).take();
        Ok(value.expect("a state store applies a change before it reports success"))
    }
}
