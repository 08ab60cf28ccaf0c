//! Output of the `client` commands that decrypt: a summary, or the document.

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use time::OffsetDateTime;
use time::macros::format_description;

use super::text::{escaped, sanitized, truncated};
use crate::backup::{
    Contents, Document, Field, Finding, INFLATE_LIMIT, List, MasterKey, OpenError, SealedBackup,
    ThreemaId, open,
};
use crate::cli::runtime::{UsageError, now};
use crate::cli::terminal::{say, warn, write};
use crate::durable;

/// `maxBackupBytes` of most servers, Threema's own among them, in bytes.
const USUAL_LIMIT: u64 = 524_288;
const DAY_MILLISECONDS: u64 = 24 * 60 * 60 * 1_000;

#[derive(Debug, Args)]
pub(in crate::cli) struct Output {
    /// Print the document without the private key, instead of a summary
    #[arg(long)]
    json: bool,
    /// Omit the private key from the file of --out as well
    #[arg(long, conflicts_with = "private_key")]
    redact: bool,
    /// Print the private key as well
    #[arg(long, requires = "json")]
    private_key: bool,
    /// Largest size of the unpacked document
    #[arg(long, value_name = "BYTES", default_value_t = INFLATE_LIMIT)]
    max_document_bytes: usize,
    /// Write the document, with the private key, to a file of mode 0600; an existing regular file
    /// is replaced
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Sizes of the backup, for the summary.
struct Received {
    /// Length of the encrypted backup, in bytes.
    size: usize,
    /// `maxBackupBytes` of the server from which the backup was downloaded, in bytes.
    limit: Option<u64>,
}

impl Output {
    /// Opens a backup, and prints or writes it according to the options.
    pub(super) fn deliver(
        &self,
        identity: &ThreemaId,
        key: &MasterKey,
        backup: Bytes,
        limit: Option<u64>,
    ) -> anyhow::Result<()> {
        let received = Received {
            size: backup.len(),
            limit,
        };
        let sealed = SealedBackup::try_from(backup)?;
        let document = open(sealed, &key.backup_key(), self.max_document_bytes);
        if let Err(error @ OpenError::TooLarge { .. }) = document {
            bail!("{error}; --max-document-bytes sets the limit");
        }
        let document = &document?;
        let hides_key = self.redact || (self.json && !self.private_key);
        let without_key = hides_key.then(|| redacted(document)).transpose()?;
        let printed = without_key.as_ref().unwrap_or(document);
        if let Some(path) = &self.out {
            let written = if self.redact { printed } else { document };
            write_file(path, written.json())?;
        }
        if !self.json {
            // Of the unredacted document, because an app cannot restore one without its private
            // key.
            for line in summary(identity, document, &received) {
                say(line)?;
            }
            if let Some(path) = &self.out {
                say(format!("written to {}", path.display()))?;
            }
            return Ok(());
        }
        if hides_key && !self.redact {
            warn("the private key is omitted; --private-key prints it");
        }
        if std::io::stdout().is_terminal() {
            write(escaped(printed.json()).as_bytes())?;
        } else {
            write(printed.json())?;
        }
        say("")
    }

    /// Rejects an unusable target before any password prompt or input.
    pub(super) fn check_target(&self, sources: &[Option<&Path>]) -> Result<(), UsageError> {
        let Some(target) = &self.out else {
            return Ok(());
        };
        if target == Path::new("-") {
            let text = "- is not a file; use --json for standard output";
            return Err(UsageError(text.into()));
        }
        check_target(target, sources)
    }
}

/// The document without its secrets.
fn redacted(document: &Document) -> anyhow::Result<Document> {
    let mut contents = document.contents().context(
        "the document cannot be parsed, so the private key cannot be omitted (--json --private-key prints it whole)",
    )?;
    contents.redact();
    Ok(contents.to_document())
}

/// The lines of the summary of a backup.
fn summary(identity: &ThreemaId, document: &Document, received: &Received) -> Vec<String> {
    let mut lines = vec![format!("the backup of {} opens", identity.as_str())];
    let mut row = |name: &str, text: String| lines.push(format!("  {name:<19} {text}"));
    let contents = document.contents();
    if let Ok(contents) = &contents {
        let user = contents.user.get();
        if let Some(nickname) = user.and_then(|user| user.nickname.get()) {
            row("nickname", truncated(nickname));
        }
        let device = contents.info.get().and_then(|info| info.device.get());
        row(
            "made by",
            device.map_or("unknown".into(), |device| truncated(device)),
        );
        row("contacts", count(&contents.contacts));
        row("groups", count(&contents.groups));
        row("distribution lists", count(&contents.distribution_lists));
        let links = user.map_or("none".into(), |user| count(&user.links));
        row("links", links);
        row(
            "newest entry",
            contents.newest_entry().map_or("none".into(), age),
        );
    }
    row("document", format!("{} bytes", document.json().len()));
    row("size", share(received));
    match contents.as_ref().map(Contents::validate) {
        Ok(findings) if findings.is_empty() => {
            lines.push("no findings: both apps would restore everything".into());
        }
        Ok(findings) => {
            lines.push("findings, which the apps would not restore as they are:".into());
            lines.extend(grouped(&findings).map(|line| format!("  {}", sanitized(&line))));
        }
        Err(error) => lines.push(format!("error: the document cannot be parsed: {error}")),
    }
    lines
}

fn count<T>(list: &Field<List<T>>) -> String {
    list.items().count().to_string()
}

/// The encrypted size, also as a share of the server's limit.
fn share(received: &Received) -> String {
    let (limit, which) = match received.limit {
        Some(limit) => (limit, "this server's"),
        None => (USUAL_LIMIT, "the usual"),
    };
    let size = received.size as u64;
    // In thousandths, without floating point.
    let share = size.saturating_mul(1_000) / limit.max(1);
    format!(
        "{size} bytes encrypted, {}.{} % of {which} maxBackupBytes ({limit})",
        share / 10,
        share % 10
    )
}

/// A time in milliseconds since 1970, as a date and as an age.
fn age(milliseconds: u64) -> String {
    let since = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let date = i64::try_from(milliseconds / 1_000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| {
            time.format(format_description!("[year]-[month]-[day]"))
                .ok()
        });
    let Some(date) = date else {
        return format!("{milliseconds} ms after 1970, which is out of range");
    };
    match now
        .checked_sub(milliseconds)
        .map(|age| age / DAY_MILLISECONDS)
    {
        None => format!("{date}, in the future"),
        Some(0) => format!("{date}, less than a day ago"),
        Some(1) => format!("{date}, 1 day ago"),
        Some(days) => format!("{date}, {days} days ago"),
    }
}

/// The findings as lines; those that differ only in an index share one line.
pub(super) fn grouped(findings: &[Finding]) -> impl Iterator<Item = String> {
    let mut groups: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (number, finding) in findings.iter().enumerate() {
        let mut alike = finding.clone();
        alike.path = finding
            .path
            .replace(|character: char| character.is_ascii_digit(), "");
        let group = groups.entry(alike.to_string()).or_insert((number, 0));
        group.1 += 1;
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_unstable();
    groups.into_iter().filter_map(|(first, times)| {
        let finding = findings.get(first)?;
        Some(match times {
            1 => finding.to_string(),
            _ => format!("{finding} (and {} more like it)", times - 1),
        })
    })
}

/// Rejects a target that exists and is not a regular file, or that is one of the input files.
pub(super) fn check_target(target: &Path, sources: &[Option<&Path>]) -> Result<(), UsageError> {
    let place = target.display();
    if target == Path::new("-") {
        return Err(UsageError("- is not a file; --out needs one".into()));
    }
    let Ok(existing) = fs::symlink_metadata(target) else {
        return Ok(());
    };
    if !existing.is_file() {
        let text = format!("{place} is not a regular file; --out replaces only regular files");
        return Err(UsageError(text));
    }
    let is_target = |source: &&Path| {
        let source = fs::metadata(source);
        source.is_ok_and(|source| (source.dev(), source.ino()) == (existing.dev(), existing.ino()))
    };
    if let Some(source) = sources.iter().flatten().copied().find(is_target) {
        let text = format!(
            "{} is an input file and cannot be the output as well",
            source.display()
        );
        return Err(UsageError(text));
    }
    Ok(())
}

/// Writes a file of mode 0600 durably.
pub(super) fn write_file(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    durable::replace(path, contents).with_context(|| format!("write {}", path.display()))
}
