//! `status`: what the running server says of itself.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::admin;
use super::terminal::say;
use super::when::unix_date;
use crate::config::Config;
use crate::server::{STATUS_PATH, Status};

#[derive(Debug, Args)]
pub(super) struct StatusCommand {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl StatusCommand {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let text = admin::ask(config, STATUS_PATH)?;
        let status: Status = serde_json::from_str(&text)
            .context("understand the server's status; is it another version?")?;
        if self.json {
            say(text)?;
        } else {
            print(&status)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(status: &Status) -> anyhow::Result<()> {
    say(format!(
        "server    version {}, up since {}",
        status.version,
        unix_date(status.started)
    ))?;
    match &status.sweep {
        None => say("sweep     none yet in this run")?,
        Some(sweep) => {
            let when = unix_date(sweep.began);
            match &sweep.report {
                None => say(format!("sweep     {when} broke off"))?,
                Some(report) => {
                    say(format!("backups   {}", report.kept))?;
                    say(format!("trash     {}", report.trash_kept))?;
                    say(format!(
                        "sweep     {when}: {} removed, {} erased from the trash",
                        report.removed, report.trash_erased
                    ))?;
                }
            }
        }
    }
    match status.scrub {
        None => say("scrub     none has ended yet")?,
        Some(scrub) => say(format!(
            "scrub     {}: {} sound, {} damaged",
            unix_date(scrub.finished),
            scrub.sound,
            scrub.findings()
        ))?,
    }
    if let Some(certificate) = status.certificate.as_ref().filter(|its| its.ends > 0) {
        say(format!(
            "tls       certificate until {}",
            unix_date(certificate.ends)
        ))?;
        if let Some(acme) = &certificate.acme {
            say(format!("renewal   {}", unix_date(acme.next_order)))?;
        }
    }
    let attention = status.attention();
    if attention.is_empty() {
        say("attention nothing needs any")?;
    }
    for line in attention {
        say(format!("attention {line}"))?;
    }
    Ok(())
}
