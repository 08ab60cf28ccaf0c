//! Why a server does not start.

use std::io;

use crate::config::{Listen, Problem};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the configuration names cannot be used.
    #[error("the configuration names things that cannot be used")]
    Configuration(Vec<Problem>),
    /// A socket that was handed over cannot be used.
    #[error("a socket that was handed over cannot be used")]
    Given(#[source] io::Error),
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}")]
    Listen {
        /// The key of the configuration that names the address.
        key: &'static str,
        /// The address.
        address: Listen,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
