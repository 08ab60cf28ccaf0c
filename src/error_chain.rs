//! Formatting of an error and its causes.

use std::error::Error;

/// Formats an error and its causes on one line, from the outermost to the innermost, separated by
/// colons.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
