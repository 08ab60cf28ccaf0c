//! Input of secrets: from a file, standard input, the environment or a prompt; never from an
//! argument.

use std::env::{self, VarError};
use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::Context;
use zeroize::{Zeroize, Zeroizing};

use super::runtime::UsageError;
use super::source;

/// The largest secret in bytes, longer than any password: larger files are not read to their end.
const LIMIT: usize = 64 << 10;

/// Reads a secret from `file` (`-` is standard input), or else from the environment variable
/// `variable`, or else from a prompt. One newline at its end is removed. `what` names the secret in
/// errors.
pub(super) fn read(
    file: Option<&Path>,
    variable: &str,
    what: &str,
) -> anyhow::Result<Zeroizing<String>> {
    let problem = match (file, env::var(variable).map(Zeroizing::new)) {
        (Some(path), _) => return from_file(path, what),
        (None, Ok(text)) => match without_line_end(text) {
            Some(text) => return Ok(text),
            None => format!("{variable} is empty"),
        },
        (None, Err(VarError::NotUnicode(_))) => format!("{variable} is not UTF-8"),
        (None, Err(VarError::NotPresent)) if io::stdin().is_terminal() => {
            return prompt_for(what, what);
        }
        (None, Err(VarError::NotPresent)) => {
            format!("no {what}: give a file (- is standard input), or set {variable}")
        }
    };
    Err(UsageError(problem).into())
}

/// As [`read`], for a new secret: a prompt asks twice, because a backup encrypted with a mistyped
/// password cannot be opened.
pub(super) fn read_new(
    file: Option<&Path>,
    variable: &str,
    what: &str,
) -> anyhow::Result<Zeroizing<String>> {
    let text = read(file, variable, what)?;
    if is_prompted(file, variable) && *text != *prompt_for(what, &format!("{what} again"))? {
        let text = format!("the two entries of the {what} differ");
        return Err(UsageError(text).into());
    }
    Ok(text)
}

/// True if the secret comes from a prompt: there is neither a file nor a variable.
fn is_prompted(file: Option<&Path>, variable: &str) -> bool {
    file.is_none() && env::var_os(variable).is_none()
}

fn prompt_for(what: &str, prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    let typed = rpassword::prompt_password(format!("{prompt}: "));
    Ok(Zeroizing::new(typed.with_context(|| {
        format!("read the {what} from the terminal")
    })?))
}

/// Reads a secret from a file; `-` is standard input.
pub(super) fn from_file(path: &Path, what: &str) -> anyhow::Result<Zeroizing<String>> {
    let name = path.display();
    let bytes = source::read(path, LIMIT);
    let bytes = bytes.with_context(|| format!("read the {what} from {name}"))?;
    let problem = match bytes.map(|mut bytes| String::from_utf8(std::mem::take(&mut *bytes))) {
        None => format!("{name} is too large to be a {what}"),
        Some(Err(error)) => {
            error.into_bytes().zeroize();
            format!("the {what} in {name} is not UTF-8")
        }
        Some(Ok(text)) => match without_line_end(Zeroizing::new(text)) {
            Some(text) => return Ok(text),
            None => format!("the {what} in {name} is empty"),
        },
    };
    Err(UsageError(problem).into())
}

/// The text without one newline (LF or CRLF) at its end; `None` if nothing is left.
fn without_line_end(mut text: Zeroizing<String>) -> Option<Zeroizing<String>> {
    let line = text.strip_suffix('\n');
    let length = line.map_or(text.len(), |line| {
        line.strip_suffix('\r').unwrap_or(line).len()
    });
    text.truncate(length);
    (!text.is_empty()).then_some(text)
}
