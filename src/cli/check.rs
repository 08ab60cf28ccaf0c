//! `check`: runs the preflight check and prints its findings.

use std::process::ExitCode;

use clap::Args;

use super::runtime;
use super::terminal::say;
use crate::config::Config;
use crate::server::{self, Severity};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Print a JSON array of findings
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let findings = server::check(config, runtime::now());
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
        Ok(if critical == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
