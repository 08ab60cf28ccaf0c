//! How commands ask the running server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};

use super::block_on;
use crate::config::Config;

/// Containers are asked every few seconds; an answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// The text at `path` of the admin listener.
pub(super) fn ask(config: &Config, path: &str) -> anyhow::Result<String> {
    let address = reachable(config.admin_listen);
    block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            // It speaks without TLS: no authority is needed, and a container may have none.
            .tls_certs_only([])
            .timeout(PATIENCE)
            .build()?;
        let answer = client
            .get(format!("http://{address}{path}"))
            .send()
            .await
            .with_context(|| format!("ask the server at {address} (admin.listen)"))?;
        let status = answer.status();
        if !status.is_success() {
            bail!(
                "the server at {address} (admin.listen) answers {}",
                status.as_u16()
            );
        }
        let text = answer.text().await;
        text.with_context(|| format!("read the answer of {address} (admin.listen)"))
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
