//! What is told of one request when it ends: its line in the log (what was done, how it ended, how long it took), and
//! its share of the metrics. No identity is in it.

use std::time::Instant;

use http::Method;

use crate::server::metrics::InFlightRequest;
use crate::server::net::client_address::Shown;
use crate::server::request::pseudonym::Pseudonym;

/// Written when it is dropped, so that a request whose client goes away has a line too.
pub(crate) struct AccessLine<'a> {
    pub(crate) metrics: InFlightRequest<'a>,
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    /// For the routes of backups alone.
    pub(crate) backup: Option<Pseudonym>,
    /// Where operators want it.
    pub(crate) client: Option<Shown>,
    pub(crate) started: Instant,
    pub(crate) received: u64,
    /// `None` when there was no answer to give.
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
                "request was given up"
            ),
        }
    }
}

/// The line of what HTTP/1.1 could not read as a request, and answered by itself.
pub(crate) fn unreadable(client: Option<Shown>, status: u16) {
    let client = client.map(tracing::field::display);
    tracing::info!(client, status, "request could not be read");
}

/// The method as a word for the log; what a client makes up does not get there.
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
