//! Manual pages and shell completions, generated from the definition of the command line.
//!
//! Not a command of the program, because the program would then contain the generators.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use threema_safe_server::cli::Arguments;

/// The program's name, as packages install it.
pub(crate) const NAME: &str = "threema-safe-server";

/// Writes `man/NAME*.1` and `completions/`, with one file for each shell under the name that the
/// shell expects.
///
/// # Errors
/// When a directory or a file cannot be written.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    let [pages, completions] = ["man", "completions"].map(|name| folder.join(name));
    for folder in [&pages, &completions] {
        std::fs::create_dir_all(folder)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let file =
            clap_complete::generate_to(shell, &mut Arguments::command(), NAME, &completions)?;
        if shell == Shell::Bash {
            repair_names(&file)?;
        }
    }
    let program = program();
    let source = format!("{NAME} {}", program.get_version().unwrap_or_default());
    write_page(&program, &source, &pages)
}

/// The command line with all its subcommands, complete.
pub(crate) fn program() -> clap::Command {
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    program
}

/// Repairs the names of functions in the completions for bash.
///
/// `clap_complete` 4.6.11 replaces the hyphens in the program's name by `__` where the script
/// parses the command line, but by `__subcmd__`, as between subcommands, where it selects the
/// candidates. Without the repair, the script has no candidates after `threema-safe-server account`
/// (clap-rs/clap#6421).
fn repair_names(bash: &Path) -> io::Result<()> {
    let text = std::fs::read_to_string(bash)?;
    let read = NAME.replace('-', "__");
    let offered = NAME.replace('-', "__subcmd__");
    let mut file = std::fs::File::options()
        .write(true)
        .truncate(true)
        .open(bash)?;
    file.write_all(text.replace(&offered, &read).as_bytes())
}

/// Writes the page of a command and those of its subcommands; `source` is the program's name and
/// version.
fn write_page(command: &clap::Command, source: &str, folder: &Path) -> io::Result<()> {
    for inner in command.get_subcommands() {
        write_page(inner, source, folder)?;
    }
    let page = Man::new(command.clone())
        // An empty date would be omitted, and the next field would be parsed as the date.
        .date(" ")
        .source(source)
        .manual("Threema Safe backups");
    page.generate_to(folder).map(drop)
}
