//! Where secrets come from: a file, standard input, the environment or a prompt. Never an argument.

use std::io::{self, IsTerminal, Read};
use std::path::Path;

use anyhow::Context;
use zeroize::Zeroizing;

use super::UsageError;

/// Longer than any password; a file that is not one is not read to its end.
const LIMIT: u64 = 64 << 10;

/// Reads a secret from `file` (`-` is standard input), or else from `variable`, or else asks for it.
/// One newline at its end is not part of it.
pub(super) fn read(
    file: Option<&Path>,
    variable: &str,
    what: &str,
) -> anyhow::Result<Zeroizing<String>> {
    let text = match (file, std::env::var(variable)) {
        (Some(path), _) => from_file(path, what)?,
        (None, Ok(text)) => Zeroizing::new(text),
        (None, Err(_)) if io::stdin().is_terminal() => ask(what, what)?,
        (None, Err(_)) => {
            let text = format!("no {what}: name a file (- is standard input), or set {variable}");
            return Err(UsageError(text).into());
        }
    };
    Ok(text)
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
    file.is_none() && std::env::var(variable).is_err()
}

fn ask(what: &str, prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    let typed = rpassword::prompt_password(format!("{prompt}: "));
    Ok(Zeroizing::new(typed.with_context(|| {
        format!("read the {what} from the terminal")
    })?))
}

/// Reads a secret from a file; `-` is standard input.
pub(super) fn from_file(path: &Path, what: &str) -> anyhow::Result<Zeroizing<String>> {
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let opened = std::fs::File::open(path);
        Box::new(opened.with_context(|| format!("read the {what} from {}", path.display()))?)
    };
    let mut text = Zeroizing::new(String::new());
    source
        .take(LIMIT + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("read the {what} from {}", path.display()))?;
    if text.len() as u64 > LIMIT {
        return Err(UsageError(format!("{} is too large to be a {what}", path.display())).into());
    }
    let line_end = if text.ends_with("\r\n") {
        2
    } else {
        usize::from(text.ends_with('\n'))
    };
    let length = text.len() - line_end;
    text.truncate(length);
    if text.is_empty() {
        return Err(UsageError(format!("the {what} in {} is empty", path.display())).into());
    }
    Ok(text)
}
