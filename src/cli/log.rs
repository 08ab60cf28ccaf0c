//! Sets up the log: lines on standard error.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
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
        .with_target(false)
        .with_ansi(false);
    let registry = tracing_subscriber::registry().with(level);
    let set = match log.format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Journald => registry
            .with(lines.event_format(Journald::default()))
            .try_init(),
    };
    // It can only be set already, by a test that runs commands in its own process.
    drop(set);
    LogLevel(handle)
}

/// Lines from whose beginning systemd takes the priority, see sd-daemon(3).
struct Journald(Format<Full, ()>);

impl Default for Journald {
    fn default() -> Self {
        let line = tracing_subscriber::fmt::format();
        Self(line.without_time().with_target(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journald
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// What syslog calls this level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_has_its_priority() {
        let levels = [
            Level::ERROR,
            Level::WARN,
            Level::INFO,
            Level::DEBUG,
            Level::TRACE,
        ];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }
}
