//! Start errors: why a server cannot be opened or bound.

use std::io;

use crate::config::{Listen, Problem};

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Files or addresses that the configuration names cannot be used; all problems are listed.
    #[error("invalid configuration")]
    Configuration(Vec<Problem>),
    /// An inherited socket cannot be used.
    #[error("cannot use an inherited socket")]
    Inherited(#[source] io::Error),
    /// An address cannot be bound.
    #[error("{key}: cannot listen on {address}")]
    Listen {
        /// The configuration key of the address.
        key: &'static str,
        /// The address.
        address: Listen,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}
