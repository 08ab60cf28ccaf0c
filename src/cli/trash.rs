//! `trash list / restore / confirm / empty`: what phones deleted and what expired, until it is erased for good.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use serde_json::json;

use super::audit::Audit;
use super::terminal::{self, say, warn};
use super::when::{date, unix_date};
use super::{UsageError, block_on, exit_code, open_store, when};
use crate::backup::BackupId;
use crate::config::Config;
use crate::state::{State, StateStore, unix};
use crate::store::trash::{self, Selection};
use crate::store::{Opened, Store, Trashed};

#[derive(Debug, Subcommand)]
pub(super) enum Trash {
    /// List what is in the trash, the newest first: id, when it was removed and last uploaded, bytes
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Bring backups back, as if they were uploaded now; never over a newer backup
    ///
    /// Without an option, ids are read from standard input, one on each line; what follows an id on its line is
    /// passed over, so that lines of `trash list` serve.
    Restore(Restore),
    /// Say that a burst of deletions was meant: the trash is erased again when its days are over
    Confirm,
    /// Erase the whole trash for good
    Empty {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// What was removed at this time or later: 2026-11-24, 2026-11-24T10:00:00Z, or 36h or 3d ago
    #[arg(long, value_name = "WHEN", conflicts_with = "all")]
    since: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Trash {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let Opened { store, state } = open_store(config)?;
        match self {
            Self::List { json } => list(&*store, json),
            Self::Restore(command) => command.run(config, &*store),
            Self::Confirm => confirm(config, &*state),
            Self::Empty { yes, json } => {
                if !yes && !may_erase(&*store, &*state)? {
                    warn("nothing was erased");
                    return Ok(ExitCode::FAILURE);
                }
                empty(config, &*store, &*state, json)
            }
        }
    }
}

fn list(store: &dyn Store, json: bool) -> anyhow::Result<ExitCode> {
    let mut all: Vec<Trashed> = block_on(async { Ok(store.list_trash().try_collect().await?) })?;
    all.sort_by_key(|trashed| std::cmp::Reverse(trashed.removed_at));
    if json {
        let entries = all.iter().map(|trashed| {
            json!({
                "id": trashed.id.to_hex(),
                "removed": unix_date(trashed.removed_at),
                "lastUpload": date(trashed.last_upload),
                "bytes": trashed.length,
            })
        });
        say(serde_json::Value::from_iter(entries))?;
    } else {
        for trashed in &all {
            say(format!(
                "{}  removed {}  uploaded {}  {} bytes",
                trashed.id.to_hex(),
                unix_date(trashed.removed_at),
                date(trashed.last_upload),
                trashed.length
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Restore {
    fn run(self, config: &Config, store: &dyn Store) -> anyhow::Result<ExitCode> {
        let now = super::now();
        let selection = match (self.since, self.all) {
            (Some(text), _) => {
                let since = when::parse(&text, now).ok_or_else(|| {
                    UsageError(format!(
                        "--since {text}: not a time; give a date (2026-11-24), a time (2026-11-24T10:00:00Z) or a span (36h, 3d)"
                    ))
                })?;
                Selection::Since(unix(since))
            }
            (None, true) => Selection::All,
            (None, false) => Selection::Ids(ids(&read_standard_input()?)?),
        };
        let audit = Audit::begin_in_any_case(config, "trash restore");
        let report = block_on(async {
            let selected = trash::select(store, &selection).await?;
            let bar = terminal::progress(selected.len() as u64, "restoring");
            let mut report = trash::restore(store, &selected, now, || bar.inc(1)).await;
            bar.finish_and_clear();
            if let Selection::Ids(ids) = &selection {
                report.missing += (ids.len() - selected.len()) as u64;
            }
            Ok(report)
        })?;
        let is_audited = audit
            .with("restored", report.restored)
            .with("newer", report.newer)
            .with("missing", report.missing)
            .with("failed", report.failed)
            .done();
        if self.json {
            say(serde_json::to_string(&report)?)?;
        } else {
            say(format!("{} restored", report.restored))?;
            if report.newer > 0 {
                say(format!(
                    "{} left in the trash, because there is a newer backup",
                    report.newer
                ))?;
            }
            if report.missing > 0 {
                say(format!("{} not in the trash", report.missing))?;
            }
            if report.failed > 0 {
                say(format!("{} could not be moved", report.failed))?;
            }
        }
        Ok(exit_code(
            report.missing == 0 && report.failed == 0 && is_audited,
        ))
    }
}

fn read_standard_input() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        warn("Ids of backups, one on each line; Ctrl-D ends:");
    }
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .context("read ids from standard input")?;
    Ok(text)
}

/// The first word of each line. Nothing is done if one of them is no id.
fn ids(text: &str) -> Result<HashSet<BackupId>, UsageError> {
    let mut ids = HashSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(word) = line.split_whitespace().next() {
            let id = word.parse().map_err(|_| {
                UsageError(format!(
                    "line {number} of standard input: not a backup id (64 digits 0-9a-f)"
                ))
            })?;
            ids.insert(id);
        }
    }
    if ids.is_empty() {
        let text = "no ids on standard input; --all and --since WHEN need none";
        return Err(UsageError(text.to_owned()));
    }
    Ok(ids)
}

fn confirm(config: &Config, state: &dyn StateStore) -> anyhow::Result<ExitCode> {
    let audit = Audit::begin(config, "trash confirm")?;
    let now = unix(super::now());
    let change = move |state: &mut State| {
        state.confirmed = Some(now);
        state.burst.take()
    };
    let burst = block_on(async { Ok(state.update(change).await?) })?;
    let removals = burst.map(|burst| burst.removed);
    let is_audited = audit.with("removals", removals).done();
    match burst {
        Some(burst) => say(format!(
            "The deletion of {} of {} backups is confirmed; they are erased when trashDays are over.",
            burst.removed, burst.of
        ))?,
        None => say("Nothing was waiting for it; all deletions so far are confirmed.")?,
    }
    Ok(exit_code(is_audited))
}

/// Asks whether everything is to be erased.
fn may_erase(store: &dyn Store, state: &dyn StateStore) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        let text = "`trash empty` erases for good: say --yes where nobody can be asked";
        return Err(UsageError(text.to_owned()).into());
    }
    let (count, burst) = block_on(async {
        let all: Vec<Trashed> = store.list_trash().try_collect().await?;
        Ok((all.len(), state.load().await?.burst))
    })?;
    if let Some(burst) = burst {
        warn(&format!(
            "{} of {} backups were deleted within a day; perhaps a setting in the MDM is wrong.",
            burst.removed, burst.of
        ));
    }
    let mut error = io::stderr().lock();
    write!(error, "Erase {count} backups in the trash for good? [y/N] ")?;
    error.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn empty(
    config: &Config,
    store: &dyn Store,
    state: &dyn StateStore,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let audit = Audit::begin(config, "trash empty")?;
    let erased = block_on(async {
        let bar = terminal::progress(0, "erasing");
        let erased = trash::empty(store, || bar.inc(1)).await?;
        bar.finish_and_clear();
        Ok(erased)
    })?;
    let is_audited = audit.with("erased", erased).done();
    if json {
        say(json!({ "erased": erased }))?;
    } else {
        say(format!("{erased} erased"))?;
    }
    let now = unix(super::now());
    let change = move |state: &mut State| {
        state.burst = None;
        state.confirmed = Some(now);
    };
    block_on(async { Ok(state.update(change).await?) })?;
    Ok(exit_code(is_audited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_each_line_is_an_id_and_one_mistake_stops_all() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));

        let found = ids(&format!("{a}  removed 2026\n\n  {b}\n{a}\n")).unwrap();
        assert_eq!(found.len(), 2);

        assert_eq!(
            ids(&format!("{a}\nABC\n")).unwrap_err().0,
            "line 2 of standard input: not a backup id (64 digits 0-9a-f)"
        );
        assert!(ids("\n \n").is_err());
    }
}
