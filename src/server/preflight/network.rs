//! Preflight check of the listeners' addresses and sockets.

use std::net::SocketAddr;
use std::path::Path;

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
