//! `check`: runs the preflight check and prints its findings.

use std::process::ExitCode;

use clap::Args;

use super::audit::Audit;
use super::runtime::{self, exit_code};
use super::terminal::say;
use crate::config::Config;
use crate::server::{self, Finding, Severity};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Before the check, take the access of other users from the storage, the accounts file and the
    /// private key: directories get mode 0700, files 0600
    ///
    /// Nothing but modes is changed, and only of what belongs to the owner of the data directory.
    #[arg(long)]
    fix: bool,
    /// Print a JSON array of findings
    #[arg(long)]
    json: bool,
}

/// Records what was changed, and what could not be. Not before: a directory that is missing would be
/// created for the log.
fn audit(config: &Config, findings: &[Finding]) -> bool {
    let is_mended = |finding: &&Finding| finding.alert.severity == Severity::Good;
    let mended = findings.iter().filter(is_mended).count();
    Audit::begin_best_effort(config, "check --fix")
        .with("changed", mended)
        .with("failed", findings.len() - mended)
        .done()
}

impl Check {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let mut findings = Vec::new();
        let mut is_audited = true;
        if self.fix {
            findings = server::make_private(config);
            is_audited = findings.is_empty() || audit(config, &findings);
        }
        findings.extend(server::check(config, runtime::now()));
        let count = |severity| {
            let matching = findings
                .iter()
                .filter(|finding| finding.alert.severity == severity);
            matching.count()
        };
        let critical = count(Severity::Critical);
        if self.json {
            say(serde_json::to_string(&findings)?)?;
        } else {
            for finding in &findings {
                let (word, text) = (finding.alert.severity.label(), &finding.alert.text);
                say(format!("{word:8}  {}: {text}", finding.key))?;
            }
            let warnings = count(Severity::Warning);
            let plural = if warnings == 1 { "" } else { "s" };
            say(format!("{critical} critical, {warnings} warning{plural}"))?;
        }
        Ok(exit_code(critical == 0 && is_audited))
    }
}
