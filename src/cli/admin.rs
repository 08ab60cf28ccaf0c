//! Requests to the admin listener of the running server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};

use super::runtime::block_on;
use crate::config::Config;

/// Timeout of a request. Container health checks run every few seconds; a slower response is a
/// failure.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches the text at `path` from the admin listener.
pub(super) fn get(config: &Config, path: &str) -> anyhow::Result<String> {
    let address = connect_address(config.admin_listen);
    block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            // Plain HTTP: no certificate authority is needed, and a container may have none.
            .tls_certs_only([])
            .timeout(TIMEOUT)
            .build()?;
        let response = client
            .get(format!("http://{address}{path}"))
            .send()
            .await
            .with_context(|| format!("cannot reach the server at {address} (admin.listen)"))?;
        let status = response.status();
        if !status.is_success() {
            bail!(
                "the server at {address} (admin.listen) responded with status {}",
                status.as_u16()
            );
        }
        let text = response.text().await;
        text.with_context(|| format!("cannot read the response of {address} (admin.listen)"))
    })
}

/// The address to connect to: loopback if the server listens on all addresses.
fn connect_address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}
