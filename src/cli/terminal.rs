//! Output to standard output and standard error.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

/// The context of a failed write.
const WRITE: &str = "write to standard output";

/// Writes a line of the result to standard output.
pub(super) fn say(line: impl Display) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{line}").context(WRITE)
}

/// Writes bytes of the result to standard output.
pub(super) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .context(WRITE)
}

/// Writes a line to standard error. Errors are ignored: there is no other place to report them.
pub(super) fn warn(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// A progress bar on standard error, if that is a terminal. A `total` of 0 is unknown.
pub(super) fn progress(total: u64, what: &'static str) -> ProgressBar {
    let (bar, template) = if total == 0 {
        (ProgressBar::new_spinner(), "{msg} {spinner} {human_pos}")
    } else {
        (
            ProgressBar::new(total),
            "{msg} [{bar:30}] {human_pos} of {human_len}, {eta} left",
        )
    };
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    bar.with_style(style).with_message(what)
}

/// True if the reader of standard output closed the pipe.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
