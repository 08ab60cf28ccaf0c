//! What a client can come up against, and how often somebody did.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What a client came up against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// An idle connection made room for another.
    Connections,
    ConnectionsPerAddress,
    Handshake,
    /// The header: its time, its bytes or its lines.
    Header,
    /// The body: its time, its speed.
    Body,
    /// The answer was taken too slowly.
    Answer,
    /// What is no request, without end.
    Chatter,
    Resets,
    /// Memory for uploads, or requests at work.
    Overload,
    /// No limit, but a client that would speak without TLS to a server from which it is taken off.
    Plaintext,
    /// No limit, but a request that two readers could read differently.
    Framing,
    WrongPasswordsPerAccount,
    WrongPasswordsPerAddress,
    UnknownBackupsPerAccount,
    UnknownBackupsPerAddress,
    NewBackupsPerAddress,
    MaxBackups,
    MaxTotalBytes,
    MinFreeBytes,
    NewBackupsPerAccountAndDay,
}

impl Limit {
    const ALL: [Self; 20] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Handshake,
        Self::Header,
        Self::Body,
        Self::Answer,
        Self::Chatter,
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

    /// Its name in metrics and in the log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::Handshake => "handshake",
            Self::Header => "header",
            Self::Body => "body",
            Self::Answer => "answer",
            Self::Chatter => "chatter",
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLimit {
    limit: &'static str,
}

/// Counts who came up against which limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals(Family<ByLimit, Counter>);

impl Refusals {
    pub(crate) fn count(&self, limit: Limit) {
        let limit = limit.word();
        self.0.get_or_create(&ByLimit { limit }).inc();
    }

    /// Shows every limit, also those that nobody came up against.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "refused",
            "Clients that came up against a limit",
            self.0.clone(),
        );
        for limit in Limit::ALL {
            let limit = limit.word();
            drop(self.0.get_or_create(&ByLimit { limit }));
        }
    }
}
