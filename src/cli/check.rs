//! `check`: finds problems before phones do.

use std::process::ExitCode;

use clap::Args;

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
        let findings = server::check(config, super::now());
        let errors = findings
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .count();
        let warnings = findings
            .iter()
            .filter(|f| f.severity == Severity::Warning)
            .count();
        if self.json {
            say(serde_json::to_string(&findings)?)?;
        } else {
            for finding in &findings {
                let word = match finding.severity {
                    Severity::Good => "ok     ",
                    Severity::Warning => "warning",
                    Severity::Error => "error  ",
                };
                say(format!("{word}  {}: {}", finding.place, finding.text))?;
            }
            say(format!("{errors} errors, {warnings} warnings"))?;
        }
        Ok(if errors == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
