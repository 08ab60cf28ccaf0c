//! `prune`: one sweep by hand, beside a running server or without one.

use std::process::ExitCode;

use clap::Args;

use super::block_on;
use super::terminal::say;
use crate::config::{Config, Storage};
use crate::retention::{self, Mode};
use crate::server::retention_of;
use crate::store::FileStore;

#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Only count; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Prune {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let Storage::Files { directory } = &config.storage;
        let store = FileStore::open(directory)?;
        let mode = if self.dry_run {
            Mode::DryRun
        } else {
            Mode::Remove
        };
        let report = block_on(async {
            Ok(retention::sweep(&store, retention_of(config), super::now(), mode).await?)
        })?;
        if self.json {
            say(serde_json::to_string(&report)?)?;
        } else {
            let (removed, erased) = match mode {
                Mode::Remove => ("removed", "erased"),
                Mode::DryRun => ("would be removed", "would be erased"),
            };
            say(format!(
                "backups: {} kept, {} {removed}",
                report.kept, report.removed
            ))?;
            say(format!(
                "trash:   {} kept, {} {erased}",
                report.trash_kept, report.trash_erased
            ))?;
            if report.failed > 0 {
                say(format!(
                    "{} files could not be looked at or erased",
                    report.failed
                ))?;
            }
        }
        Ok(if report.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
