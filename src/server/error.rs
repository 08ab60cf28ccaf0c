//! Errors at the start of a server.

use std::io;

use crate::config::{Listen, Problem};

/// An error at the start of a server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something that the configuration names cannot be used.
    #[error("invalid configuration")]
    Configuration(Vec<Problem>),
    /// An inherited socket cannot be used.
    #[error("cannot use an inherited socket")]
    Inherited(#[source] io::Error),
    /// An address cannot be bound.
    #[error("{key}: cannot listen on {address}")]
    Listen {
        /// The key of the configuration that names the address.
        key: &'static str,
        /// The address.
        address: Listen,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}
