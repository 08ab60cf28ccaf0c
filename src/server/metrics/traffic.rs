//! Connection metrics: number, bytes and TLS handshakes.

use std::io;
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{InspectReader, InspectWriter};

use crate::server::metrics::label::{Kind, Number};

/// Buckets of the handshake's duration in seconds. The server computes for a tenth of a
/// millisecond; the rest is two round trips to the client.
const BUCKETS: [f64; 10] = [0.0025, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The metrics of connections.
pub(crate) struct Traffic {
    open: Number,
    accepted: Counter,
    received: Counter,
    sent: Counter,
    handshakes: Histogram,
    failed: Family<Kind, Counter>,
}

/// An open connection, until this is dropped.
pub(crate) struct Open<'a>(&'a Traffic);

impl Traffic {
    /// Creates the metrics and registers them.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let traffic = Self {
            open: Gauge::default(),
            accepted: Counter::default(),
            received: Counter::default(),
            sent: Counter::default(),
            handshakes: Histogram::new(BUCKETS),
            failed: Family::default(),
        };
        registry.register("connections", "Open connections", traffic.open.clone());
        registry.register(
            "connections_accepted",
            "Connections accepted",
            traffic.accepted.clone(),
        );
        registry.register_with_unit(
            "received",
            "Received from clients, headers included, TLS overhead excluded",
            Unit::Bytes,
            traffic.received.clone(),
        );
        registry.register_with_unit(
            "sent",
            "Sent to clients, headers included, TLS overhead excluded",
            Unit::Bytes,
            traffic.sent.clone(),
        );
        registry.register_with_unit(
            "handshake_duration",
            "Duration of successful TLS handshakes",
            Unit::Seconds,
            traffic.handshakes.clone(),
        );
        registry.register(
            "handshakes_failed",
            "Failed TLS handshakes, by kind of failure",
            traffic.failed.clone(),
        );
        for kind in Failure::ALL {
            let kind = kind.label();
            drop(traffic.failed.get_or_create(&Kind { kind }));
        }
        traffic
    }

    /// Counts an accepted connection.
    pub(crate) fn opened(&self) -> Open<'_> {
        self.open.inc();
        self.accepted.inc();
        Open(self)
    }

    /// Counts the bytes of a stream.
    pub(crate) fn count<S>(&self, stream: S) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (received, sent) = (self.received.clone(), self.sent.clone());
        let stream = InspectWriter::new(stream, move |bytes: &[u8]| {
            sent.inc_by(bytes.len() as u64);
        });
        InspectReader::new(stream, move |bytes: &[u8]| {
            received.inc_by(bytes.len() as u64);
        })
    }

    /// Measures a TLS handshake; one that is dropped before it ends has timed out.
    pub(crate) async fn watch<T>(
        &self,
        handshake: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut unfinished = UnfinishedHandshake(Some(self));
        let started = Instant::now();
        let ended = handshake.await;
        unfinished.0 = None;
        match &ended {
            Ok(_) => self.handshakes.observe(started.elapsed().as_secs_f64()),
            Err(error) => self.failed(Failure::of(error)),
        }
        ended
    }

    fn failed(&self, failure: Failure) {
        let kind = failure.label();
        self.failed.get_or_create(&Kind { kind }).inc();
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}

/// A handshake in progress, which counts as timed out when this is dropped.
struct UnfinishedHandshake<'a>(Option<&'a Traffic>);

impl Drop for UnfinishedHandshake<'_> {
    fn drop(&mut self) {
        if let Some(traffic) = self.0 {
            traffic.failed(Failure::Timeout);
        }
    }
}

/// Why a handshake failed, in the kinds that an operator can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The client reports an expired certificate.
    CertificateExpired,
    /// The client does not trust the certificate's issuer.
    UnknownAuthority,
    /// The client refuses the certificate for another reason.
    CertificateRefused,
    /// No protocol version or cipher in common.
    Incompatible,
    /// The client sent something other than TLS.
    NotTls,
    /// The client disconnected.
    Disconnected,
    /// The handshake was cancelled at its time limit.
    Timeout,
    /// Any other reason.
    Other,
}

impl Failure {
    const ALL: [Self; 8] = [
        Self::CertificateExpired,
        Self::UnknownAuthority,
        Self::CertificateRefused,
        Self::Incompatible,
        Self::NotTls,
        Self::Disconnected,
        Self::Timeout,
        Self::Other,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::CertificateExpired => "certificate_expired",
            Self::UnknownAuthority => "unknown_authority",
            Self::CertificateRefused => "certificate_refused",
            Self::Incompatible => "incompatible",
            Self::NotTls => "not_tls",
            Self::Disconnected => "disconnected",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }

    fn of(error: &io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let inner = error.get_ref();
        match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Self::of_tls(error),
            None if [
                BrokenPipe,
                ConnectionAborted,
                ConnectionReset,
                UnexpectedEof,
            ]
            .contains(&error.kind()) =>
            {
                Self::Disconnected
            }
            None => Self::Other,
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most errors of rustls are of no use to an operator"
    )]
    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => match alert {
                AlertDescription::CertificateExpired => Self::CertificateExpired,
                AlertDescription::UnknownCA => Self::UnknownAuthority,
                AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRevoked
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied => Self::CertificateRefused,
                AlertDescription::HandshakeFailure
                | AlertDescription::InsufficientSecurity
                | AlertDescription::NoApplicationProtocol
                | AlertDescription::ProtocolVersion => Self::Incompatible,
                AlertDescription::CloseNotify | AlertDescription::UserCanceled => {
                    Self::Disconnected
                }
                _ => Self::Other,
            },
            rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => {
                Self::Incompatible
            }
            rustls::Error::InvalidMessage(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::InappropriateHandshakeMessage { .. } => Self::NotTls,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use rustls::{Error, InvalidMessage, PeerIncompatible};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn kind(error: Error) -> Failure {
        Failure::of(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn encoded(registry: &Registry) -> String {
        let mut all = String::new();
        text::encode(&mut all, registry).unwrap();
        all
    }

    #[test]
    fn a_failed_handshake_is_counted_by_its_kind() {
        let alert = |description| kind(Error::AlertReceived(description));
        for (found, expected) in [
            (
                alert(AlertDescription::CertificateExpired),
                Failure::CertificateExpired,
            ),
            (
                alert(AlertDescription::UnknownCA),
                Failure::UnknownAuthority,
            ),
            (
                alert(AlertDescription::CertificateUnknown),
                Failure::CertificateRefused,
            ),
            (
                alert(AlertDescription::ProtocolVersion),
                Failure::Incompatible,
            ),
            (alert(AlertDescription::UserCanceled), Failure::Disconnected),
            (alert(AlertDescription::InternalError), Failure::Other),
            (
                kind(Error::PeerIncompatible(
                    PeerIncompatible::NoCipherSuitesInCommon,
                )),
                Failure::Incompatible,
            ),
            (
                kind(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
                Failure::NotTls,
            ),
            (kind(Error::EncryptError), Failure::Other),
            (
                Failure::of(&io::ErrorKind::UnexpectedEof.into()),
                Failure::Disconnected,
            ),
            (
                Failure::of(&io::ErrorKind::ConnectionReset.into()),
                Failure::Disconnected,
            ),
            (
                Failure::of(&io::ErrorKind::OutOfMemory.into()),
                Failure::Other,
            ),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn a_handshake_is_measured_or_counted_as_failed_or_timed_out() {
        let mut registry = Registry::default();
        let traffic = Traffic::register(&mut registry);

        let done = traffic.watch(async { Ok(1) }).await;
        let disconnected = async { Err::<(), _>(io::ErrorKind::UnexpectedEof.into()) };
        let disconnected = traffic.watch(disconnected).await;
        tokio::select! {
            biased;
            _ = traffic.watch(std::future::pending::<io::Result<()>>()) => panic!("it ended"),
            () = std::future::ready(()) => {}
        }

        assert_eq!((done.ok(), disconnected.is_err()), (Some(1), true));
        let all = encoded(&registry);
        for line in [
            "handshake_duration_seconds_count 1\n",
            "handshakes_failed_total{kind=\"disconnected\"} 1\n",
            "handshakes_failed_total{kind=\"timeout\"} 1\n",
        ] {
            assert!(all.contains(line), "{line}: {all}");
        }
    }

    #[tokio::test]
    async fn bytes_are_counted_each_way_while_a_connection_is_open() {
        let mut registry = Registry::default();
        let traffic = Traffic::register(&mut registry);
        let (mut client, stream) = tokio::io::duplex(64);
        let mut stream = traffic.count(stream);
        let open = traffic.opened();

        client.write_all(&[0; 5]).await.unwrap();
        stream.read_exact(&mut [0; 5]).await.unwrap();
        stream.write_all(&[0; 7]).await.unwrap();
        assert!(encoded(&registry).contains("connections 1\n"));
        drop(open);

        let all = encoded(&registry);
        for line in [
            "connections 0\n",
            "connections_accepted_total 1\n",
            "received_bytes_total 5\n",
            "sent_bytes_total 7\n",
        ] {
            assert!(all.contains(line), "{line}: {all}");
        }
    }
}
