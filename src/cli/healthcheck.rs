//! `healthcheck`: asks the admin listener whether the server is alive. The exit code tells.

use std::process::ExitCode;

use super::admin;
use crate::config::Config;
use crate::server::HEALTH_PATH;

pub(super) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    admin::ask(config, HEALTH_PATH)?;
    Ok(ExitCode::SUCCESS)
}
