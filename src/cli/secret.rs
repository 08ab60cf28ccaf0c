//! Where secrets come from: a file, standard input, the environment or a prompt. Never an argument.

use std::env::{self, VarError};
use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::Context;
use zeroize::{Zeroize, Zeroizing};

use super::{UsageError, source};

/// Longer than any password; a file that is not one is not read to its end.
const LIMIT: usize = 64 << 10;

/// Reads a secret from `file` (`-` is standard input), or else from `variable`, or else asks for it.
/// One newline at its end is not part of it.
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
        (None, Err(VarError::NotPresent)) if io::stdin().is_terminal() => return ask(what, what),
        (None, Err(VarError::NotPresent)) => {
            format!("no {what}: name a file (- is standard input), or set {variable}")
        }
    };
    Err(UsageError(problem).into())
}

/// Like [`read`]; at a prompt it has to be typed twice, because what is locked with a typing error stays
/// locked.
pub(super) fn read_new(
    file: Option<&Path>,
    variable: &str,
    what: &str,
) -> anyhow::Result<Zeroizing<String>> {
    let text = read(file, variable, what)?;
    if is_asked_for(file, variable) && *text != *ask(what, &format!("{what} again"))? {
        let text = format!("the {what} was not typed the same twice");
        return Err(UsageError(text).into());
    }
    Ok(text)
}

/// Whether there is neither a file nor a variable.
fn is_asked_for(file: Option<&Path>, variable: &str) -> bool {
    file.is_none() && env::var_os(variable).is_none()
}

fn ask(what: &str, prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    let typed = rpassword::prompt_password(format!("{prompt}: "));
    Ok(Zeroizing::new(typed.with_context(|| {
        format!("read the {what} from the terminal")
    })?))
}

/// Reads a secret from a file; `-` is standard input.
pub(super) fn from_file(path: &Path, what: &str) -> anyhow::Result<Zeroizing<String>> {
    let place = path.display();
    let bytes = source::read(path, LIMIT);
    let bytes = bytes.with_context(|| format!("read the {what} from {place}"))?;
    let problem = match bytes.map(|mut bytes| String::from_utf8(std::mem::take(&mut *bytes))) {
        None => format!("{place} is too large to be a {what}"),
        Some(Err(error)) => {
            error.into_bytes().zeroize();
            format!("the {what} in {place} is not UTF-8")
        }
        Some(Ok(text)) => match without_line_end(Zeroizing::new(text)) {
            Some(text) => return Ok(text),
            None => format!("the {what} in {place} is empty"),
        },
    };
    Err(UsageError(problem).into())
}

/// The text without one newline at its end, if there is something before that.
fn without_line_end(mut text: Zeroizing<String>) -> Option<Zeroizing<String>> {
    let line = text.strip_suffix('\n');
    let length = line.map_or(text.len(), |line| {
        line.strip_suffix('\r').unwrap_or(line).len()
    });
    text.truncate(length);
    (!text.is_empty()).then_some(text)
}
