//! Preflight check of the storage: a trial write, free space, a sweep that changes nothing.

use std::path::Path;
use std::time::SystemTime;

use crate::config::Config;
use crate::durable::{self, TempFile};
use crate::error_chain::with_causes;
use crate::retention::{self, Mode, Report, Retention};
use crate::server::preflight::findings::{Findings, check_private};
use crate::server::status::{Alert, Severity, sweep_alerts};
use crate::store::{self, Access, Mended, OpenError, Opened, Scope};

/// Checks that the storage is writable and has free space, and what a sweep would say of it.
pub(super) fn check(
    findings: &mut Findings,
    config: &Config,
    retention: Retention,
    now: SystemTime,
) {
    let storage = config.storage.description();
    let (key, local) = (storage.key, storage.local_directory);
    let opened = match store::open(&config.storage, Access::Read) {
        Ok(opened) => opened,
        Err(error @ OpenError::Missing { .. }) => {
            return match try_create_in(local) {
                // As a directory looks where no disk is mounted.
                Ok(()) if local.exists() => {
                    findings.add(Severity::Warning, key, error.to_string());
                    check_private(findings, key, local);
                }
                Ok(()) => findings.add(Severity::Good, key, "the first start will create it"),
                Err(error) => findings.push(key, Alert::storage_failure(&with_causes(&error))),
            };
        }
        Err(error) => return findings.push(key, Alert::storage_failure(&with_causes(&error))),
    };
    let (written, free, swept, exposures) = match probe(&opened, retention, now) {
        Ok(probed) => probed,
        Err(error) => return findings.push(key, Alert::storage_failure(&with_causes(&error))),
    };
    if let Err(error) = written {
        return findings.push(key, Alert::storage_failure(&with_causes(&error)));
    }
    findings.add(Severity::Good, key, "takes uploads, renewals and removals");
    for limitation in opened.store.limitations() {
        let text = format!("the file system lacks {limitation}");
        findings.add(Severity::Warning, key, text);
    }
    for exposure in exposures.unwrap_or_default() {
        findings.push(key, Alert::exposed(&exposure));
    }
    match swept {
        Ok(report) => {
            for alert in sweep_alerts(&report) {
                findings.push(key, alert);
            }
        }
        Err(error) => {
            let text = format!("sweeps remove nothing: {}", with_causes(&error));
            findings.add(Severity::Warning, key, text);
        }
    }
    if let Ok(Some(free)) = free {
        findings.push(key, Alert::free_space(free, config.max_backup_bytes as u64));
    }
}

/// Tests whether `serve` could create this directory and write to it: a trial write to the nearest
/// parent that exists.
fn try_create_in(directory: &Path) -> Result<(), durable::Error> {
    let mut existing = directory;
    // A symbolic link to a missing directory exists, and no directory can be created in its place.
    while existing.symlink_metadata().is_err()
        && existing != Path::new(".")
        && existing != Path::new("/")
    {
        existing = durable::parent(existing);
    }
    let file = TempFile::create_in(existing)?;
    file.write(&[0])?;
    file.sync()
}

/// The results of a trial write, of measuring the free space, of a sweep that changes nothing, and of
/// examining the access of other users.
type Probed = (
    Result<(), store::Error>,
    Result<Option<u64>, store::Error>,
    Result<Report, retention::Error>,
    Result<Vec<String>, store::Error>,
);

fn probe(opened: &Opened, retention: Retention, now: SystemTime) -> std::io::Result<Probed> {
    let Opened { store, state } = opened;
    blocking(async {
        (
            store.try_write().await,
            store.free_bytes().await,
            retention::sweep(&**store, &**state, retention, now, Mode::DryRun).await,
            store.exposures(Scope::Everything).await,
        )
    })
}

/// Takes the access to the storage from other users.
pub(super) fn make_private(findings: &mut Findings, config: &Config) {
    let key = config.storage.description().key;
    // What is missing will be created private.
    let Ok(opened) = store::open(&config.storage, Access::Read) else {
        return;
    };
    match blocking(opened.store.make_private()) {
        Ok(Ok(mended)) => {
            for Mended { place, changed } in mended {
                findings.mended(key, &place, changed);
            }
        }
        Ok(Err(error)) => findings.add(Severity::Warning, key, with_causes(&error)),
        Err(error) => findings.add(Severity::Warning, key, with_causes(&error)),
    }
}

/// Runs `work` on a thread with its own runtime, because the caller may already run in one.
fn blocking<T: Send>(work: impl Future<Output = T> + Send) -> std::io::Result<T> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(work))
    };
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(std::io::Error::other("the probe of the storage panicked")))
}
