//! The command line: one file for each command, with its arguments and its words.
//!
//! Answers go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed,
//! 2 usage or configuration. No secret is ever an argument.

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

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config::{self, Config, Storage};
use crate::server::StartError;
use crate::state::StateFile;
use crate::store::FileStore;

/// What was typed.
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
    /// Make a server from nothing, play a phone against it, and go on serving
    Demo(demo::Demo),
    /// Write a configuration, an account and a development certificate
    Init(init::Init),
    /// Look for everything that `serve` would refuse, and what would fail later
    Check(check::Check),
    /// Add, list or remove the accounts that may come in
    #[command(subcommand)]
    Account(account::Account),
    /// Remove backups that were not renewed, and old trash, as the server does every hour
    Prune(prune::Prune),
    /// Look at what phones deleted and what expired, and bring it back
    #[command(subcommand)]
    Trash(trash::Trash),
    /// Read every backup and say which are damaged
    Scrub(scrub::Scrub),
    /// Say how the running server is
    Status(status::StatusCommand),
    /// Ask the running server whether it is alive; the exit code tells (for containers)
    Healthcheck,
    /// Speak the format and the protocol of a phone by hand
    #[command(subcommand)]
    Client(client::Client),
}

/// What to do about a server whose certificate nobody trusted has made.
const AUTHORITY_HINT: &str = "hint: --ca FILE trusts an authority of your own, such as \
     certs/development-ca.pem, which init makes";

/// Something was typed that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Runs the command.
///
/// # Errors
/// With what went wrong and its causes, for [`report`].
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    process::harden();
    // Where a library asks for the provider of TLS, there is one.
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

/// Prints an error with its causes and what to do, and chooses the exit code.
#[must_use]
pub fn report(error: &anyhow::Error) -> ExitCode {
    if terminal::is_broken_pipe(error) {
        // Whoever read our output has seen enough.
        return ExitCode::SUCCESS;
    }
    terminal::warn(&format!("error: {error:#}"));
    let (problems, code) = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(config::Error::Invalid { problems, .. }), _) => (problems.as_slice(), 2),
        (Some(config::Error::Missing(_)), _) => {
            terminal::warn("hint: `init` writes one, and `demo` shows everything without one");
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
        terminal::warn("hint: something listens there already, perhaps this server");
    }
    if matches!(error.downcast_ref::<crate::client::Error>(), Some(error) if error.is_unknown_authority())
    {
        terminal::warn(AUTHORITY_HINT);
    }
    ExitCode::from(code)
}

/// The store of a configuration, and what is remembered beside it: beside a running server, or without one.
fn open_store(config: &Config) -> anyhow::Result<(FileStore, StateFile)> {
    let Storage::Files { directory } = &config.storage;
    let store = FileStore::open(directory)?;
    Ok((store, StateFile::in_directory(directory)))
}

/// 0 where everything went well, else 1.
fn exit_code(all_went_well: bool) -> ExitCode {
    if all_went_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A runtime for one command that waits for little.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the asynchronous runtime")?
        .block_on(work)
}

/// The wall clock, read here and nowhere below.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line is where time comes from"
)]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
