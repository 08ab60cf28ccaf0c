//! Development tasks: `cargo xtask TASK`, an alias in `.cargo/config.toml`.
//!
//! | task | what it does |
//! | --- | --- |
//! | `pages FOLDER` | writes the manual pages and the shells' completions, for the Debian package |

mod pages;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context, bail};

const USAGE: &str = "usage: cargo xtask pages FOLDER";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [task, folder] if task == "pages" => {
            let folder = Path::new(folder);
            pages::write(folder).with_context(|| format!("write to {}", folder.display()))
        }
        _ => bail!("unknown task or wrong number of arguments; {USAGE}"),
    }
}
