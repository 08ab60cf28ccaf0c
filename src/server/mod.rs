//! The server's life: open what is configured, listen, hand each listener to `connection.rs`, work in the
//! background, stop.

mod acme;
mod admin;
mod connection;
mod error;
mod limits;
mod maintenance;
mod metrics;
mod net;
mod preflight;
mod request;
mod settings;
mod status;
mod tls;

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::SystemTime;

use ::http::Version;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, Listen, Problem, Tls};
use crate::error_chain::with_causes;
use crate::store::{self, Access, OpenError, Opened};
use crate::time::unix;

use self::acme::Keeper;
use self::admin::collector::StatusCollector;
use self::connection::{Connection, accept};
use self::maintenance::Background;
use self::metrics::Metrics;
use self::net::client_address::ClientAddress;
use self::net::connection_limiter::Places;
use self::net::listener::{Listener, bind_tcp, given_tcp};
use self::preflight::open_authenticator;
use self::request::context::Means;
use self::settings::Live;
use self::status::RunState;
use self::tls::certificates::Certificates;

pub use admin::{HEALTH_PATH, STATUS_PATH};
pub use error::StartError;
pub use net::inherited_sockets::{Socket, Sockets};
pub use preflight::check;
pub use settings::{Reloader, retention_of};
pub use status::{
    AccountsStatus, AcmeStatus, Alert, CertificateStatus, Failure, Finding, Severity, Status,
    StorageStatus, Sweep,
};
pub use tls::pem::{Error as TlsError, load as load_tls, load_certificates};
pub use tls::self_signed::{DevelopmentCertificate, development_certificate};

/// A server that has everything it needs and listens, but does not answer yet.
pub struct Server {
    public: Vec<Listener>,
    admin: TcpListener,
    tls: Option<TlsAcceptor>,
    live: Arc<Live>,
    places: Arc<Places>,
    reloader: Reloader,
    collector: Arc<StatusCollector>,
    background: Background,
    keeper: Option<Keeper>,
}

impl Server {
    /// Opens everything that the configuration names, then binds the listeners. Nothing is started and
    /// nothing is changed on disk but the data directory's own folders.
    ///
    /// # Errors
    /// With all that cannot be used at once, or the first address that cannot be bound.
    pub async fn bind(config: &Config, clock: fn() -> SystemTime) -> Result<Self, StartError> {
        Self::bind_to(Sockets::default(), config, clock).await
    }

    /// As [`Server::bind`], on sockets that are open already; where there are none, on what the configuration names.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn bind_to(
        sockets: Sockets,
        config: &Config,
        clock: fn() -> SystemTime,
    ) -> Result<Self, StartError> {
        let opened = store::open(&config.storage, Access::Server);
        Self::open(config, opened, sockets, clock).await
    }

    /// As [`Server::bind`], over a storage that is open already; the configuration's is not opened.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn bind_over(
        config: &Config,
        opened: Opened,
        clock: fn() -> SystemTime,
    ) -> Result<Self, StartError> {
        Self::open(config, Ok(opened), Sockets::default(), clock).await
    }

    async fn open(
        config: &Config,
        opened: Result<Opened, OpenError>,
        sockets: Sockets,
        clock: fn() -> SystemTime,
    ) -> Result<Self, StartError> {
        let mut problems = Vec::new();
        let tls = open_tls(&mut problems, config, clock);
        let authenticator = note(&mut problems, "accountsFile", open_authenticator(config));
        let opened = note(&mut problems, config.storage.description().key, opened);
        let (Some((certificates, keeper)), Some(authenticator), Some(opened)) =
            (tls, authenticator, opened)
        else {
            return Err(StartError::Configuration(problems));
        };
        if authenticator.is_empty() && !config.allow_anonymous {
            let text = "has no account, so nobody could come in; add one with `account add NAME` (or set \
                        \"allowAnonymous\": true, and everybody can)";
            problems.push(Problem {
                place: "accountsFile".into(),
                text: text.into(),
            });
            return Err(StartError::Configuration(problems));
        }

        let public = Listener::all(&config.listen, sockets.public).await?;
        let admin = match sockets.admin {
            Some(given) => given_tcp(given)?,
            None => bind_tcp("admin.listen", config.admin_listen).await?,
        };
        let Opened { store, state } = opened;
        let certificates = certificates.map(Arc::new);
        let metrics = Arc::new(Metrics::new(unix(clock())));
        let run_state = Arc::new(RunState::new(clock()));
        let means = Means {
            authenticator: Arc::new(authenticator),
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            uploads: Arc::default(),
            run_state: Arc::clone(&run_state),
            pseudonyms: Arc::default(),
            crowd: Arc::default(),
            clock,
        };
        let live = Live::new(config, &means);
        let places = Places::new(config.limits, metrics.refusals());
        let collector = Arc::new(StatusCollector {
            run_state: Arc::clone(&run_state),
            metrics: Arc::clone(&metrics),
            uploads: Arc::clone(&means.uploads),
            certificates: certificates.clone(),
            store: Arc::clone(&store),
            live: Arc::clone(&live),
            authenticator: Arc::clone(&means.authenticator),
            clock,
        });
        let background = Background {
            store,
            state,
            live: Arc::clone(&live),
            metrics,
            uploads: Arc::clone(&means.uploads),
            run_state,
            clock,
        };
        Ok(Self {
            public,
            admin,
            tls: certificates.map(|its| TlsAcceptor::from(tls::pem::server_config(its))),
            reloader: Reloader::new(Arc::clone(&live), Arc::clone(&places), means, config),
            live,
            places,
            collector,
            background,
            keeper,
        })
    }

    /// What the public listeners listen on, with the ports that were given by the system.
    ///
    /// # Errors
    /// When the system does not know them.
    pub fn addresses(&self) -> io::Result<Vec<Listen>> {
        self.public.iter().map(Listener::address).collect()
    }

    /// The address of the admin listener.
    ///
    /// # Errors
    /// When the system does not know it.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// What needs a person already at the start; of the storage, nothing is known yet.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        self.collector.status_without_storage().alerts()
    }

    /// Logs where each panic of the process was, and counts it (`safe_panics_total`). For `std::panic::set_hook`.
    #[must_use]
    pub fn panic_hook(&self) -> Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> {
        self.background.metrics.panic_hook()
    }

    /// Changes its settings while it runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Answers one connection whose handshake is done elsewhere, until it ends; the listeners do the same with
    /// theirs. For whoever searches for bytes that no connection survives (`fuzz/`).
    pub async fn answer(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        version: Version,
    ) {
        let (_running, stopped) = watch::channel(false);
        let connection = self.connection(stopped);
        // Nobody else has one of these places.
        let Ok(held) = connection.places.take(ClientAddress::Unknown, false) else {
            return;
        };
        connection.answer(stream, version, &held).await;
    }

    /// Answers until `stop` is done; then accepts nothing more, lets requests under way finish within
    /// `drainSeconds`, and returns.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let mut listeners = JoinSet::new();
        let connection = self.connection(stopped);
        for listener in self.public {
            listeners.spawn(accept(listener, connection.clone()));
        }
        let mut background = JoinSet::new();
        background.spawn(admin::serve(self.admin, self.collector));
        let last_work = self.background.clone();
        background.spawn(self.background.clone().sweep_hourly());
        background.spawn(self.background.scrub_weekly());
        if let Some(keeper) = self.keeper {
            background.spawn(keeper.keep());
        }

        stop.await;
        tracing::info!("stopping: no new connections, requests under way finish");
        last_work.run_state.start_draining();
        stopping.send_replace(true);
        while listeners.join_next().await.is_some() {}
        last_work.remember_uploads().await;
        tracing::info!("stopped");
    }

    fn connection(&self, stopped: watch::Receiver<bool>) -> Connection {
        let settings = self.live.now();
        Connection {
            tls: self.tls.clone(),
            live: Arc::clone(&self.live),
            places: Arc::clone(&self.places),
            limits: settings.config.limits,
            max_backup_bytes: settings.config.max_backup_bytes,
            refusals: self.background.metrics.refusals(),
            traffic: self.background.metrics.traffic(),
            stopped,
        }
    }
}

/// What handshakes use, and what keeps it in force where an authority is asked for it; nothing where a proxy ends TLS.
fn open_tls(
    problems: &mut Vec<Problem>,
    config: &Config,
    clock: fn() -> SystemTime,
) -> Option<(Option<Certificates>, Option<Keeper>)> {
    match &config.tls {
        Tls::Off => Some((None, None)),
        Tls::Files(files) => {
            let certificates = note(problems, "tls", Certificates::open(files))?;
            Some((Some(certificates), None))
        }
        Tls::Acme(acme) => {
            let opened = note(problems, "tls.acme", acme::open(acme, clock))?;
            Some((Some(opened.certificates), Some(opened.keeper)))
        }
    }
}

/// Keeps the value, or the problem with all its causes.
fn note<T, E: StdError>(
    problems: &mut Vec<Problem>,
    place: &str,
    result: Result<T, E>,
) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            problems.push(Problem {
                place: place.into(),
                text: with_causes(&error),
            });
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn clock() -> SystemTime {
        SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(20_000 * 24 * 60 * 60)
    }

    #[tokio::test]
    async fn a_connection_from_elsewhere_is_answered_and_ends_with_its_client() {
        let directory = tempfile::tempdir().unwrap();
        let made = development_certificate(&["localhost".into()], clock()).unwrap();
        for (name, text) in [("chain", made.chain_pem), ("key", made.private_key_pem)] {
            crate::durable::replace(&directory.path().join(name), text.as_bytes()).unwrap();
        }
        let text = br#"{ "listen": ["127.0.0.1:0"], "admin": { "listen": "127.0.0.1:0" }, "allowAnonymous": true,
            "tls": { "certificateFile": "chain", "privateKeyFile": "key" } }"#;
        let config = Config::from_json(text, &directory.path().join("config.json")).unwrap();
        let server = Server::bind(&config, clock).await.unwrap();
        let (mut client, stream) = tokio::io::duplex(1 << 10);
        let talk = async {
            let request = b"GET /config HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            client.write_all(request).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };

        let ((), answer) = tokio::join!(server.answer(stream, Version::HTTP_11), talk);

        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}
