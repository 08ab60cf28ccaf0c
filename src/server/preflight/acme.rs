//! Preflight check of automatic certificates (ACME). It sends no request to the authority.

use std::net::SocketAddr;
use std::time::SystemTime;

use crate::config::{Acme, Config, Listen};
use crate::error_chain::with_causes;
use crate::server::acme::http::authorities;
use crate::server::acme::store::Store;
use crate::server::preflight::certificate;
use crate::server::preflight::findings::{Findings, check_private, public_host};
use crate::server::status::{Renewal, Severity};

/// The port that the authority connects to (RFC 8737 §3).
const PORT: u16 = 443;

/// Checks the section `tls.acme`, the files in the ACME directory, and the stored certificate.
pub(super) fn check(findings: &mut Findings, config: &Config, acme: &Acme, now: SystemTime) {
    check_names(findings, config, acme);
    if let Some(path) = &acme.authority_file {
        let key = "tls.acme.authorityFile";
        match authorities(path) {
            Ok(_) => {
                let text = "is trusted for connections to the authority";
                findings.add(Severity::Good, key, text);
            }
            Err(error) => findings.add(Severity::Critical, key, with_causes(&error)),
        }
    }
    let key = "tls.acme.directory";
    let opened = Store::open(acme).and_then(|store| {
        drop(store.account()?);
        Ok((store.certificate()?, store.failure()?, store))
    });
    let (stored, failure, store) = match opened {
        Ok(found) => found,
        Err(error) => return findings.add(Severity::Critical, key, with_causes(&error)),
    };
    if rustix::fs::access(&acme.directory, rustix::fs::Access::WRITE_OK).is_err() {
        let text = format!("{} is not writable", acme.directory.display());
        return findings.add(Severity::Critical, key, text);
    }
    findings.add(Severity::Good, key, "is writable");
    check_private(findings, key, &acme.directory);
    if let Some(failure) = failure {
        let text = format!("the last order for a certificate failed: {}", failure.text);
        findings.add(Severity::Warning, "tls.acme", text);
    }
    match stored {
        None => {
            let text = "there is no certificate yet; the running server orders one, and clients cannot connect \
                        before that";
            findings.add(Severity::Warning, "tls.acme", text);
        }
        Some(stored) => {
            if !stored.is_as_configured {
                let text = "the stored certificate is for other domains or from another authority; the running \
                            server orders a new one";
                findings.add(Severity::Warning, "tls.acme", text);
            }
            let about = ("tls.acme", Renewal::Automatic);
            certificate::check(findings, config, &store.files(), about, now);
        }
    }
}

fn check_names(findings: &mut Findings, config: &Config, acme: &Acme) {
    let key = "tls.acme.domains";
    match public_host(config) {
        Some(host) if acme.domains.contains(&host.to_ascii_lowercase()) => {
            findings.add(Severity::Good, key, "include the host of publicUrl");
        }
        Some(_) => {
            let text = "do not include the host of publicUrl, so clients refuse the certificate";
            findings.add(Severity::Critical, key, text);
        }
        None => {
            let text = "publicUrl is not set, so its host cannot be compared with the domains";
            findings.add(Severity::Warning, key, text);
        }
    }
    if acme.contact.is_none() {
        let text = "is not set; the authority cannot send warnings to the operator";
        findings.add(Severity::Good, "tls.acme.contact", text);
    }
    let is_port = |listen: &Listen| matches!(listen, Listen::Tcp(address) if SocketAddr::port(address) == PORT);
    if !config.listen.iter().any(is_port) {
        let text = "does not include port 443, to which the authority connects; forward it here without terminating \
                    TLS";
        findings.add(Severity::Good, "listen", text);
    }
}
