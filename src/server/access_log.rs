//! The line of one request in the log: what was done, how it ended, how long it took. No identity is in it.

use std::time::Instant;

use http::Method;

use super::address::Shown;
use super::pseudonym::Pseudonym;

/// The line of one request in the log. Written when it is dropped, so that a request whose client goes away
/// has one too.
pub(super) struct AccessLine {
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    /// For the routes of backups alone.
    pub(super) backup: Option<Pseudonym>,
    /// Where operators want it.
    pub(super) client: Option<Shown>,
    pub(super) started: Instant,
    pub(super) received: u64,
    /// `None` when there was no answer to give.
    pub(super) status: Option<u16>,
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        let milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Self {
            method,
            route,
            backup,
            client,
            received,
            ..
        } = *self;
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

/// The method as a word for the log; what a client makes up does not get there.
pub(super) fn known_method(method: &Method) -> &'static str {
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
