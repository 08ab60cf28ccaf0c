//! Preflight check (`check`): tests a configuration for errors that would stop the server now or
//! later.

mod accounts;
mod acme;
mod certificate;
mod findings;
mod network;
mod storage;

use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use self::findings::{Findings, is_open_to_others};
use crate::config::{Config, Listen, Tls};
use crate::private_file::{self, Exposure};
use crate::retention::Retention;
use crate::server::status::{Finding, Renewal, Severity};

/// Checks everything that a configuration names. Changes nothing, except that it creates missing
/// directories of ACME, and of the storage beside existing backups.
pub(crate) fn check(config: &Config, retention: Retention, now: SystemTime) -> Vec<Finding> {
    let mut findings = Findings::default();
    check_tls(&mut findings, config, now);
    accounts::check(&mut findings, config);
    storage::check(&mut findings, config, retention, now);
    for listen in &config.listen {
        match listen {
            Listen::Tcp(address) => network::check_address(&mut findings, "listen", *address),
            Listen::Unix(path) => network::check_socket(&mut findings, path),
        }
    }
    network::check_address(&mut findings, "admin.listen", config.admin_listen);
    network::check_public_path(&mut findings, config);
    check_settings(&mut findings, config);
    if rustix::process::geteuid().is_root() {
        let text = "root may read and write every file; run check as the server's user to test that user's rights";
        findings.add(Severity::Good, "rights", text);
    }
    findings.0
}

/// Takes the access of other users from everything that has to be private: the storage, the accounts
/// file, the private key and the directory of ACME. Changes modes alone, and only of what belongs to
/// the owner of the data directory. Returns what was changed, and what could not be.
#[must_use]
pub fn make_private(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::default();
    storage::make_private(&mut findings, config);
    let directory = config.storage.description().local_directory;
    let owner = std::fs::metadata(directory)
        .map_or_else(|_| rustix::process::geteuid().as_raw(), |found| found.uid());
    let mut secrets = vec![("accountsFile", config.accounts_file.clone())];
    match &config.tls {
        Tls::Off => {}
        Tls::Files(files) => secrets.push(("tls.privateKeyFile", files.private_key.clone())),
        Tls::Acme(acme) => {
            let key = "tls.acme.directory";
            secrets.push((key, acme.directory.clone()));
            secrets.push((key, acme.directory.join("certificate.pem")));
        }
    }
    for (key, path) in secrets {
        // The group may read a secret: it was given to it on purpose.
        let is_directory = path.is_dir();
        let is_exposed = match Exposure::of(&path) {
            Ok(exposure) => exposure.is_some() || is_directory && is_open_to_others(&path),
            Err(_) => false,
        };
        if is_exposed {
            let changed = private_file::make_private(&path, owner);
            findings.mended(
                key,
                &path.display().to_string(),
                changed.map(Option::unwrap_or_default),
            );
        }
    }
    findings.0
}

fn check_tls(findings: &mut Findings, config: &Config, now: SystemTime) {
    match &config.tls {
        Tls::Off => {
            let text = "is off: a proxy in front has the certificate, which is not checked here; without TLS, the \
                        server accepts clients only on loopback, Unix sockets and from trustedProxies";
            findings.add(Severity::Good, "tls", text);
        }
        Tls::Files(files) => {
            let key = "tls.certificateFile";
            certificate::check(findings, config, files, (key, Renewal::Manual), now);
        }
        Tls::Acme(acme) => acme::check(findings, config, acme, now),
    }
}

fn check_settings(findings: &mut Findings, config: &Config) {
    if !config.admin_listen.ip().is_loopback() {
        let text =
            "is not a loopback address; every client that reaches it has access without a password";
        findings.add(Severity::Warning, "admin.listen", text);
    }
    if !config.anonymous_restore {
        let text = "is off; iOS 7.2 to 7.2.2 cannot restore from this server (it sends the wrong password)";
        findings.add(Severity::Warning, "anonymousRestore", text);
    }
    if config.retention_margin_days == 0 {
        let text = "is 0; an iPhone renews unchanged data only after the full retentionDays, so its backup may be \
                    removed just before";
        findings.add(Severity::Warning, "retentionMarginDays", text);
    }
}
