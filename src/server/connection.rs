//! Connections of one public listener: accept, TLS handshake, HTTP/1.1 or HTTP/2, shutdown.
//!
//! The accept loop only accepts. What comes before HTTP (a trusted proxy's PROXY protocol header,
//! then the TLS handshake) runs in each connection's own task under a deadline, so that a silent
//! client delays no other. On a server without TLS, only loopback peers and trusted proxies are
//! served.
//!
//! Where a limit is reached, a new connection evicts an idle or unauthenticated one
//! (`net/connection_limiter.rs`). Where none can be evicted, the limit decides: over the limit of
//! its address, the new connection is closed; over the global limit, it waits, one in each
//! listener and the others in the kernel's backlog.
//!
//! A graceful shutdown closes the listeners, gives a connection without a request one second for
//! its first one, and waits for requests in flight until `limits.drainSeconds` are over.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::config::Limits;
use crate::server::metrics::Traffic;
use crate::server::metrics::limit::{Limit, Refusals};
use crate::server::net::client_address::ClientAddress;
use crate::server::net::connection_limiter::{
    ConnectionLimiter, ConnectionSlot, LimitReached, SlotGuard,
};
use crate::server::net::listener::{Listener, Stream, back_off};
use crate::server::net::metered_body::MeteredBody;
use crate::server::net::min_rate::MinRate;
use crate::server::net::rate_limited_stream::{RateLimitedStream, UnsolicitedBytesLimit};
use crate::server::net::request_framing::FramingGuard;
use crate::server::net::trusted_proxies::TrustedProxies;
use crate::server::request::handler::RequestHandler;
use crate::server::request::reply::Body;
use crate::server::settings::SettingsHandle;
use crate::server::tls::alpn;

/// How long a graceful shutdown waits for the first request of a connection that was just accepted.
/// Without it, clients that connect at the last moment would be turned away, although another
/// process may be about to take over the socket.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// Flow-control window of one HTTP/2 stream, in bytes (RFC 9113 §5.2).
const STREAM_WINDOW: u32 = 64 << 10;
/// Bytes that a client may always send without starting a request: PING and SETTINGS frames, and
/// the rest of a body that was refused. While requests are in flight, this many for each stream.
const MIN_UNSOLICITED_BYTES: u64 = 4 << 20;

/// Everything that serves one connection.
#[derive(Clone)]
pub(super) struct Connection {
    /// `None` where a proxy terminates TLS.
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) settings: Arc<SettingsHandle>,
    pub(super) limiter: Arc<ConnectionLimiter>,
    /// The limits at the time when the connection was accepted.
    pub(super) limits: Limits,
    pub(super) max_backup_bytes: usize,
    pub(super) refusals: Refusals,
    pub(super) traffic: Arc<Traffic>,
    /// True from the graceful shutdown on.
    pub(super) stopped: watch::Receiver<bool>,
}

/// Accepts and serves connections of `listener` until the graceful shutdown, then drains them.
pub(super) async fn accept(listener: Listener, connection: Connection) {
    let limiter = Arc::clone(&connection.limiter);
    let mut connections = JoinSet::new();
    let mut stopped = connection.stopped.clone();
    // A connection that is accepted, and waits for a slot.
    let mut waiting: Option<(Stream, ClientAddress)> = None;
    loop {
        tokio::select! {
            biased;
            () = shutdown(&mut stopped) => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => log_panic(ended),
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok((_, peer)) if connection.tls.is_none()
                    && !connection.proxies().allows_plaintext(peer) => {
                    connection.refusals.count(Limit::Plaintext);
                    tracing::debug!("plaintext connection refused: not a trusted proxy");
                }
                Ok(accepted) => waiting = Some(accepted),
                Err(error) => {
                    if is_out_of_descriptors(&error) {
                        limiter.evict_one();
                    }
                    back_off(&error).await;
                    continue;
                }
            },
            () = limiter.freed(), if waiting.is_some() => {}
        }
        let Some(peer) = waiting.as_ref().map(|(_, peer)| *peer) else {
            continue;
        };
        match limiter.acquire(peer, connection.proxies().trusts(peer)) {
            Ok(guard) => {
                let Some((stream, _)) = waiting.take() else {
                    continue;
                };
                connections.spawn(connection.with_current_settings().serve(stream, guard));
                // Two slots that become free at the same time cause one notification, and another
                // listener may be waiting too.
                limiter.notify_next();
            }
            Err(LimitReached::Total) => {}
            Err(LimitReached::PerAddress) => {
                waiting = None;
                limiter.notify_next();
            }
        }
    }
    drop(waiting);
    drop(listener);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    let limits = connection.with_current_settings().limits;
    if timeout(limits.drain, drained).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "shutdown timeout: connections closed"
        );
    }
}

/// Resolves when the graceful shutdown begins.
async fn shutdown(stopped: &mut watch::Receiver<bool>) {
    // An error means that the server is dropped.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

/// Resolves when the graceful shutdown begins and the connection has had the time for its first
/// request; true if it has sent one.
async fn shutdown_after_first_request(
    stopped: &mut watch::Receiver<bool>,
    slot: &ConnectionSlot,
) -> bool {
    shutdown(stopped).await;
    timeout(SHUTDOWN_GRACE, slot.first_request()).await.is_ok()
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("connection task panicked");
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let error = Errno::from_io_error(error);
    error.is_some_and(|error| [Errno::MFILE, Errno::NFILE].contains(&error))
}

impl Connection {
    /// A connection under the settings in force now.
    pub(super) fn with_current_settings(&self) -> Self {
        let settings = self.settings.current();
        Self {
            limits: settings.config.limits,
            max_backup_bytes: settings.config.max_backup_bytes,
            ..self.clone()
        }
    }

    fn proxies(&self) -> Arc<TrustedProxies> {
        Arc::clone(&self.settings.current().shared.proxies)
    }

    async fn serve(self, mut stream: Stream, mut guard: SlotGuard) {
        let traffic = Arc::clone(&self.traffic);
        let _open = traffic.opened();
        let peer = guard.slot().address();
        let proxies = self.proxies();
        if proxies.uses_proxy_protocol(peer) {
            let slot = guard.slot();
            let header = TrustedProxies::read_header(peer, &mut stream);
            let client = tokio::select! {
                client = self.handshake(header) => client,
                () = slot.closed() => return,
            };
            let Some(client) = client else { return };
            // From now on the slot is one of the client's address.
            drop((slot, guard));
            match self.limiter.acquire(client, proxies.trusts(client)) {
                Ok(client_guard) => guard = client_guard,
                Err(_) => return,
            }
        }
        let slot = guard.slot();
        tokio::select! {
            () = self.handshake_and_serve(stream, &guard) => {}
            () = slot.closed() => tracing::debug!("connection evicted: limit reached"),
        }
    }

    async fn handshake_and_serve(self, stream: Stream, guard: &SlotGuard) {
        let Some(tls) = self.tls.clone() else {
            return self.serve_http(stream, Version::HTTP_11, guard).await;
        };
        let handshake = self.traffic.watch(tls.accept(stream));
        let Some(mut stream) = self.handshake(handshake).await else {
            return;
        };
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(alpn::HTTP_2) => Version::HTTP_2,
            Some(alpn::ACME_TLS_1) => {
                // The handshake is the whole response to an ACME challenge (RFC 8737 §3).
                self.handshake(stream.shutdown()).await;
                return;
            }
            _ => Version::HTTP_11,
        };
        self.serve_http(stream, version, guard).await;
    }

    /// Runs what comes before HTTP, under the handshake timeout; `None` if it fails, takes too
    /// long, or the graceful shutdown began [`SHUTDOWN_GRACE`] ago.
    async fn handshake<T>(&self, handshake: impl Future<Output = io::Result<T>>) -> Option<T> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            () = async {
                shutdown(&mut stopped).await;
                sleep(SHUTDOWN_GRACE).await;
            } => None,
            ended = timeout(self.limits.handshake, handshake) => match ended {
                Ok(Ok(done)) => Some(done),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "handshake failed");
                    None
                }
                Err(_) => {
                    self.refusals.count(Limit::Handshake);
                    tracing::debug!("handshake timed out");
                    None
                }
            },
        }
    }

    /// Serves a connection whose handshake is done, until it ends.
    pub(super) async fn serve_http<S>(self, stream: S, version: Version, guard: &SlotGuard)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (refusals, settings) = (self.refusals.clone(), Arc::clone(&self.settings));
        let idle = MIN_UNSOLICITED_BYTES.max(self.max_backup_bytes as u64 * 4);
        let active = idle * u64::from(self.limits.streams);
        let unsolicited = UnsolicitedBytesLimit { idle, active };
        let stream = self.traffic.count(stream);
        let min_rate = MinRate::new(&self.limits);
        let stream = RateLimitedStream::new(stream, guard.slot(), min_rate, unsolicited);
        let served = if version == Version::HTTP_2 {
            self.serve_http_2(stream, guard.slot()).await
        } else {
            self.serve_http_1(stream, guard.slot()).await
        };
        if let Err(error) = served {
            let has_no_request = error.is_timeout() && guard.slot().requests_started() == 0;
            if has_no_request || error.is_parse_too_large() {
                refusals.count(Limit::Header);
            }
            if error.is_parse() {
                let status = if error.is_parse_too_large() {
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
                } else {
                    StatusCode::BAD_REQUEST
                };
                settings
                    .current()
                    .handler
                    .unreadable(guard.slot().address(), status);
            }
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn serve_http_1<S>(mut self, stream: S, slot: Arc<ConnectionSlot>) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let bytes = self.limits.header_bytes as usize;
        let stream = FramingGuard::new(stream, bytes, self.refusals);
        let settings = self.settings;
        let request_slot = Arc::clone(&slot);
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.header)
                .max_buf_size(bytes)
                .max_headers(self.limits.header_fields)
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| {
                        handle(
                            Arc::clone(&settings.current().handler),
                            Arc::clone(&request_slot),
                            request,
                        )
                    }),
                )
        );
        tokio::select! {
            served = &mut connection => return served,
            has_request = shutdown_after_first_request(&mut self.stopped, &slot) => if !has_request {
                return Ok(());
            },
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }

    async fn serve_http_2<S>(mut self, stream: S, slot: Arc<ConnectionSlot>) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let settings = self.settings;
        let request_slot = Arc::clone(&slot);
        let mut connection = pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(self.limits.streams)
                .max_pending_accept_reset_streams(self.limits.resets as usize)
                .max_local_error_reset_streams(self.limits.resets as usize)
                .max_header_list_size(self.limits.header_bytes)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(STREAM_WINDOW.saturating_mul(self.limits.streams))
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| {
                        let (handler, slot) = (
                            Arc::clone(&settings.current().handler),
                            Arc::clone(&request_slot),
                        );
                        async move {
                            let response = handle(handler, Arc::clone(&slot), request).await?;
                            Ok::<_, Infallible>(response.map(|body| MeteredBody::new(body, &slot)))
                        }
                    }),
                )
        );
        let min_rate = MinRate::new(&self.limits);
        tokio::select! {
            served = &mut connection => return served,
            () = slot.responses().slow_response(min_rate) => slot.count_refusal(Limit::Response),
            has_request = shutdown_after_first_request(&mut self.stopped, &slot) => if !has_request {
                return Ok(());
            },
            () = slot.idle_for(self.limits.header) => if slot.requests_started() == 0 {
                slot.count_refusal(Limit::Header);
                return Ok(());
            },
        }
        connection.as_mut().graceful_shutdown();
        // Responses in flight are finished, because a proxy carries many clients on one connection,
        // and only one of them may be slow. The connection ends early if its client stops reading,
        // or does not acknowledge the PING that hyper sends with the GOAWAY.
        let slow = async {
            slot.responses().slow_response(min_rate).await;
            sleep(self.limits.grace).await;
        };
        tokio::select! {
            served = &mut connection => served,
            () = slow => Ok(()),
            () = slot.stalled(min_rate) => Ok(()),
        }
    }
}

/// Handles one request; the connection is active meanwhile.
async fn handle(
    handler: Arc<RequestHandler>,
    slot: Arc<ConnectionSlot>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let Some(in_flight) = slot.start_request() else {
        // The connection was evicted: its task ends before it polls this again.
        return std::future::pending().await;
    };
    let response = handler.handle(&slot, request).await;
    let success = |response: &Response<Body>| response.status().is_success();
    in_flight.responded(response.as_ref().is_ok_and(success));
    response
}
