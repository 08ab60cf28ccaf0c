//! Sets up the log: lines on standard error.

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Writes this program's own events from `log.level` on, and those of libraries from `warn` on: at finer
/// levels HTTP libraries write headers, and with them credentials.
pub(super) fn start(log: Log) {
    let own = Targets::new()
        .with_default(Level::WARN.min(log.level))
        .with_target(env!("CARGO_CRATE_NAME"), log.level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let registry = tracing_subscriber::registry().with(own);
    let set = match log.format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    // It can only be set already, by a test that runs commands in its own process.
    drop(set);
}
