//! The storage that a configuration selects: `storage.files`.
//!
//! A backend is a variant here with the keys that it reads and an arm in [`Storage::description`],
//! and an arm in `store::open`. Nothing else in the program depends on the kind of storage.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::value::path;

/// A kind of storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Files in a directory.
    Files {
        /// The directory that holds `backups/`, `trash/` and `tmp/`.
        directory: PathBuf,
    },
}

/// What the rest of the program may know of a storage without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageDescription<'a> {
    /// The key of the configuration that names the storage: errors and findings are about it.
    pub key: &'static str,
    /// Where the backups are, for the log. Contains no credentials.
    pub location: String,
    /// The directory on this machine for what is written beside the backups, such as the audit log.
    pub local_directory: &'a Path,
}

impl Storage {
    /// Reads the section `storage`; `file` resolves paths against the configuration's directory.
    pub(super) fn read(reader: &mut Reader<'_>, file: impl Fn(String) -> PathBuf) -> Self {
        reader.section("storage", |storage| {
            storage.section("files", |files| Self::Files {
                directory: file(files.string("directory", "data", path)),
            })
        })
    }

    /// Describes the storage without touching it.
    #[must_use]
    pub fn description(&self) -> StorageDescription<'_> {
        match self {
            Self::Files { directory } => StorageDescription {
                key: "storage.files.directory",
                location: directory.display().to_string(),
                local_directory: directory,
            },
        }
    }
}
