//! Shared functions of the commands: the clock, the asynchronous runtime, exit codes, usage errors,
//! the configured storage.

use std::process::ExitCode;

use anyhow::Context;

use crate::config::Config;
use crate::store::{self, Access, Opened};

/// The hint for a server certificate from an unknown authority.
pub(super) const AUTHORITY_HINT: &str = "hint: --ca FILE adds a trusted certificate authority, such as \
     certs/development-ca.pem from `init`";

/// A usage error: invalid arguments, input or environment variables; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

/// Opens the configured storage. A server may be running on it at the same time.
pub(super) fn open_store(config: &Config, access: Access) -> anyhow::Result<Opened> {
    Ok(store::open(&config.storage, access)?)
}

/// Exit code 0 for success, else 1.
pub(super) fn exit_code(succeeded: bool) -> ExitCode {
    if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs a future on a single-threaded runtime.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the asynchronous runtime")?
        .block_on(work)
}

/// The wall clock. Only the command line reads it; all other modules get the time as an argument.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line is where time comes from"
)]
pub(super) fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
