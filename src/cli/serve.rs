//! `serve`: runs the server until it is told to stop, and reads its configuration again when that changes.

use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::log::LogLevel;
use super::systemd::{self, Supervisor};
use super::{first_account, log, process};
use crate::config::{self, Config, Log, Tls};
use crate::error_chain::with_causes;
use crate::file_version::FileVersion;
use crate::server::{Reloader, Server};

/// How often it is looked whether the configuration's file was replaced.
const LOOK: Duration = Duration::from_secs(2);

/// Runs under the configuration that `load` reads, from `file` among others.
pub(super) fn run(
    file: &Path,
    load: impl Fn() -> Result<Config, config::Error>,
) -> anyhow::Result<ExitCode> {
    let version = FileVersion::of(file);
    let config = load()?;
    let level = log::start(config.log);
    process::allow_connections(config.limits.connections);
    first_account::add_if_none(&config)?;
    tokio::runtime::Runtime::new()
        .context("start the asynchronous runtime")?
        .block_on(async {
            // First of all: whoever is told to read again before that would end.
            let told = signal(SignalKind::hangup()).context("listen for signals")?;
            let mut signals = Signals::new()?;
            let supervisor = Supervisor::new();
            let server = Server::bind_to(systemd::sockets()?, &config, super::now).await?;
            std::panic::set_hook(server.panic_hook());
            tell_of(&server, &config)?;
            let source = Source {
                file,
                load,
                level,
                log: config.log,
                reloader: server.reloader(),
                supervisor: &supervisor,
                version,
                had_file: version.is_some(),
            };
            supervisor.ready();
            tokio::select! {
                code = signals.run_until_told(server, &supervisor) => code,
                never = source.keep_up(told) => match never {},
                never = supervisor.keep_watchdog_quiet() => match never {},
            }
        })
}

fn tell_of(server: &Server, config: &Config) -> anyhow::Result<()> {
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
        tracing::warn!(
            problem = problem.text,
            "this needs a look; `status` says it too"
        );
    }
    Ok(())
}

/// Where the configuration comes from, and where it goes.
struct Source<'a, L> {
    file: &'a Path,
    load: L,
    level: LogLevel,
    log: Log,
    reloader: Reloader,
    supervisor: &'a Supervisor,
    /// The state of the file that was read last.
    version: Option<FileVersion>,
    /// Whether there was one at the start: without, the environment says all.
    had_file: bool,
}

impl<L: Fn() -> Result<Config, config::Error>> Source<'_, L> {
    /// Reads the configuration again when its file was replaced, and on SIGHUP.
    async fn keep_up(mut self, mut told: Signal) -> Infallible {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_told = tokio::select! {
                Some(()) = told.recv() => true,
                _ = looks.tick() => false,
            };
            // Who is about to stop says no more.
            if self.reloader.is_stopping() {
                std::future::pending::<()>().await;
            }
            let version = FileVersion::of(self.file);
            if is_told || version != self.version {
                self.supervisor.reloading();
                self.reload(version);
                self.version = version;
                self.supervisor.ready();
            }
        }
    }

    fn reload(&mut self, version: Option<FileVersion>) {
        if version.is_none() && self.had_file {
            return self.refuse("its file is gone");
        }
        let config = match (self.load)() {
            Ok(config) => config,
            Err(error) => return self.refuse(&problems(&error)),
        };
        match self.reloader.reload(&config) {
            Ok(waiting) => {
                // Whoever hears one of the two hears it.
                let before = std::mem::replace(&mut self.log, config.log);
                self.level.set(before.level.max(config.log.level));
                tracing::info!("the configuration was read again");
                self.level.set(config.log.level);
                if !waiting.is_empty() {
                    tracing::warn!(
                        keys = waiting.join(", "),
                        "changes of the configuration wait for a restart"
                    );
                }
            }
            Err(problem) => self.refuse(&problem.to_string()),
        }
    }

    fn refuse(&self, problem: &str) {
        tracing::error!(
            problem,
            "the configuration cannot be used; the one read before stays in force"
        );
        self.reloader.failed(problem.to_owned());
    }
}

/// All that is wrong, on one line.
fn problems(error: &config::Error) -> String {
    if let config::Error::Invalid { problems, .. } = error {
        let each: Vec<_> = problems.iter().map(ToString::to_string).collect();
        return each.join("; ");
    }
    with_causes(error)
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
    pub(super) async fn run_until_told(
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
