//! `check` of the data directory.

use super::{Findings, check_private};
use crate::config::{Config, Storage};
use crate::error_chain::with_causes;
use crate::server::status::{Alert, Severity};
use crate::state::StateFile;
use crate::store::FileStore;

pub(super) fn check(findings: &mut Findings, config: &Config) {
    let place = "storage.files.directory";
    let Storage::Files { directory } = &config.storage;
    if let Err(error) = FileStore::open(directory) {
        return findings.push(place, Alert::storage_failure(&with_causes(&error)));
    }
    findings.add(Severity::Good, place, "is writable");
    check_private(findings, place, directory);
    if let Err(error) = StateFile::in_directory(directory).load() {
        let text = format!("sweeps remove nothing: {}", with_causes(&error));
        findings.add(Severity::Warning, place, text);
    }
    // A file system without blocks does not count them.
    if let Some(space) = rustix::fs::statvfs(directory)
        .ok()
        .filter(|s| s.f_blocks > 0)
    {
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        findings.push(
            place,
            Alert::free_space(free, config.max_backup_bytes as u64),
        );
    }
}
