//! Access log: one line for each request when it ends, and its share of the metrics.
//!
//! A line contains method, route, result and duration. It contains neither account names nor backup
//! ids; the client address only as far as `log.clientAddresses` allows.

use std::time::Instant;

use http::Method;

use crate::server::metrics::InFlightRequest;
use crate::server::net::client_address::LoggedAddress;
use crate::server::request::pseudonym::Pseudonym;

/// The line of one request. Written when it is dropped, so that a cancelled request has a line too.
pub(crate) struct AccessLine<'a> {
    pub(crate) metrics: InFlightRequest<'a>,
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    /// Only for routes of backups.
    pub(crate) backup: Option<Pseudonym>,
    /// As `log.clientAddresses` allows.
    pub(crate) client: Option<LoggedAddress>,
    pub(crate) started: Instant,
    /// The declared length of the body, in bytes; 0 if it has none.
    pub(crate) received: u64,
    /// `None` if the request was cancelled.
    pub(crate) status: Option<u16>,
}

impl Drop for AccessLine<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let Self {
            method,
            route,
            backup,
            client,
            received,
            ..
        } = *self;
        self.metrics.ended(route, method, self.status, took);
        let backup = backup.map(tracing::field::display);
        let client = client.map(tracing::field::display);
        match self.status {
            Some(status) => {
                tracing::info!(
                    method,
                    route,
                    backup,
                    client,
                    status,
                    received,
                    milliseconds,
                    "request"
                );
            }
            None => tracing::info!(
                method,
                route,
                backup,
                client,
                received,
                milliseconds,
                "request cancelled"
            ),
        }
    }
}

/// Writes the line of bytes that hyper could not parse as an HTTP/1.1 request, and answered itself.
pub(crate) fn unreadable(client: Option<LoggedAddress>, status: u16) {
    let client = client.map(tracing::field::display);
    tracing::info!(client, status, "malformed request");
}

/// The method as it appears in the log: one of a fixed list, so that no client can write to the
/// log.
pub(crate) fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 15] = [
        "GET",
        "HEAD",
        "PUT",
        "DELETE",
        "OPTIONS",
        "PROPFIND",
        "POST",
        "PATCH",
        "PROPPATCH",
        "MKCOL",
        "COPY",
        "MOVE",
        "LOCK",
        "UNLOCK",
        "REPORT",
    ];
    KNOWN
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("other")
}
