//! Preflight check of the accounts file.

use crate::account::{self, Authenticator, Role};
use crate::config::Config;
use crate::error_chain::with_causes;
use crate::server::preflight::findings::{Findings, check_private};
use crate::server::status::{Alert, Severity};

/// Checks the accounts file, and warns about anonymous access.
pub(super) fn check(findings: &mut Findings, config: &Config) {
    let key = "accountsFile";
    if config.allow_anonymous {
        let text = "is on; every client on the Internet may store backups here";
        findings.add(Severity::Warning, "allowAnonymous", text);
    }
    let opened = Authenticator::open_optional(&config.accounts_file, config.allow_anonymous);
    if let Err(error) = opened {
        return findings.add(Severity::Critical, key, with_causes(&error));
    }
    let accounts = account::load(&config.accounts_file).unwrap_or_default();
    let phones = accounts
        .iter()
        .filter(|account| account.role == Role::Phone && !account.disabled)
        .count();
    match (phones, config.allow_anonymous) {
        (0, true) => {}
        (0, false) if accounts.is_empty() => findings.push(key, Alert::no_accounts()),
        (0, false) => {
            let text = "contains no enabled account for phones; run `account add NAME`";
            findings.add(Severity::Warning, key, text);
        }
        (1, _) => findings.add(Severity::Good, key, "contains 1 account for phones"),
        (many, _) => {
            let text = format!("contains {many} accounts for phones");
            findings.add(Severity::Good, key, text);
        }
    }
    if config.accounts_file.exists() {
        check_private(findings, key, &config.accounts_file);
    }
}
