//! `healthcheck`: asks the admin listener whether the server is alive. The exit code tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use super::block_on;
use crate::config::Config;
use crate::server::HEALTH_PATH;

/// Containers are asked every few seconds; an answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let address = reachable(config.admin_listen);
    block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()?;
        let answer = client
            .get(format!("http://{address}{HEALTH_PATH}"))
            .send()
            .await;
        let status = answer
            .with_context(|| format!("ask the server at {address} (admin.listen)"))?
            .status();
        if !status.is_success() {
            bail!(
                "the server at {address} (admin.listen) answers {}",
                status.as_u16()
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Where to reach something that listens on every address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}
