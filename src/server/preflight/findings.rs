//! Findings of the preflight check, and checks that its files share.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::Config;
use crate::private_file::NotMended;
use crate::server::status::{Alert, Finding, Severity};

/// The findings so far.
#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    /// Adds a finding about `key`.
    pub(super) fn add(&mut self, severity: Severity, key: &'static str, text: impl Into<String>) {
        self.push(key, Alert::new(severity, text));
    }

    /// Adds an alert as a finding about `key`.
    pub(super) fn push(&mut self, key: &'static str, alert: Alert) {
        self.0.push(Finding { key, alert });
    }

    /// Adds how the access of other users to `place` was taken away.
    pub(super) fn mended(
        &mut self,
        key: &'static str,
        place: &str,
        changed: Result<u32, NotMended>,
    ) {
        match changed {
            Ok(mode) => {
                let text = format!("{place}: made private; its mode was {mode:04o}");
                self.add(Severity::Good, key, text);
            }
            Err(error) => {
                let text = format!("{place}: mode not changed: {error}");
                self.add(Severity::Warning, key, text);
            }
        }
    }
}

/// Adds a warning if users other than owner and group have any access to a file or directory.
pub(super) fn check_private(findings: &mut Findings, key: &'static str, path: &Path) {
    if is_open_to_others(path) {
        let mode = if path.is_dir() { "700" } else { "600" };
        let path = path.display();
        let text = format!(
            "{path} is accessible to every user of this machine; run `check --fix`, or chmod {mode}"
        );
        findings.add(Severity::Warning, key, text);
    }
}

/// True if users other than owner and group have any access to a file or directory.
pub(super) fn is_open_to_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o007 != 0)
}

/// The host of `publicUrl`, an IPv6 address without brackets; `None` if the key is not set.
pub(super) fn public_host(config: &Config) -> Option<String> {
    let url = config.public_url.as_deref()?.parse::<::http::Uri>().ok()?;
    let host = url.host()?;
    Some(host.trim_matches(['[', ']']).to_owned())
}
