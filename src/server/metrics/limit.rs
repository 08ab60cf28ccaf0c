//! Limits that refuse clients, with a counter of refusals for each.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::server::metrics::label::LimitName;

/// Why a client was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The number of connections; an idle one was evicted.
    Connections,
    /// The number of connections from one address.
    ConnectionsPerAddress,
    /// Time of the TLS handshake.
    Handshake,
    /// Time, bytes or lines of a request's header.
    Header,
    /// Time or rate of a request's body.
    Body,
    /// The client read the response too slowly.
    Response,
    /// Bytes received without a request in progress.
    UnsolicitedBytes,
    /// Streams that the client reset on one HTTP/2 connection.
    Resets,
    /// Memory for uploads, or concurrent requests.
    Overload,
    /// Not a limit: a request without TLS from a client that is no trusted proxy.
    Plaintext,
    /// Not a limit: ambiguous request framing.
    Framing,
    /// Wrong passwords for one account from one address.
    WrongPasswordsPerAccount,
    /// Wrong passwords for all accounts from one address.
    WrongPasswordsPerAddress,
    /// Requests of one account from all addresses for backups that do not exist.
    UnknownBackupsPerAccount,
    /// Requests of one account from one address for backups that do not exist.
    UnknownBackupsPerAddress,
    /// New backups of one account from one address.
    NewBackupsPerAddress,
    /// The quota `maxBackups`.
    MaxBackups,
    /// The quota `maxTotalBytes`.
    MaxTotalBytes,
    /// The quota `minFreeBytes`.
    MinFreeBytes,
    /// The quota `newBackupsPerAccountAndDay`.
    NewBackupsPerAccountAndDay,
}

impl Limit {
    const ALL: [Self; 20] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Handshake,
        Self::Header,
        Self::Body,
        Self::Response,
        Self::UnsolicitedBytes,
        Self::Resets,
        Self::Overload,
        Self::Plaintext,
        Self::Framing,
        Self::WrongPasswordsPerAccount,
        Self::WrongPasswordsPerAddress,
        Self::UnknownBackupsPerAccount,
        Self::UnknownBackupsPerAddress,
        Self::NewBackupsPerAddress,
        Self::MaxBackups,
        Self::MaxTotalBytes,
        Self::MinFreeBytes,
        Self::NewBackupsPerAccountAndDay,
    ];

    /// The limit's name in metrics and in the log.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::Handshake => "handshake",
            Self::Header => "header",
            Self::Body => "body",
            Self::Response => "response",
            Self::UnsolicitedBytes => "unsolicited_bytes",
            Self::Resets => "resets",
            Self::Overload => "overload",
            Self::Plaintext => "plaintext",
            Self::Framing => "framing",
            Self::WrongPasswordsPerAccount => "wrong_passwords_per_account",
            Self::WrongPasswordsPerAddress => "wrong_passwords_per_address",
            Self::UnknownBackupsPerAccount => "unknown_backups_per_account",
            Self::UnknownBackupsPerAddress => "unknown_backups_per_address",
            Self::NewBackupsPerAddress => "new_backups_per_address",
            Self::MaxBackups => "max_backups",
            Self::MaxTotalBytes => "max_total_bytes",
            Self::MinFreeBytes => "min_free_bytes",
            Self::NewBackupsPerAccountAndDay => "new_backups_per_account_and_day",
        }
    }
}

/// Counts refusals by limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals(Family<LimitName, Counter>);

impl Refusals {
    /// Counts a refusal.
    pub(crate) fn count(&self, limit: Limit) {
        let limit = limit.label();
        self.0.get_or_create(&LimitName { limit }).inc();
    }

    /// Registers the counters of all limits, so that each is exported from the start.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("refused", "Refusals of clients, by limit", self.0.clone());
        for limit in Limit::ALL {
            let limit = limit.label();
            drop(self.0.get_or_create(&LimitName { limit }));
        }
    }
}
