//! Preflight check of the listeners' addresses and sockets, and of the path outside a proxy.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::{Config, Listen, Tls};
use crate::server::net::external_path::PublicPath;
use crate::server::net::listener::is_stale_socket;
use crate::server::preflight::findings::Findings;
use crate::server::status::Severity;

/// Tests whether an address can be bound.
pub(super) fn check_address(findings: &mut Findings, key: &'static str, address: SocketAddr) {
    match std::net::TcpListener::bind(address) {
        Ok(_) => findings.add(Severity::Good, key, format!("{address} can be bound")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let text = format!("{address} is in use, perhaps by this server");
            findings.add(Severity::Warning, key, text);
        }
        Err(error) => findings.add(
            Severity::Critical,
            key,
            format!("{address} cannot be bound: {error}"),
        ),
    }
}

/// Tests whether a Unix socket can be bound.
pub(super) fn check_socket(findings: &mut Findings, path: &Path) {
    let key = "listen";
    let socket = path.display();
    if path.symlink_metadata().is_ok() && !is_stale_socket(path) {
        let text = format!("{socket} exists, perhaps as the socket of this server");
        return findings.add(Severity::Warning, key, text);
    }
    let directory = path.parent().unwrap_or(path);
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    if rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_err() {
        let text = format!(
            "{socket} cannot be bound: {} is missing or not writable",
            directory.display()
        );
        return findings.add(Severity::Critical, key, text);
    }
    findings.add(Severity::Good, key, format!("{socket} can be bound"));
}

/// Compares the path of `publicUrl` with `basePath`: listings have paths.
pub(super) fn check_public_path(findings: &mut Findings, config: &Config) {
    let key = "publicUrl";
    let has_socket = config
        .listen
        .iter()
        .any(|listen| matches!(listen, Listen::Unix(_)));
    let has_proxies = !config.trusted_proxies.is_empty() || has_socket;
    // With the PROXY protocol, TLS passes through, and with it the path.
    let may_replace = config.tls == Tls::Off || (has_proxies && !config.proxy_protocol);
    let Some(public) = PublicPath::of(config) else {
        if config.public_url.is_some() {
            let text = "has an ambiguous path; write it without empty segments, dot segments and encoded slashes";
            findings.add(Severity::Warning, key, text);
        } else if may_replace {
            let text = "is not set, so listings through the proxy are refused (403), because their paths may be wrong \
                        outside it";
            findings.add(Severity::Warning, key, text);
        }
        return;
    };
    let (outside, base_path) = (&public.decoded, &config.base_path);
    if outside == base_path {
        return;
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let remedy = if outside.bytes().all(is_plain) {
        format!("set basePath to \"{outside}\"")
    } else {
        "which cannot be basePath; choose a path of letters and digits".into()
    };
    let text = if may_replace {
        format!(
            "has the path \"{outside}\", and basePath is \"{base_path}\": right only if the proxy replaces it in \
             every request; otherwise {remedy} and keep the path in the proxy"
        )
    } else {
        format!(
            "has the path \"{outside}\", and basePath is \"{base_path}\", so the apps find nothing there; {remedy}"
        )
    };
    findings.add(Severity::Warning, key, text);
}
