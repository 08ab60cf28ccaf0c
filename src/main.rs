//! Entry point: parses the arguments, runs one command, reports its error, sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use threema_safe_server::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => cli::report(&error),
    }
}
