//! Log set-up: lines on standard error.

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

/// Handle that changes the log level at run time.
pub(super) struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// Logs events of this level and more severe ones.
    pub(super) fn set(&self, level: Level) {
        // This fails only after the subscriber was dropped, at the end of the process.
        drop(self.0.reload(targets(level)));
    }
}

/// A filter for this program's events from `level` on, and those of libraries from `warn` on: at
/// finer levels HTTP libraries log headers, and with them credentials.
fn targets(level: Level) -> Targets {
    Targets::new()
        .with_default(Level::WARN.min(level))
        .with_target(env!("CARGO_CRATE_NAME"), level)
}

/// Installs the global subscriber with the configured format and level.
pub(super) fn start(log: Log) -> LogLevel {
    let (level, handle) = reload::Layer::new(targets(log.level));
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
    // This fails only if a test runs several commands in its process.
    drop(set);
    LogLevel(handle)
}

/// Event format with the priority prefix of sd-daemon(3).
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

/// The syslog priority of a level.
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
