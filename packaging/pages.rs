//! Generator of manual pages and shell completions from the definition of the command line:
//! `cargo run --example pages -- FOLDER`. Not a command of the program, to keep the binary small.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use threema_safe_server::cli::Arguments;

const NAME: &str = "threema-safe-server";

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1);
    let folder = PathBuf::from(folder.context("missing argument: the folder to write to")?);
    write(&folder).with_context(|| format!("write to {}", folder.display()))
}

/// Writes `man/NAME*.1`, and `completions/` with one file per shell, named as the shell expects it.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    let [pages, completions] = ["man", "completions"].map(|name| folder.join(name));
    for folder in [&pages, &completions] {
        std::fs::create_dir_all(folder)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let file =
            clap_complete::generate_to(shell, &mut Arguments::command(), NAME, &completions)?;
        if shell == Shell::Bash {
            fix_subcommand_names(&file)?;
        }
    }
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    write_page(&program, &pages)
}

/// Works around clap-rs/clap#6421: clap_complete 4.6.11 escapes the hyphens in the program's name
/// differently where it offers words and where it reads them, so that it would offer nothing after
/// `threema-safe-server account`.
fn fix_subcommand_names(bash: &Path) -> io::Result<()> {
    let text = std::fs::read_to_string(bash)?;
    let read = NAME.replace('-', "__");
    let offered = NAME.replace('-', "__subcmd__");
    let mut file = std::fs::File::options()
        .write(true)
        .truncate(true)
        .open(bash)?;
    file.write_all(text.replace(&offered, &read).as_bytes())
}

/// Writes the page of a command and those of its subcommands.
fn write_page(command: &clap::Command, folder: &Path) -> io::Result<()> {
    for inner in command.get_subcommands() {
        write_page(inner, folder)?;
    }
    let page = Man::new(command.clone())
        // An empty date would be omitted, and the next field would take its place.
        .date(" ")
        .source(concat!("threema-safe-server ", env!("CARGO_PKG_VERSION")))
        .manual("Threema Safe backups");
    page.generate_to(folder).map(drop)
}
