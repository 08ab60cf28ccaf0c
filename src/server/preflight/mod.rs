//! Preflight check (`check`): tests a configuration for errors that would stop the server now or
//! later.

mod accounts;
mod acme;
mod certificate;
mod findings;
mod network;
mod storage;

use std::time::SystemTime;

use self::findings::Findings;
use crate::config::{Config, Listen, Tls};
use crate::server::status::{Finding, Renewal, Severity};

/// Checks everything that a configuration names. Changes nothing, except that it creates missing
/// directories of ACME.
#[must_use]
pub fn check(config: &Config, now: SystemTime) -> Vec<Finding> {
    let mut findings = Findings::default();
    check_tls(&mut findings, config, now);
    accounts::check(&mut findings, config);
    storage::check(&mut findings, config);
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
