//! Input of the `client` commands that encrypt: a document from a file, or a made-up one.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{ArgGroup, Args};
use zeroize::Zeroizing;

use super::output::grouped;
use super::text::sanitized;
use crate::backup::{App, Contents, Document, Grade, ThreemaId};
use crate::cli::runtime::{UsageError, now};
use crate::cli::source;
use crate::cli::terminal::warn;

/// Number of contacts that a sample may have. 50,000 make about 14 MB, far more than most servers
/// accept.
const CONTACTS: std::ops::RangeInclusive<i64> = 0..=50_000;
/// Limit for the length of a backup or a document, in bytes (256 MiB): the largest `maxBackupBytes`
/// that a server may have.
const LIMIT: usize = 256 << 20;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").args(["document", "sample"]).required(true))]
pub(in crate::cli) struct Input {
    /// A file with the document's JSON (- is standard input)
    #[arg(value_name = "DOCUMENT.json")]
    document: Option<PathBuf>,
    /// Use a made-up document with this number of contacts instead
    #[arg(long, value_name = "CONTACTS", value_parser = clap::value_parser!(u32).range(CONTACTS))]
    sample: Option<u32>,
    /// Accept a document that an app could not restore
    #[arg(long)]
    force: bool,
}

impl Input {
    /// The file with the document; `None` for a sample.
    pub(super) fn file(&self) -> Option<&Path> {
        self.document.as_deref()
    }

    /// Reads or creates the document, and checks that the apps can restore it.
    pub(super) fn document(&self, identity: &ThreemaId, app: App) -> anyhow::Result<Document> {
        let Some(path) = &self.document else {
            let contacts = self.sample.unwrap_or_default();
            return Ok(Contents::sample(identity, contacts, app, now()).to_document());
        };
        let place = path.display();
        let document = Document::from_json(read_bytes(path)?)
            .map_err(|error| UsageError(format!("{place}: {error}")))?;
        let findings = match document.contents() {
            Ok(contents) => contents.validate(),
            Err(error) if self.force => {
                warn(&format!(
                    "{place}: an app could not restore this document: {error}"
                ));
                return Ok(document);
            }
            Err(error) => {
                let text = format!(
                    "{place}: an app could not restore this document (--force accepts it): {error}"
                );
                return Err(UsageError(text).into());
            }
        };
        let has_errors = findings
            .iter()
            .any(|finding| finding.grade() == Grade::Error);
        let mut text = String::new();
        for line in grouped(&findings) {
            write!(text, "\n  {}", sanitized(&line)).context("write into memory")?;
        }
        if has_errors && !self.force {
            let text = format!(
                "{place}: an app could not restore this document (--force accepts it){text}"
            );
            return Err(UsageError(text).into());
        }
        if !findings.is_empty() {
            let what = if has_errors {
                "could not restore this document"
            } else {
                "would not restore all of it"
            };
            warn(&format!("{place}: an app {what}{text}"));
        }
        Ok(document)
    }
}

/// Reads a file that may contain a private key; `-` is standard input. At most [`LIMIT`] bytes are
/// read, because the input may be endless.
pub(super) fn read_bytes(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let place = path.display();
    let bytes = source::read(path, LIMIT).with_context(|| format!("read {place}"))?;
    bytes.ok_or_else(|| UsageError(format!("{place} is larger than {LIMIT} bytes")).into())
}
