//! What `check` says of an authority that is to be asked for certificates. It asks nobody.

use std::net::SocketAddr;

use crate::config::{Acme, Config, Listen};
use crate::error_chain::with_causes;
use crate::server::acme::http::authorities;
use crate::server::acme::store::Store;
use crate::server::preflight::{Findings, Severity, check_certificate, check_private, public_host};
use std::time::SystemTime;

/// The port that every authority connects to (RFC 8737).
const PORT: u16 = 443;

/// Looks at all of it.
pub(crate) fn check(findings: &mut Findings, config: &Config, acme: &Acme, now: SystemTime) {
    check_names(findings, config, acme);
    if let Some(path) = &acme.authority_file {
        let place = "tls.acme.authorityFile";
        match authorities(path) {
            Ok(_) => findings.add(
                Severity::Good,
                place,
                "is trusted when the authority is asked",
            ),
            Err(error) => findings.add(Severity::Error, place, with_causes(&error)),
        }
    }
    let place = "tls.acme.directory";
    let looked = Store::open(acme).and_then(|store| {
        drop(store.account()?);
        Ok((store.certificate()?, store.failed()?, store))
    });
    let (held, failed, store) = match looked {
        Ok(found) => found,
        Err(error) => return findings.add(Severity::Error, place, with_causes(&error)),
    };
    if rustix::fs::access(&acme.directory, rustix::fs::Access::WRITE_OK).is_err() {
        let text = format!("{} cannot be written to", acme.directory.display());
        return findings.add(Severity::Error, place, text);
    }
    findings.add(Severity::Good, place, "can be written");
    check_private(findings, place, &acme.directory);
    if let Some(failed) = failed {
        let text = format!("the last order for a certificate failed: {}", failed.text);
        findings.add(Severity::Warning, "tls.acme", text);
    }
    match held {
        None => {
            let text = "there is no certificate yet: the server asks for one when it runs, and no phone connects before";
            findings.add(Severity::Warning, "tls.acme", text);
        }
        Some(held) => {
            if !held.is_as_configured {
                let text = "the certificate that is there is for other domains or from another authority: the server \
                            asks for a new one when it runs";
                findings.add(Severity::Warning, "tls.acme", text);
            }
            check_certificate(findings, config, &store.files(), "tls.acme", now);
        }
    }
}

fn check_names(findings: &mut Findings, config: &Config, acme: &Acme) {
    let place = "tls.acme.domains";
    match public_host(config) {
        Some(host) if acme.domains.contains(&host.to_ascii_lowercase()) => {
            findings.add(Severity::Good, place, "the host of publicUrl is among them");
        }
        Some(_) => {
            let text = "the host of publicUrl is not among them: phones refuse the certificate";
            findings.add(Severity::Error, place, text);
        }
        None => {
            let text = "publicUrl is not set: nobody knows whether its host is among them";
            findings.add(Severity::Warning, place, text);
        }
    }
    if acme.contact.is_none() {
        let text = "not set: the authority cannot write to anybody when something is wrong";
        findings.add(Severity::Good, "tls.acme.contact", text);
    }
    let is_port = |listen: &Listen| matches!(listen, Listen::Tcp(address) if SocketAddr::port(address) == PORT);
    if !config.listen.iter().any(is_port) {
        let text = "not port 443, to which the authority connects: it has to lead here, with TLS untouched on the way";
        findings.add(Severity::Good, "listen", text);
    }
}
