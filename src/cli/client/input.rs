//! What a command of `client` seals: a document from a file, or a made-up one.

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use zeroize::Zeroizing;

use super::output::grouped;
use crate::backup::{App, Contents, Document, Grade, ThreemaId};
use crate::cli::terminal::warn;
use crate::cli::{UsageError, now};

/// The most contacts of a sample: 35 MB, far more than a server takes.
const CONTACTS: std::ops::RangeInclusive<i64> = 0..=100_000;

#[derive(Debug, Args)]
pub(in crate::cli) struct Input {
    /// The backup's JSON (- is standard input)
    #[arg(value_name = "DOCUMENT.json", required_unless_present = "sample")]
    document: Option<PathBuf>,
    /// A made-up document with so many contacts instead
    #[arg(long, value_name = "CONTACTS", conflicts_with = "document", value_parser = clap::value_parser!(u32).range(CONTACTS))]
    sample: Option<u32>,
    /// Take a document that an app could not restore
    #[arg(long)]
    force: bool,
}

impl Input {
    pub(super) fn file(&self) -> Option<&Path> {
        self.document.as_deref()
    }

    /// The document, once it is clear that the apps can restore it.
    pub(super) fn document(&self, identity: &ThreemaId, app: App) -> anyhow::Result<Document> {
        let Some(path) = &self.document else {
            let contacts = self.sample.unwrap_or_default();
            return Ok(Contents::sample(identity, contacts, app, now()).to_document());
        };
        let place = path.display();
        let refused = |error: &dyn std::fmt::Display| UsageError(format!("{place}: {error}"));
        let document = Document::from_json(read_bytes(path)?).map_err(|error| refused(&error))?;
        let contents = document.contents().map_err(|error| refused(&error))?;
        let findings = contents.validate();
        let has_errors = findings
            .iter()
            .any(|finding| finding.grade() == Grade::Error);
        let mut text = String::new();
        for line in grouped(&findings) {
            write!(text, "\n  {line}").context("write into memory")?;
        }
        if has_errors && !self.force {
            let text = format!(
                "{place}: an app could not restore this document (--force takes it nevertheless){text}"
            );
            return Err(UsageError(text).into());
        }
        if !findings.is_empty() {
            warn(&format!(
                "{place}: an app would not restore all of it{text}"
            ));
        }
        Ok(document)
    }
}

/// Reads a file that may hold a private key; `-` is standard input.
pub(super) fn read_bytes(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.with_context(|| format!("read {}", path.display()))?;
    Ok(bytes)
}
