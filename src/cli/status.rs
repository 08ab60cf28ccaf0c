//! `status`: shows the running server's status.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use indicatif::BinaryBytes;

use super::admin;
use super::terminal::say;
use super::when::unix_date;
use crate::config::Config;
use crate::server::{STATUS_PATH, Severity, Status};

/// The exit code of Nagios for an unknown state.
const UNKNOWN: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct StatusCommand {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// Print one line and exit as Nagios expects: 0 good, 1 warning, 2 critical, 3 unknown
    #[arg(long, conflicts_with = "json")]
    check: bool,
}

impl StatusCommand {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        if self.check {
            return check(config);
        }
        let text = admin::get(config, STATUS_PATH)?;
        let status = parse(&text)?;
        if self.json {
            say(text)?;
        } else {
            print(&status)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn parse(text: &str) -> anyhow::Result<Status> {
    serde_json::from_str(text)
        .context("parse the server's status; does the server run the same version?")
}

/// Prints one line in the format of a Nagios plugin, with performance data after a vertical bar.
fn check(config: &Config) -> anyhow::Result<ExitCode> {
    let text = match admin::get(config, STATUS_PATH) {
        Ok(text) => text,
        Err(error) => {
            say(one_line("CRITICAL", &[format!("{error:#}")], ""))?;
            return Ok(ExitCode::from(2));
        }
    };
    let status = match parse(&text) {
        Ok(status) => status,
        Err(error) => {
            say(one_line("UNKNOWN", &[format!("{error:#}")], ""))?;
            return Ok(ExitCode::from(UNKNOWN));
        }
    };
    let alerts = status.alerts();
    let (word, code) = match alerts.first().map(|alert| alert.severity) {
        None | Some(Severity::Good) => ("OK", 0),
        Some(Severity::Warning) => ("WARNING", 1),
        Some(Severity::Critical) => ("CRITICAL", 2),
    };
    let mut lines: Vec<_> = alerts.into_iter().map(|alert| alert.text).collect();
    if lines.is_empty() {
        lines.push(match status.report() {
            Some(report) => format!(
                "{} backups, {} of them renewed within a day",
                report.kept,
                report.ages.younger_than(1)
            ),
            None => "no sweep has completed yet".to_owned(),
        });
    }
    say(one_line(word, &lines, &figures(&status)))?;
    Ok(ExitCode::from(code))
}

fn one_line(word: &str, lines: &[String], figures: &str) -> String {
    // A vertical bar would start the performance data.
    let text = lines.join("; ").replace(['\n', '|'], " ");
    let bar = if figures.is_empty() { "" } else { " | " };
    format!("SAFE {word} - {text}{bar}{figures}")
}

/// The performance data of the plugin line, for the graphs of Nagios.
fn figures(status: &Status) -> String {
    let mut figures = Vec::new();
    if let Some(report) = status.report() {
        let renewed = report.ages.younger_than(1);
        figures.push(format!("backups={}", report.kept));
        figures.push(format!("renewed_within_a_day={renewed}"));
        figures.push(format!(
            "expiring_in_14_days={}",
            report.expiring_in_14_days
        ));
        figures.push(format!("trash={}", report.trash_kept));
        figures.push(format!("stored={}B", report.stored_bytes()));
    }
    if let Some(free) = status.storage.free_bytes {
        figures.push(format!("free={free}B"));
    }
    if let Some(certificate) = &status.certificate {
        let left = certificate.ends.saturating_sub(status.now);
        figures.push(format!("certificate_left={left}s"));
    }
    figures.join(" ")
}

fn print(status: &Status) -> anyhow::Result<()> {
    let state = if status.draining { ", stopping" } else { "" };
    say(format!(
        "server      version {}, up since {}{state}",
        status.version,
        unix_date(status.started)
    ))?;
    if let Some(certificate) = status
        .certificate
        .as_ref()
        .filter(|certificate| certificate.ends > 0)
    {
        say(format!("certificate until {}", unix_date(certificate.ends)))?;
        if let Some(acme) = &certificate.acme {
            say(format!("renewal     {}", unix_date(acme.next_order)))?;
        }
    }
    match (&status.storage.problem, status.storage.free_bytes) {
        (Some(_), _) => say("storage     not writable")?,
        (None, Some(free)) => say(format!("storage     {} free", BinaryBytes(free)))?,
        (None, None) => say("storage     writable")?,
    }
    match &status.sweep {
        None => say("sweep       none yet since the start")?,
        Some(sweep) => {
            let when = unix_date(sweep.began);
            match &sweep.report {
                None => say(format!("sweep       {when} aborted"))?,
                Some(report) => {
                    say(format!(
                        "backups     {}: {} renewed within a day, {} within a week",
                        report.kept,
                        report.ages.younger_than(1),
                        report.ages.younger_than(7)
                    ))?;
                    say(format!(
                        "expiring    {} within 14 days, {} within 30",
                        report.expiring_in_14_days, report.expiring_in_30_days
                    ))?;
                    say(format!(
                        "sizes       {} use more than 80 % of maxBackupBytes",
                        report.sizes.over_80_percent()
                    ))?;
                    say(format!("trash       {}", report.trash_kept))?;
                    say(format!(
                        "sweep       {when}: {} removed, {} erased from the trash",
                        report.removed, report.trash_erased
                    ))?;
                }
            }
        }
    }
    let today = status.uploads.last().map_or(0, |day| day.uploads);
    say(format!("uploads     {today} today (UTC)"))?;
    match status.scrub {
        None => say("scrub       none has completed yet")?,
        Some(scrub) => say(format!(
            "scrub       {}: {} sound, {} damaged",
            unix_date(scrub.finished),
            scrub.sound,
            scrub.findings()
        ))?,
    }
    let alerts = status.alerts();
    if alerts.is_empty() {
        say("alerts      none")?;
    }
    for alert in alerts {
        say(format!(
            "alerts      {}: {}",
            alert.severity.label(),
            alert.text
        ))?;
    }
    Ok(())
}
