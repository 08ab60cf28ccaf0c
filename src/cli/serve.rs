//! `serve`: runs the server until it is stopped, and reloads its configuration.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::log::LogLevel;
use super::runtime;
use super::systemd::{self, Supervisor};
use super::{first_account, log, process};
use crate::config::{self, Config, Log, Tls};
use crate::error_chain::with_causes;
use crate::reloaded::{FileSource, FileVersions, Reloaded};
use crate::server::{Reloader, Server};

/// Time between two checks of whether the configuration file was replaced.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Runs the server. `load` reads the configuration, from `file` and the environment.
pub(super) fn run<L>(file: PathBuf, load: L) -> anyhow::Result<ExitCode>
where
    L: Fn() -> Result<Config, config::Error> + Send + Sync + 'static,
{
    let version = FileVersions::of([&*file]);
    let config = load()?;
    let level = log::start(config.log);
    process::allow_connections(config.limits.connections);
    first_account::add_if_none(&config)?;
    tokio::runtime::Runtime::new()
        .context("start the asynchronous runtime")?
        .block_on(async {
            // Before anything else: without a handler, SIGHUP ends the process.
            let hangup = signal(SignalKind::hangup()).context("listen for signals")?;
            let mut signals = Signals::new()?;
            let supervisor = Supervisor::new();
            let server = Server::bind_to(systemd::sockets()?, &config, runtime::now).await?;
            std::panic::set_hook(server.panic_hook());
            log_start(&server, &config)?;
            let source = ConfigurationFile {
                existed_at_start: !version.are_missing(),
                file,
                load,
                level,
                reloader: server.reloader(),
            };
            let in_force = InForce {
                log: config.log,
                waiting: Vec::new(),
            };
            let reloading = Reloading {
                configuration: Arc::new(Reloaded::already_read(source, in_force, version)),
                reloader: server.reloader(),
                supervisor: &supervisor,
            };
            supervisor.ready();
            tokio::select! {
                code = signals.run_until_stopped(server, &supervisor) => code,
                never = reloading.run(hangup) => match never {},
                never = supervisor.notify_watchdog() => match never {},
            }
        })
}

fn log_start(server: &Server, config: &Config) -> anyhow::Result<()> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = ?server.addresses()?,
        admin = %server.admin_address()?,
        tls = match config.tls {
            Tls::Files(_) => "files",
            Tls::Acme(_) => "acme",
            Tls::Off => "off",
        },
        trusted_proxies = config.trusted_proxies.len(),
        storage = config.storage.description().location,
        retention_days = config.retention_days,
        retention_margin_days = config.retention_margin_days,
        trash_days = config.trash_days,
        max_backup_bytes = config.max_backup_bytes,
        "listening"
    );
    for problem in server.alerts() {
        tracing::warn!(problem = problem.text, "startup warning");
    }
    Ok(())
}

/// The configuration file as a [`FileSource`]. Reading it also puts the configuration in force, so
/// that a configuration that the server refuses is reported like one that cannot be parsed.
struct ConfigurationFile<L> {
    file: PathBuf,
    /// True if the file existed at the start; otherwise the configuration comes from the
    /// environment alone.
    existed_at_start: bool,
    load: L,
    level: LogLevel,
    reloader: Reloader,
}

/// The configuration in force, as far as later reloads need it.
struct InForce {
    log: Log,
    /// Changed keys that need a restart.
    waiting: Vec<&'static str>,
}

/// Why a configuration cannot be used, on one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ConfigurationError(String);

impl<L> FileSource for ConfigurationFile<L>
where
    L: Fn() -> Result<Config, config::Error> + Send + Sync + 'static,
{
    type Value = InForce;
    type Error = ConfigurationError;

    fn files(&self) -> Vec<&Path> {
        vec![&self.file]
    }

    fn read(&self) -> Result<InForce, ConfigurationError> {
        if self.existed_at_start && FileVersions::of(self.files()).are_missing() {
            return Err(ConfigurationError("its file is missing".to_owned()));
        }
        let config = (self.load)().map_err(|error| ConfigurationError(problems(&error)))?;
        let waiting = self.reloader.reload(&config);
        Ok(InForce {
            log: config.log,
            waiting: waiting.map_err(|problem| ConfigurationError(problem.to_string()))?,
        })
    }

    fn reloaded(&self, old: &InForce, new: &InForce) {
        // Logged if either level includes it.
        self.level.set(old.log.level.max(new.log.level));
        tracing::info!("configuration reloaded");
        self.level.set(new.log.level);
        if !new.waiting.is_empty() {
            tracing::warn!(
                keys = new.waiting.join(", "),
                "configuration changes need a restart"
            );
        }
    }

    fn failed(&self, error: &ConfigurationError) {
        tracing::error!(
            problem = error.0,
            "configuration reload failed; previous configuration stays in force"
        );
        self.reloader.failed(error.0.clone());
    }
}

/// The task that reloads configuration, accounts and certificate.
struct Reloading<'a, L>
where
    L: Fn() -> Result<Config, config::Error> + Send + Sync + 'static,
{
    configuration: Arc<Reloaded<ConfigurationFile<L>>>,
    reloader: Reloader,
    supervisor: &'a Supervisor,
}

impl<L> Reloading<'_, L>
where
    L: Fn() -> Result<Config, config::Error> + Send + Sync + 'static,
{
    /// Reloads the configuration when its file is replaced; on SIGHUP, accounts, certificate and
    /// configuration.
    async fn run(self, mut hangup: Signal) -> Infallible {
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_signalled = tokio::select! {
                Some(()) = hangup.recv() => true,
                _ = checks.tick() => false,
            };
            // A stopping server reloads nothing, and must not send READY=1.
            if self.reloader.is_stopping() {
                std::future::pending::<()>().await;
            }
            if is_signalled || self.is_replaced().await {
                self.supervisor.reloading();
                self.reload(is_signalled).await;
                self.supervisor.ready();
            }
        }
    }

    async fn is_replaced(&self) -> bool {
        let configuration = Arc::clone(&self.configuration);
        spawn_blocking(move || configuration.is_replaced())
            .await
            .unwrap_or(false)
    }

    async fn reload(&self, is_signalled: bool) {
        let configuration = Arc::clone(&self.configuration);
        let reloader = self.reloader.clone();
        let reload = spawn_blocking(move || {
            if is_signalled {
                // The accounts first, because the check of the configuration depends on them.
                reloader.reread_files();
                configuration.reread();
            } else {
                configuration.reload_if_replaced();
            }
        });
        // The panic hook has logged a panic; the previous configuration stays in force.
        drop(reload.await);
    }
}

/// Formats all problems of a configuration on one line.
fn problems(error: &config::Error) -> String {
    if let config::Error::Invalid { problems, .. } = error {
        let each: Vec<_> = problems.iter().map(ToString::to_string).collect();
        return each.join("; ");
    }
    with_causes(error)
}

/// The signals that stop the server: SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the signal handlers.
    pub(super) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Runs the server until the first signal, and then until it has drained or a second signal
    /// arrives.
    pub(super) async fn run_until_stopped(
        &mut self,
        server: Server,
        supervisor: &Supervisor,
    ) -> anyhow::Result<ExitCode> {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let mut running = std::pin::pin!(server.run(async { drop(stopped.await) }));
        tokio::select! {
            () = &mut running => return Ok(ExitCode::SUCCESS),
            () = self.next() => {
                supervisor.stopping();
                drop(stop);
            }
        }
        tokio::select! {
            () = &mut running => Ok(ExitCode::SUCCESS),
            () = self.next() => {
                tracing::warn!("second stop signal: open requests are dropped");
                Ok(ExitCode::FAILURE)
            }
        }
    }

    /// Waits for one of the signals.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
