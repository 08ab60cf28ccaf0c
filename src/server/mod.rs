//! The server's life: bind, accept, TLS, hand each request to `http.rs`, work in the background, stop.
//!
//! Accepting only accepts: the handshake runs in each connection's own task under a deadline, so that no
//! silent client delays another. Whoever is too many waits: one in each listener's hand, the others in the
//! kernel's queue.

mod admin;
mod background;
mod body;
mod check;
mod dav;
mod development;
mod http;
mod metrics;
mod node;
mod page;
mod reply;
mod route;
mod status;
mod tls;
mod xml;

use std::error::Error as StdError;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::Version;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::account::Gate;
use crate::config::{Config, Limits, Problem, Storage};
use crate::retention::Retention;
use crate::state::StateFile;
use crate::store::{FileStore, Store};

use self::background::Background;
use self::http::App;
use self::status::Vitals;

pub use admin::{HEALTH_PATH, STATUS_PATH};
pub use check::{Finding, Severity, check};
pub use development::{DevelopmentCertificate, development_certificate};
pub use status::{Status, Sweep};
pub use tls::{Error as TlsError, load as load_tls, load_certificates};

/// How long accepting pauses after an error such as "too many open files".
const BACK_OFF: Duration = Duration::from_millis(100);
/// Bytes of one request's header at the most on HTTP/2, and about so many on HTTP/1.1, where they are what
/// is read ahead.
const HEADER_BYTES: u32 = 16 << 10;
/// Bytes that may be under way in one HTTP/2 stream.
const READ_AHEAD: u32 = 64 << 10;
/// Requests at once on one HTTP/2 connection. An app has one.
const STREAMS: u32 = 16;
/// How often a silent HTTP/2 connection is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the configuration names cannot be used.
    #[error("the configuration names things that cannot be used")]
    Configuration(Vec<Problem>),
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}")]
    Listen {
        /// The key of the configuration that names the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A server that has everything it needs and listens, but does not answer yet.
pub struct Server {
    public: Vec<TcpListener>,
    admin: TcpListener,
    tls: TlsAcceptor,
    app: Arc<App>,
    vitals: Arc<Vitals>,
    background: Background,
    limits: Limits,
}

impl Server {
    /// Opens everything that the configuration names, then binds the listeners. Nothing is started and
    /// nothing is changed on disk but the data directory's own folders.
    ///
    /// # Errors
    /// With all that cannot be used at once, or the first address that cannot be bound.
    pub async fn bind(config: &Config, clock: fn() -> SystemTime) -> Result<Self, StartError> {
        let Storage::Files { directory } = &config.storage;
        let store = FileStore::claim(directory).map(|store| Arc::new(store) as Arc<dyn Store>);
        Self::bind_over(config, store, clock).await
    }

    /// As [`Server::bind`], over a store that is there already; what the server remembers lies in the data directory
    /// all the same.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn bind_over<E: StdError>(
        config: &Config,
        store: Result<Arc<dyn Store>, E>,
        clock: fn() -> SystemTime,
    ) -> Result<Self, StartError> {
        let mut problems = Vec::new();
        let key = note(&mut problems, "tls", tls::load(&config.tls));
        let gate = note(&mut problems, "accountsFile", open_gate(config));
        let store = note(&mut problems, "storage.files.directory", store);
        let (Some(key), Some(gate), Some(store)) = (key, gate, store) else {
            return Err(StartError::Configuration(problems));
        };
        if gate.is_empty() && !config.allow_anonymous {
            let text = "has no account, so nobody could come in; add one with `account add NAME` (or set \
                        \"allowAnonymous\": true, and everybody can)";
            problems.push(Problem {
                place: "accountsFile".into(),
                text: text.into(),
            });
            return Err(StartError::Configuration(problems));
        }

        let mut public = Vec::new();
        for &address in &config.listen {
            public.push(listen("listen", address).await?);
        }
        let admin = listen("admin.listen", config.admin_listen).await?;
        let Storage::Files { directory } = &config.storage;
        let vitals = Arc::new(Vitals::new(clock()));
        Ok(Self {
            public,
            admin,
            tls: TlsAcceptor::from(tls::server_config(key)),
            app: Arc::new(App::new(config, gate, Arc::clone(&store), clock)),
            background: Background {
                store,
                state: StateFile::in_directory(directory),
                retention: retention_of(config),
                vitals: Arc::clone(&vitals),
                clock,
            },
            vitals,
            limits: config.limits,
        })
    }

    /// The addresses of the public listeners, with the ports that were given by the system.
    ///
    /// # Errors
    /// When the system does not know them.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.public.iter().map(TcpListener::local_addr).collect()
    }

    /// The address of the admin listener.
    ///
    /// # Errors
    /// When the system does not know it.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Answers one connection whose handshake is done elsewhere, until it ends; the listeners do the same with
    /// theirs. For whoever searches for bytes that no connection survives (`fuzz/`).
    pub async fn answer(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        version: Version,
    ) {
        let (_running, stopped) = watch::channel(false);
        self.connection(stopped).answer(stream, version).await;
    }

    /// Answers until `stop` is done; then accepts nothing more, lets requests under way finish within
    /// `drainSeconds`, and returns.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let mut listeners = JoinSet::new();
        let connection = self.connection(stopped);
        for listener in self.public {
            listeners.spawn(accept(listener, Arc::clone(&places), connection.clone()));
        }
        let mut background = JoinSet::new();
        background.spawn(admin::serve(self.admin, self.vitals, self.background.clock));
        background.spawn(self.background.clone().sweep_hourly());
        background.spawn(self.background.scrub_weekly());

        stop.await;
        tracing::info!("stopping: no new connections, requests under way finish");
        stopping.send_replace(true);
        while listeners.join_next().await.is_some() {}
        tracing::info!("stopped");
    }

    fn connection(&self, stopped: watch::Receiver<bool>) -> Connection {
        Connection {
            tls: self.tls.clone(),
            app: Arc::clone(&self.app),
            limits: self.limits,
            stopped,
        }
    }
}

/// How long the configuration says things are kept.
#[must_use]
pub fn retention_of(config: &Config) -> Retention {
    Retention::of_days(
        config.retention_days,
        config.retention_margin_days,
        config.trash_days,
    )
}

/// The accounts of a configuration; a file that does not exist is no problem where everybody may come in.
fn open_gate(config: &Config) -> Result<Gate, crate::account::FileError> {
    if config.allow_anonymous && !config.accounts_file.exists() {
        return Gate::without_accounts(&config.accounts_file);
    }
    Gate::open(&config.accounts_file)
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

/// An error and its causes on one line.
pub(crate) fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = match TcpListener::bind(address).await {
        // A machine without IPv6: every address is then every address of IPv4.
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED
                && error.kind() == io::ErrorKind::Unsupported =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    };
    bound.map_err(|source| StartError::Listen {
        key,
        address,
        source,
    })
}

/// What a connection needs to be served.
#[derive(Clone)]
struct Connection {
    tls: TlsAcceptor,
    app: Arc<App>,
    limits: Limits,
    stopped: watch::Receiver<bool>,
}

async fn accept(listener: TcpListener, places: Arc<Semaphore>, connection: Connection) {
    let mut connections = JoinSet::new();
    let mut stopped = connection.stopped.clone();
    // Accepted, and waiting for a place. A listener to which nobody comes takes no place from the others.
    let mut waiting = None;
    loop {
        tokio::select! {
            biased;
            () = told(&mut stopped) => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok((stream, _)) => waiting = Some(stream),
                Err(error) => back_off(&error).await,
            },
            place = Arc::clone(&places).acquire_owned(), if waiting.is_some() => {
                let Some(stream) = waiting.take() else { continue };
                let connection = connection.clone();
                connections.spawn(async move {
                    let _place = place;
                    connection.serve(stream).await;
                });
            }
        }
    }
    drop(waiting);
    drop(listener);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if timeout(connection.limits.drain, drained).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests under way were cut off by the stop"
        );
    }
}

/// Done when the server is told to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // An error means that the server is gone altogether.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("a connection ended in a panic; this is a bug");
    }
}

/// Waits a moment after accepting failed: out of descriptors, this passes.
async fn back_off(error: &io::Error) {
    tracing::warn!(%error, "accepting a connection failed");
    sleep(BACK_OFF).await;
}

impl Connection {
    async fn serve(mut self, stream: TcpStream) {
        // Without this, small answers wait for the acknowledgement of the ones before.
        drop(stream.set_nodelay(true));
        let handshake = timeout(self.limits.handshake, self.tls.accept(stream));
        let stream = tokio::select! {
            () = told(&mut self.stopped) => return,
            shaken = handshake => match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "handshake failed"),
                Err(_) => return tracing::debug!("handshake took too long"),
            },
        };
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(tls::HTTP_2) => Version::HTTP_2,
            _ => Version::HTTP_11,
        };
        self.answer(stream, version).await;
    }

    async fn answer<S>(self, stream: S, version: Version)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let served = if version == Version::HTTP_2 {
            self.serve_http_2(stream).await
        } else {
            self.serve_http_1(stream).await
        };
        if let Err(error) = served {
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn serve_http_1<S>(mut self, stream: S) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let app = self.app;
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.header)
                .max_buf_size(HEADER_BYTES as usize)
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| Arc::clone(&app).handle(request)),
                )
        );
        tokio::select! {
            served = &mut connection => return served,
            () = told(&mut self.stopped) => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    async fn serve_http_2<S>(mut self, stream: S) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let app = self.app;
        let mut connection = pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(self.limits.header)
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(HEADER_BYTES)
                .initial_stream_window_size(READ_AHEAD)
                .initial_connection_window_size(READ_AHEAD * STREAMS)
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| Arc::clone(&app).handle(request)),
                )
        );
        tokio::select! {
            served = &mut connection => return served,
            () = told(&mut self.stopped) => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn clock() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 24 * 60 * 60)
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
