//! What is written to standard output and standard error.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line of the answer to standard output.
pub(super) fn say(line: impl Display) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{line}").map_err(Into::into)
}

/// Writes bytes of the answer to standard output.
pub(super) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(Into::into)
}

/// Writes a line to standard error. There is nobody to tell when that fails.
pub(super) fn warn(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Whether the reader of standard output went away.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
