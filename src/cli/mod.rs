//! Command line: one file for each command, with its arguments and its output.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 success, 1
//! failure, 2 usage or configuration error. Secrets are never arguments.

mod account;
mod admin;
mod argument;
mod audit;
mod check;
mod client;
mod demo;
mod first_account;
mod healthcheck;
mod init;
mod log;
mod process;
mod prune;
mod runtime;
mod scrub;
mod secret;
mod serve;
mod source;
mod status;
mod systemd;
mod terminal;
mod trash;
mod when;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::runtime::{AUTHORITY_HINT, UsageError};
use crate::config::{self, Config};
use crate::server::StartError;

/// The command-line arguments.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Arguments {
    /// The configuration file [default: config.json]
    #[arg(long, global = true, value_name = "FILE", env = "SAFE_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve,
    /// Set up a demo server, test it as a phone would use it, and continue to serve
    Demo(demo::Demo),
    /// Create a configuration, an account and a development certificate
    Init(init::Init),
    /// Check for problems that would stop the server now or later
    Check(check::Check),
    /// Add, list or remove accounts
    #[command(subcommand)]
    Account(account::Account),
    /// Remove expired backups and old trash, as the server does every hour
    Prune(prune::Prune),
    /// List, restore or erase deleted and expired backups
    #[command(subcommand)]
    Trash(trash::Trash),
    /// Read every backup and report damaged ones
    Scrub(scrub::Scrub),
    /// Show the server's status
    Status(status::StatusCommand),
    /// Exit with 0 if the running server is alive (for containers)
    Healthcheck,
    /// Create, encrypt, upload, download and decrypt backups as a phone does
    #[command(subcommand)]
    Client(client::Client),
}

/// Runs the command.
///
/// # Errors
/// With the error and its causes, for [`report`].
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    process::harden();
    // The default TLS provider, for libraries that rely on it.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let file = arguments.config;
    let read = || Config::load(file.as_deref(), std::env::vars());
    let load = || read().map_err(anyhow::Error::from);
    match arguments.command {
        Command::Serve => {
            let path = file.clone();
            let path = path.unwrap_or_else(|| PathBuf::from(config::DEFAULT_FILE));
            serve::run(path, move || {
                Config::load(file.as_deref(), std::env::vars())
            })
        }
        Command::Demo(command) => command.run(),
        Command::Init(command) => command.run(file),
        Command::Check(command) => command.run(&load()?),
        Command::Account(command) => command.run(&load()?),
        Command::Prune(command) => command.run(&load()?),
        Command::Trash(command) => command.run(&load()?),
        Command::Scrub(command) => command.run(&load()?),
        Command::Status(command) => command.run(&load()?),
        Command::Healthcheck => healthcheck::run(&load()?),
        Command::Client(command) => command.run(),
    }
}

/// Prints an error with its causes and a hint, and returns the exit code.
#[must_use]
pub fn report(error: &anyhow::Error) -> ExitCode {
    if terminal::is_broken_pipe(error) {
        // The reader of the output closed the pipe: no failure.
        return ExitCode::SUCCESS;
    }
    terminal::warn(&format!("error: {error:#}"));
    let (problems, code) = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(config::Error::Invalid { problems, .. }), _) => (problems.as_slice(), 2),
        (Some(config::Error::Missing(_)), _) => {
            terminal::warn("hint: `init` creates one; `demo` runs without one");
            (&[][..], 2)
        }
        (Some(_), _) => (&[][..], 2),
        (_, Some(StartError::Configuration(problems))) => (problems.as_slice(), 2),
        _ => (&[][..], if error.is::<UsageError>() { 2 } else { 1 }),
    };
    for problem in problems {
        terminal::warn(&format!("  {problem}"));
    }
    if matches!(error.downcast_ref(), Some(StartError::Listen { source, .. })
        if source.kind() == std::io::ErrorKind::AddrInUse)
    {
        terminal::warn("hint: the address is already in use, perhaps by this server");
    }
    if matches!(error.downcast_ref::<crate::client::Error>(), Some(error) if error.is_unknown_authority())
    {
        terminal::warn(AUTHORITY_HINT);
    }
    ExitCode::from(code)
}
