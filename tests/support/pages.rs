//! Manual pages and completions as packages get them, and the commands that they describe.

use clap::CommandFactory;
use threema_safe_server::cli::Arguments;

#[expect(
    dead_code,
    reason = "the file is a program too; its `main` is not called here"
)]
#[path = "../../packaging/pages.rs"]
mod generator;

pub(crate) use generator::write as write_pages;

pub(crate) const NAME: &str = "threema-safe-server";

/// Every command with the words that call it, from the program itself on.
pub(crate) fn commands() -> Vec<(Vec<String>, clap::Command)> {
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    let mut found = vec![(vec![NAME.to_owned()], program)];
    let mut next = 0;
    while let Some((words, command)) = found.get(next).cloned() {
        for inner in command.get_subcommands() {
            let words = [&words[..], &[inner.get_name().to_owned()]].concat();
            found.push((words, inner.clone()));
        }
        next += 1;
    }
    assert!(found.len() > 15, "{}", found.len());
    found
}

/// The long options of a command.
pub(crate) fn options(command: &clap::Command) -> Vec<&str> {
    let options = command.get_arguments();
    options.filter_map(clap::Arg::get_long).collect()
}
