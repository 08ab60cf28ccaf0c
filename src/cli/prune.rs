//! `prune`: runs one sweep, whether a server is running or not.

use std::process::ExitCode;

use clap::Args;

use super::audit::Audit;
use super::runtime::{self, block_on, exit_code, open_store};
use super::terminal::{say, warn};
use crate::config::Config;
use crate::retention::{self, Mode, Report};
use crate::server::retention_of;
use crate::store::{Access, Opened};

#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Only count backups, also by age; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove what has expired now, whatever its number, also in a first sweep
    #[arg(long, conflicts_with = "dry_run")]
    force: bool,
    /// Accept the system clock, whose time sweeps do not believe; check it before
    #[arg(long, conflicts_with = "dry_run")]
    accept_clock: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Prune {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let (mode, access) = match (self.dry_run, self.force) {
            (true, _) => (Mode::DryRun, Access::Read),
            (false, true) => (Mode::Force, Access::Command),
            (false, false) => (Mode::Remove, Access::Command),
        };
        let Opened { store, state } = open_store(config, access)?;
        let begin = |command| Audit::begin_making_room(config, command);
        let audit = self.command().map(begin).transpose()?;
        let now = runtime::now();
        let (was_accepted, report) = block_on(async {
            let was_accepted = self.accept_clock && retention::accept_clock(&*state, now).await?;
            let retention = retention_of(config);
            let report = retention::sweep(&*store, &*state, retention, now, mode).await?;
            Ok((was_accepted, report))
        })?;
        let is_audited = audit.is_none_or(|audit| {
            let mut audit = audit
                .with("removed", report.removed)
                .with("trashErased", report.trash_erased)
                .with("failed", report.failed);
            if self.accept_clock {
                audit = audit.with("clockAccepted", was_accepted);
            }
            match report.refused {
                Some(reason) => audit.with("reason", reason.label()).refused(),
                None => audit.done(),
            }
        });
        if self.accept_clock {
            warn(if was_accepted {
                "the clock is accepted"
            } else {
                "the clock was not accepted: it is not in doubt, or cannot be right"
            });
        }
        if self.json {
            say(serde_json::to_string(&report)?)?;
        } else {
            print(&report, mode)?;
        }
        let refused = report.refused.filter(|_| mode != Mode::DryRun);
        if let Some(reason) = refused {
            warn(&format!("error: nothing was removed: {reason}"));
            if self.force {
                warn("hint: --force confirms the number of backups, not the clock");
            }
            warn(&format!("hint: {}", reason.remedy()));
        }
        Ok(exit_code(
            report.failed == 0 && refused.is_none() && is_audited,
        ))
    }

    /// The command in the audit log; `None` if it changes nothing.
    fn command(&self) -> Option<&'static str> {
        match (self.dry_run, self.force, self.accept_clock) {
            (true, ..) => None,
            (false, true, true) => Some("prune --force --accept-clock"),
            (false, true, false) => Some("prune --force"),
            (false, false, true) => Some("prune --accept-clock"),
            (false, false, false) => Some("prune"),
        }
    }
}

fn print(report: &Report, mode: Mode) -> anyhow::Result<()> {
    let (removed, erased) = match mode {
        Mode::Serve | Mode::Remove | Mode::Force => ("removed", "erased"),
        Mode::DryRun => ("would be removed", "would be erased"),
    };
    say(format!(
        "backups: {} kept, {} {removed}",
        report.kept, report.removed
    ))?;
    if mode == Mode::DryRun {
        print_ages(report)?;
    }
    say(format!(
        "trash:   {} kept, {} {erased}",
        report.trash_kept, report.trash_erased
    ))?;
    if let Some(burst) = report.trash_held {
        say(format!(
            "         nothing is erased: {} of {} backups were {} within a day; run `trash restore` or `trash confirm`",
            burst.removed,
            burst.of,
            burst.what()
        ))?;
    }
    if let Some(reason) = report.refused.filter(|_| mode == Mode::DryRun) {
        say(format!("a sweep would remove nothing: {reason}"))?;
        say(reason.remedy())?;
    }
    if report.invalid_state {
        say("the state was not valid; it is kept aside as state.json.invalid")?;
    }
    if report.failed > 0 {
        say(format!(
            "{} files could not be removed or erased",
            report.failed
        ))?;
    }
    Ok(())
}

fn print_ages(report: &Report) -> anyhow::Result<()> {
    let mut older = "older".to_owned();
    for bucket in report.ages.buckets() {
        let text = match bucket.younger_than_days {
            Some(1) => "younger than 1 day".to_owned(),
            Some(days) => format!("younger than {days} days"),
            None => std::mem::take(&mut older),
        };
        say(format!("         {:>8} {text}", bucket.backups))?;
    }
    Ok(())
}
