//! `healthcheck`: requests the health endpoint of the admin listener; the result is the exit code.

use std::process::ExitCode;

use super::admin;
use crate::config::Config;
use crate::server::HEALTH_PATH;

pub(super) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    admin::get(config, HEALTH_PATH)?;
    Ok(ExitCode::SUCCESS)
}
