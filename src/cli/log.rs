//! Sets up the log: lines on standard error.

use tracing::Level;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Changes how much is logged.
pub(super) struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// Logs from this level on.
    pub(super) fn set(&self, level: Level) {
        // It can only have gone with the program.
        drop(self.0.reload(from(level)));
    }
}

/// This program's own events from `level` on, and those of libraries from `warn` on: at finer levels HTTP libraries
/// write headers, and with them credentials.
fn from(level: Level) -> Targets {
    Targets::new()
        .with_default(Level::WARN.min(level))
        .with_target(env!("CARGO_CRATE_NAME"), level)
}

/// Writes events as the configuration says.
pub(super) fn start(log: Log) -> LogLevel {
    let (level, handle) = reload::Layer::new(from(log.level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let registry = tracing_subscriber::registry().with(level);
    let set = match log.format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    // It can only be set already, by a test that runs commands in its own process.
    drop(set);
    LogLevel(handle)
}
