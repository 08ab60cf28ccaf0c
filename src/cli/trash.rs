//! `trash list / restore / confirm / empty`: deleted, expired and overwritten backups, until they
//! are erased for good.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use serde_json::json;

use super::audit::Audit;
use super::runtime::{self, UsageError, block_on, exit_code, open_store};
use super::terminal::{self, say, warn};
use super::when::{self, date, unix_date};
use crate::backup::BackupId;
use crate::clock;
use crate::config::Config;
use crate::state::{State, StateStore};
use crate::store::trash::{self, Selection};
use crate::store::{Access, Opened, Store, TrashKind, Trashed};
use crate::time::unix;

#[derive(Debug, Subcommand)]
pub(super) enum Trash {
    /// List the trash, newest first: id, removed, replaced or rolled back and when, time of the last
    /// upload, bytes
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Restore backups, with the current time as upload time; never over a newer backup
    ///
    /// Without an option, ids are read from standard input, one on each line. The rest of a line is
    /// ignored, so that lines of `trash list` can be used.
    ///
    /// A backup comes back as it was before it was deleted or overwritten last; if it was
    /// overwritten several times, as it was before the first time. The version that an overwritten
    /// backup has now goes to the trash, "rolled back": restoring the same id again undoes the
    /// restore. With --since or --all, a backup that its own account has uploaded properly since
    /// then is newer and stays; an id on standard input is restored all the same.
    Restore(Restore),
    /// Confirm that a burst of deletions or overwrites was intended, so that the trash is erased again after
    /// trashDays
    Confirm,
    /// Erase everything in the trash for good
    Empty {
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// Restore backups removed or overwritten at this time or later, as they were then: 2026-11-24,
    /// 2026-11-24T10:00:00Z, or 36h or 3d ago
    #[arg(long, value_name = "WHEN", conflicts_with = "all")]
    since: Option<String>,
    /// Restore everything
    #[arg(long)]
    all: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Trash {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let access = match self {
            // Erasing needs no other directory, and no room for one.
            Self::List { .. } | Self::Empty { .. } => Access::Read,
            Self::Restore(_) | Self::Confirm => Access::Command,
        };
        let Opened { store, state } = open_store(config, access)?;
        match self {
            Self::List { json } => list(&*store, json),
            Self::Restore(command) => command.run(config, &*store, &*state),
            Self::Confirm => confirm(config, &*state),
            Self::Empty { yes, json } => {
                if !yes && !is_confirmed(&*store, &*state)? {
                    warn("nothing was erased");
                    return Ok(ExitCode::FAILURE);
                }
                empty(config, &*store, json)
            }
        }
    }
}

fn list(store: &dyn Store, json: bool) -> anyhow::Result<ExitCode> {
    let mut all: Vec<Trashed> = block_on(async { Ok(store.list_trash().try_collect().await?) })?;
    all.sort_by_key(|trashed| std::cmp::Reverse(trashed.removed_at));
    if json {
        let entries = all.iter().map(|trashed| {
            let mut entry = serde_json::Map::from_iter([
                ("id".to_owned(), json!(trashed.id.to_hex())),
                ("removed".to_owned(), json!(unix_date(trashed.removed_at))),
                ("lastUpload".to_owned(), json!(date(trashed.last_upload))),
                ("bytes".to_owned(), json!(trashed.length)),
            ]);
            if trashed.kind != TrashKind::Removed {
                entry.insert("kind".to_owned(), json!(kind(trashed.kind)));
            }
            serde_json::Value::from(entry)
        });
        say(serde_json::Value::from_iter(entries))?;
    } else {
        for trashed in &all {
            say(format!(
                "{}  {} {}  uploaded {}  {} bytes",
                trashed.id.to_hex(),
                kind(trashed.kind),
                unix_date(trashed.removed_at),
                date(trashed.last_upload),
                trashed.length
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How a version came into the trash, in a word.
fn kind(kind: TrashKind) -> &'static str {
    match kind {
        TrashKind::Removed => "removed",
        TrashKind::Replaced => "replaced",
        TrashKind::RolledBack => "rolled-back",
    }
}

impl Restore {
    fn run(
        self,
        config: &Config,
        store: &dyn Store,
        state: &dyn StateStore,
    ) -> anyhow::Result<ExitCode> {
        // A restore must not fail because of the state.
        let saved = block_on(async { Ok(state.load().await.unwrap_or_default()) })?;
        let now = clock::now_for_command(&saved, runtime::now());
        let selection = match (self.since, self.all) {
            (Some(text), _) => {
                let since = when::parse(&text, now).ok_or_else(|| {
                    UsageError(format!(
                        "--since {text}: invalid time; expected a date (2026-11-24), a time (2026-11-24T10:00:00Z) or a span (36h, 3d)"
                    ))
                })?;
                Selection::Since(unix(since))
            }
            (None, true) => Selection::All,
            (None, false) => Selection::Ids(ids(&read_standard_input()?)?),
        };
        let audit = Audit::begin_best_effort(config, "trash restore");
        let report = block_on(async {
            let selected = trash::select(store, &selection).await?;
            let bar = terminal::progress(selected.len() as u64, "restoring");
            let forced = matches!(selection, Selection::Ids(_));
            let mut report = trash::restore(store, &selected, now, forced, || bar.inc(1)).await;
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
                    "{} left in the trash: a newer backup exists",
                    report.newer
                ))?;
            }
            if report.missing > 0 {
                say(format!("{} not in the trash", report.missing))?;
            }
            if report.failed > 0 {
                say(format!("{} could not be restored", report.failed))?;
            }
        }
        Ok(exit_code(
            report.missing == 0 && report.failed == 0 && is_audited,
        ))
    }
}

fn read_standard_input() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        warn("Backup ids, one on each line; end with Ctrl-D:");
    }
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .context("read ids from standard input")?;
    Ok(text)
}

/// Parses the first word of each line as an id. One invalid id is an error, and nothing is
/// restored.
fn ids(text: &str) -> Result<HashSet<BackupId>, UsageError> {
    let mut ids = HashSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(word) = line.split_whitespace().next() {
            let id = word.parse().map_err(|_| {
                UsageError(format!(
                    "line {number} of standard input: invalid backup id; expected 64 digits 0-9a-f"
                ))
            })?;
            ids.insert(id);
        }
    }
    if ids.is_empty() {
        let text =
            "no backup ids on standard input; to restore without ids, use --all or --since WHEN";
        return Err(UsageError(text.to_owned()));
    }
    Ok(ids)
}

fn confirm(config: &Config, state: &dyn StateStore) -> anyhow::Result<ExitCode> {
    let audit = Audit::begin(config, "trash confirm")?;
    let now = runtime::now();
    let change = move |state: &mut State| {
        state.acknowledged_until = Some(unix(clock::now_for_command(state, now)));
        state.deletion_burst.take()
    };
    let burst = block_on(async { Ok(state.update(change).await?) })?;
    let removals = burst.map(|burst| burst.removed);
    let is_audited = audit.with("removals", removals).done();
    match burst {
        Some(burst) => say(format!(
            "Confirmed: {} of {} backups were {}; they are erased after trashDays.",
            burst.removed,
            burst.of,
            burst.what()
        ))?,
        None => say("No deletion burst was pending; all deletions so far are confirmed.")?,
    }
    Ok(exit_code(is_audited))
}

/// Asks for confirmation to erase everything.
fn is_confirmed(store: &dyn Store, state: &dyn StateStore) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        let text = "`trash empty` erases for good: without a terminal it requires --yes";
        return Err(UsageError(text.to_owned()).into());
    }
    let (count, burst) = block_on(async {
        let all: Vec<Trashed> = store.list_trash().try_collect().await?;
        Ok((all.len(), state.load().await?.deletion_burst))
    })?;
    if let Some(burst) = burst {
        warn(&format!(
            "{} of {} backups were {} within a day; an MDM setting may be wrong.",
            burst.removed,
            burst.of,
            burst.what()
        ));
    }
    let mut error = io::stderr().lock();
    write!(error, "Erase {count} backups in the trash for good? [y/N] ")?;
    error.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn empty(config: &Config, store: &dyn Store, json: bool) -> anyhow::Result<ExitCode> {
    let audit = Audit::begin_making_room(config, "trash empty")?;
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
    let now = runtime::now();
    let change = move |state: &mut State| {
        state.deletion_burst = None;
        state.acknowledged_until = Some(unix(clock::now_for_command(state, now)));
    };
    // Only now: there may have been no room for what is missing.
    let Opened { state, .. } = open_store(config, Access::Command)?;
    block_on(async { Ok(state.update(change).await?) })?;
    Ok(exit_code(is_audited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_each_line_is_an_id_and_an_invalid_one_is_an_error() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));

        let found = ids(&format!("{a}  removed 2026\n\n  {b}\n{a}\n")).unwrap();
        assert_eq!(found.len(), 2);

        assert_eq!(
            ids(&format!("{a}\nABC\n")).unwrap_err().0,
            "line 2 of standard input: invalid backup id; expected 64 digits 0-9a-f"
        );
        assert!(ids("\n \n").is_err());
    }
}
