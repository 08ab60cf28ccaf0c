//! Capture of the server's log: the status of each request, and warnings, which are findings.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The log line of one request.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// The request's method, or `other`.
    pub method: String,
    /// The log's name of the resource.
    pub route: String,
    /// The response's status; `None` if the client closed the connection before the response.
    pub status: Option<u16>,
}

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// Returns all lines since the last call.
#[must_use]
pub fn take() -> Vec<Line> {
    std::mem::take(&mut *LINES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Captures the lines from now on.
///
/// # Panics
/// When it is called twice.
pub fn capture() {
    tracing::subscriber::set_global_default(LogCapture).expect("no other subscriber is set");
}

struct LogCapture;

impl Subscriber for LogCapture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The libraries log too much.
        metadata.is_event()
            && *metadata.level() <= Level::INFO
            && metadata.target().starts_with("threema_safe_server")
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        assert!(level > Level::WARN, "the server logs: {}", fields.text);
        if fields.line.route.is_empty() {
            return;
        }
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(fields.line);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct EventFields {
    line: Line,
    text: String,
}

impl Visit for EventFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "method" => self.line.method = value.to_owned(),
            "route" => self.line.route = value.to_owned(),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "status" {
            self.line.status = u16::try_from(value).ok();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text += &format!("{}={value:?} ", field.name());
    }
}
