//! HTTPS server: opens what the configuration names, binds the listeners, serves, and shuts down.
//!
//! `connection.rs` serves the connections of each listener; maintenance and the admin listener run
//! as background tasks.

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
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::account::Authenticator;
use crate::clock::{Clock, since_boot};
use crate::config::{Config, Listen, Problem, Tls};
use crate::error_chain::with_causes;
use crate::retention::RecentUploads;
use crate::store::{self, Access, OpenError, Opened};
use crate::time::unix;

use self::acme::{Progress, Renewer};
use self::admin::collector::StatusCollector;
use self::connection::{Connection, accept};
use self::maintenance::Maintenance;
use self::metrics::Metrics;
use self::net::client_address::ClientAddress;
use self::net::connection_limiter::ConnectionLimiter;
use self::net::listener::{Listener, bind_tcp, inherited_tcp};
use self::request::context::Services;
use self::settings::SettingsHandle;
use self::status::RunState;
use self::tls::certificates::Certificates;
use self::tls::{alpn, config::server_config};

pub use admin::{HEALTH_PATH, STATUS_PATH};
pub use error::StartError;
pub use net::inherited_sockets::{Socket, Sockets};
pub use preflight::make_private;
pub use settings::{Reloader, retention_of};
pub use status::{
    AccountsStatus, AcmeStatus, Alert, CertificateStatus, Failure, Finding, Severity, Status,
    StorageStatus, Sweep,
};
pub use tls::pem::{Error as TlsError, load as load_tls, load_certificates};
pub use tls::self_signed::{DevelopmentCertificate, development_certificate};

/// Checks everything that a configuration names. Changes nothing, except that it creates missing
/// directories of ACME, and of the storage beside existing backups.
#[must_use]
pub fn check(config: &Config, now: SystemTime) -> Vec<Finding> {
    preflight::check(config, retention_of(config), now)
}

/// A server that has opened its files and listens, but does not accept connections yet.
pub struct Server {
    public: Vec<Listener>,
    admin: TcpListener,
    tls: Option<TlsAcceptor>,
    settings: Arc<SettingsHandle>,
    limiter: Arc<ConnectionLimiter>,
    reloader: Reloader,
    collector: Arc<StatusCollector>,
    maintenance: Maintenance,
    renewer: Option<Renewer>,
}

/// TLS of the public listeners. Empty where a proxy terminates TLS.
#[derive(Default)]
struct PublicTls {
    config: Option<Arc<ServerConfig>>,
    certificates: Option<Arc<Certificates>>,
    /// Only where an ACME authority issues the certificate.
    progress: Option<Arc<Progress>>,
    renewer: Option<Renewer>,
}

impl Server {
    /// Opens everything that the configuration names, then binds the listeners. Nothing runs yet,
    /// and nothing is changed on disk but the directories of the data directory.
    ///
    /// # Errors
    /// With all problems of the configuration at once, or the first address that cannot be bound.
    pub async fn bind(config: &Config, clock: fn() -> SystemTime) -> Result<Self, StartError> {
        Self::bind_to(Sockets::default(), config, clock).await
    }

    /// As [`Server::bind`], on inherited sockets; without any, on the addresses of the
    /// configuration.
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

    /// As [`Server::bind`], over a storage that is already open. The storage that the configuration
    /// names is not opened.
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
        let authenticator =
            Authenticator::open_optional(&config.accounts_file, config.allow_anonymous);
        let authenticator = collect(&mut problems, "accountsFile", authenticator);
        let opened = collect(&mut problems, config.storage.description().key, opened);
        let (Some(tls), Some(authenticator), Some(opened)) = (tls, authenticator, opened) else {
            return Err(StartError::Configuration(problems));
        };
        if authenticator.is_empty() && !config.allow_anonymous {
            let text = "contains no accounts; run `account add NAME` (or set \"allowAnonymous\": \
                        true to admit every client)";
            problems.push(Problem {
                place: "accountsFile".into(),
                text: text.into(),
            });
            return Err(StartError::Configuration(problems));
        }

        let public = Listener::all(&config.listen, sockets.public).await?;
        let admin = match sockets.admin {
            Some(socket) => inherited_tcp(socket)?,
            None => bind_tcp("admin.listen", config.admin_listen).await?,
        };
        let Opened { store, state } = opened;
        let metrics = Arc::new(Metrics::new(unix(clock())));
        let run_state = Arc::new(RunState::new(clock()));
        let known_time = Arc::new(Clock::new(clock, since_boot));
        // If the state cannot be read, the first sweep reports it.
        if let Ok(saved) = state.load().await {
            known_time.remember(&saved);
        }
        let recent = Arc::new(RecentUploads::default());
        let services = Services {
            authenticator: Arc::new(authenticator),
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            uploads: Arc::default(),
            run_state: Arc::clone(&run_state),
            pseudonyms: Arc::default(),
            proxy_detector: Arc::default(),
            clock: Arc::clone(&known_time),
            recent: Arc::clone(&recent),
        };
        let settings = SettingsHandle::new(config, &services);
        let limiter = ConnectionLimiter::new(config.limits, metrics.refusals());
        let collector = Arc::new(StatusCollector {
            run_state: Arc::clone(&run_state),
            metrics: Arc::clone(&metrics),
            uploads: Arc::clone(&services.uploads),
            certificates: tls.certificates.clone(),
            acme: tls.progress,
            store: Arc::clone(&store),
            settings: Arc::clone(&settings),
            authenticator: Arc::clone(&services.authenticator),
            clock,
        });
        let maintenance = Maintenance {
            store,
            state,
            settings: Arc::clone(&settings),
            metrics,
            uploads: Arc::clone(&services.uploads),
            run_state,
            clock: known_time,
            recent,
        };
        Ok(Self {
            public,
            admin,
            tls: tls.config.map(TlsAcceptor::from),
            reloader: Reloader::new(
                Arc::clone(&settings),
                Arc::clone(&limiter),
                services,
                tls.certificates,
                config,
            ),
            settings,
            limiter,
            collector,
            maintenance,
            renewer: tls.renewer,
        })
    }

    /// The addresses of the public listeners, with the ports that the system assigned.
    ///
    /// # Errors
    /// When `getsockname` fails.
    pub fn addresses(&self) -> io::Result<Vec<Listen>> {
        self.public.iter().map(Listener::address).collect()
    }

    /// The address of the admin listener.
    ///
    /// # Errors
    /// When `getsockname` fails.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// The alerts at the start; those of the storage are not known yet.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        self.collector.status_without_storage().alerts()
    }

    /// A hook for `std::panic::set_hook` that logs the location of each panic of the process, and
    /// counts it (`safe_panics_total`).
    #[must_use]
    pub fn panic_hook(&self) -> Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> {
        self.maintenance.metrics.panic_hook()
    }

    /// The handle that reloads the settings of the running server.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Serves one connection whose handshake is done elsewhere, until it ends, as the listeners do.
    /// For fuzzing (`fuzz/`).
    pub async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        version: Version,
    ) {
        let (_running, stopped) = watch::channel(false);
        let connection = self.connection(stopped);
        // Without a free slot the connection is dropped.
        let Ok(guard) = connection.limiter.acquire(ClientAddress::Unknown, false) else {
            return;
        };
        connection.serve_http(stream, version, &guard).await;
    }

    /// Serves until `stop` resolves. Then accepts no more connections, lets requests in flight
    /// finish within `drainSeconds`, and returns.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let mut listeners = JoinSet::new();
        let connection = self.connection(stopped);
        for listener in self.public {
            listeners.spawn(accept(listener, connection.clone()));
        }
        let mut background = JoinSet::new();
        background.spawn(admin::serve(self.admin, self.collector));
        let maintenance = self.maintenance.clone();
        background.spawn(self.maintenance.clone().sweep_hourly());
        background.spawn(self.maintenance.scrub_weekly());
        if let Some(renewer) = self.renewer {
            background.spawn(renewer.run());
        }
        self.reloader.keep_files_fresh(&mut background);

        stop.await;
        tracing::info!("graceful shutdown started");
        maintenance.run_state.start_draining();
        stopping.send_replace(true);
        while listeners.join_next().await.is_some() {}
        maintenance.save_upload_history().await;
        tracing::info!("stopped");
    }

    fn connection(&self, stopped: watch::Receiver<bool>) -> Connection {
        let settings = self.settings.current();
        Connection {
            tls: self.tls.clone(),
            settings: Arc::clone(&self.settings),
            limiter: Arc::clone(&self.limiter),
            limits: settings.config.limits,
            max_backup_bytes: settings.config.max_backup_bytes,
            refusals: self.maintenance.metrics.refusals(),
            traffic: self.maintenance.metrics.traffic(),
            stopped,
        }
    }
}

fn open_tls(
    problems: &mut Vec<Problem>,
    config: &Config,
    clock: fn() -> SystemTime,
) -> Option<PublicTls> {
    const HTTP: [&[u8]; 2] = [alpn::HTTP_2, alpn::HTTP_1_1];
    match &config.tls {
        Tls::Off => Some(PublicTls::default()),
        Tls::Files(files) => {
            let certificates = Arc::new(collect(problems, "tls", Certificates::open(files))?);
            let resolver = Arc::<Certificates>::clone(&certificates);
            Some(PublicTls {
                config: Some(server_config(resolver, &HTTP)),
                certificates: Some(certificates),
                ..PublicTls::default()
            })
        }
        Tls::Acme(acme) => {
            let opened = collect(problems, "tls.acme", acme::open(acme, clock))?;
            let [http_2, http_1_1] = HTTP;
            let protocols = [http_2, http_1_1, alpn::ACME_TLS_1];
            Some(PublicTls {
                config: Some(server_config(Arc::new(opened.resolver), &protocols)),
                certificates: Some(opened.certificates),
                progress: Some(opened.progress),
                renewer: Some(opened.renewer),
            })
        }
    }
}

/// Returns the value, or records the problem with all its causes.
fn collect<T, E: StdError>(
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
    async fn a_connection_from_outside_a_listener_is_served_until_its_client_ends_it() {
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
        let exchange = async {
            let request = b"GET /config HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            client.write_all(request).await.unwrap();
            let mut response = String::new();
            client.read_to_string(&mut response).await.unwrap();
            response
        };

        let ((), response) =
            tokio::join!(server.serve_connection(stream, Version::HTTP_11), exchange);

        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    }
}
