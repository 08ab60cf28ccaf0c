//! `serve`: runs the server until it is told to stop.

use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{first_account, log, systemd};
use crate::config::{Config, Storage};
use crate::server::Server;

pub(super) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    log::start(config.log);
    first_account::add_if_none(config)?;
    tokio::runtime::Runtime::new()
        .context("start the asynchronous runtime")?
        .block_on(serve(config))
}

async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let server = Server::bind_to(systemd::sockets()?, config, super::now).await?;
    std::panic::set_hook(server.panic_hook());
    let Storage::Files { directory } = &config.storage;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = ?server.addresses()?,
        admin = %server.admin_address()?,
        storage = %directory.display(),
        retention_days = config.retention_days,
        retention_margin_days = config.retention_margin_days,
        "listening"
    );
    systemd::ready();
    tokio::select! {
        code = signals.run_until_told(server) => code,
        never = systemd::keep_watchdog_quiet() => match never {},
    }
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Runs the server until the first signal, and then until it has drained or a second signal comes.
    pub(super) async fn run_until_told(&mut self, server: Server) -> anyhow::Result<ExitCode> {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let mut running = std::pin::pin!(server.run(async { drop(stopped.await) }));
        tokio::select! {
            () = &mut running => return Ok(ExitCode::SUCCESS),
            () = self.next() => {
                systemd::stopping();
                drop(stop);
            }
        }
        tokio::select! {
            () = &mut running => Ok(ExitCode::SUCCESS),
            () = self.next() => {
                tracing::warn!("told to stop a second time: not waiting for requests under way");
                Ok(ExitCode::FAILURE)
            }
        }
    }

    /// Waits for one of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
