//! One listener's connections: accept, TLS, HTTP/1.1 or HTTP/2, until the client or the server has had enough.
//!
//! Accepting only accepts: the handshake runs in each connection's own task under a deadline, so that no
//! silent client delays another. Whoever is too many makes an idle client lose its place (`places.rs`), or, where
//! all are at work, waits: one in each listener's hand, the others in the kernel's queue.

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
use crate::server::acme;
use crate::server::metrics::Traffic;
use crate::server::metrics::limit::{Limit, Refusals};
use crate::server::net::client_address::ClientAddress;
use crate::server::net::connection_limiter::{Held, NoPlace, Place, Places};
use crate::server::net::listener::{Listener, Stream, back_off};
use crate::server::net::metered_body::Metered;
use crate::server::net::rate_limited_stream::{Chatter, Pace, Paced};
use crate::server::net::request_framing::Framed;
use crate::server::net::trusted_proxies::Proxies;
use crate::server::request::handler::App;
use crate::server::request::reply::Body;
use crate::server::settings::Live;
use crate::server::tls::pem as tls;

/// How long a stop waits for whoever has connected and not yet said anything: else those who came at the last moment
/// would be turned away, although another server is about to take this one's place.
const LAST_CALL: Duration = Duration::from_secs(1);
/// Bytes that may be under way in one HTTP/2 stream.
const READ_AHEAD: u32 = 64 << 10;
/// Bytes that a client may send at the least while it begins no request: pings, settings, and what is left of a body
/// that was refused. While it has requests under way, so many for each that there may be.
const CHATTER_AT_LEAST: u64 = 4 << 20;

/// What a connection needs to be served.
#[derive(Clone)]
pub(super) struct Connection {
    /// `None` where a proxy ends TLS.
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) live: Arc<Live>,
    pub(super) places: Arc<Places>,
    /// As they were when it began.
    pub(super) limits: Limits,
    pub(super) max_backup_bytes: usize,
    pub(super) refusals: Refusals,
    pub(super) traffic: Arc<Traffic>,
    pub(super) stopped: watch::Receiver<bool>,
}

/// Serves whoever comes to `listener`, until the server is told to stop.
pub(super) async fn accept(listener: Listener, connection: Connection) {
    let places = Arc::clone(&connection.places);
    let mut connections = JoinSet::new();
    let mut stopped = connection.stopped.clone();
    // Accepted, and waiting for a place. A listener to which nobody comes takes no place from the others.
    let mut waiting: Option<(Stream, ClientAddress)> = None;
    loop {
        tokio::select! {
            biased;
            () = told(&mut stopped) => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok((_, peer)) if connection.tls.is_none()
                    && !connection.proxies().may_speak_plainly(peer) => {
                    connection.refusals.count(Limit::Plaintext);
                    tracing::debug!("a client that is no trusted proxy would speak without TLS");
                }
                Ok(accepted) => waiting = Some(accepted),
                Err(error) => {
                    if is_out_of_descriptors(&error) {
                        places.make_room();
                    }
                    back_off(&error).await;
                    continue;
                }
            },
            () = places.freed(), if waiting.is_some() => {}
        }
        let Some(peer) = waiting.as_ref().map(|(_, peer)| *peer) else {
            continue;
        };
        match places.take(peer, connection.proxies().trust(peer)) {
            Ok(held) => {
                let Some((stream, _)) = waiting.take() else {
                    continue;
                };
                connections.spawn(connection.begin().serve(stream, held));
                // Two places that become free at once are told of once, and another listener may wait too.
                places.pass_on();
            }
            Err(NoPlace::ForAnybody) => {}
            Err(NoPlace::ForThisAddress) => {
                waiting = None;
                places.pass_on();
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
    let limits = connection.begin().limits;
    if timeout(limits.drain, drained).await.is_err() {
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

/// Done when the server is told to stop, and the client has had its chance to ask for something: whether it did.
async fn told_and_asked(stopped: &mut watch::Receiver<bool>, place: &Place) -> bool {
    told(stopped).await;
    timeout(LAST_CALL, place.asked()).await.is_ok()
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("a connection ended in a panic; this is a bug");
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let error = Errno::from_io_error(error);
    error.is_some_and(|error| [Errno::MFILE, Errno::NFILE].contains(&error))
}

impl Connection {
    /// One connection under the settings that are in force now.
    pub(super) fn begin(&self) -> Self {
        let settings = self.live.now();
        Self {
            limits: settings.config.limits,
            max_backup_bytes: settings.config.max_backup_bytes,
            ..self.clone()
        }
    }

    fn proxies(&self) -> Arc<Proxies> {
        Arc::clone(&self.live.now().shared.proxies)
    }

    async fn serve(self, mut stream: Stream, mut held: Held) {
        let traffic = Arc::clone(&self.traffic);
        let _open = traffic.opened();
        let peer = held.place().address();
        let proxies = self.proxies();
        if proxies.speaks_first(peer) {
            let place = held.place();
            let header = Proxies::read_header(peer, &mut stream);
            let client = tokio::select! {
                client = self.shake(header) => client,
                () = place.lost() => return,
            };
            let Some(client) = client else { return };
            // From now on it has a place of the client's.
            drop((place, held));
            match self.places.take(client, proxies.trust(client)) {
                Ok(its) => held = its,
                Err(_) => return,
            }
        }
        let place = held.place();
        tokio::select! {
            () = self.shake_and_answer(stream, &held) => {}
            () = place.lost() => tracing::debug!("connection lost its place"),
        }
    }

    async fn shake_and_answer(self, stream: Stream, held: &Held) {
        let Some(tls) = self.tls.clone() else {
            return self.answer(stream, Version::HTTP_11, held).await;
        };
        let handshake = self.traffic.watch(tls.accept(stream));
        let Some(mut stream) = self.shake(handshake).await else {
            return;
        };
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(tls::HTTP_2) => Version::HTTP_2,
            Some(acme::ALPN) => {
                // An authority has seen in the handshake what it came for.
                self.shake(stream.shutdown()).await;
                return;
            }
            _ => Version::HTTP_11,
        };
        self.answer(stream, version, held).await;
    }

    /// Does what comes before HTTP, unless it takes too long or the server has stopped a moment ago.
    async fn shake<T>(&self, handshake: impl Future<Output = io::Result<T>>) -> Option<T> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            () = async {
                told(&mut stopped).await;
                sleep(LAST_CALL).await;
            } => None,
            shaken = timeout(self.limits.handshake, handshake) => match shaken {
                Ok(Ok(done)) => Some(done),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "handshake failed");
                    None
                }
                Err(_) => {
                    self.refusals.count(Limit::Handshake);
                    tracing::debug!("handshake took too long");
                    None
                }
            },
        }
    }

    /// Answers one connection whose handshake is done, until it ends.
    pub(super) async fn answer<S>(self, stream: S, version: Version, held: &Held)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (refusals, live) = (self.refusals.clone(), Arc::clone(&self.live));
        let idle = CHATTER_AT_LEAST.max(self.max_backup_bytes as u64 * 4);
        let at_work = idle * u64::from(self.limits.streams);
        let chatter = Chatter { idle, at_work };
        let stream = self.traffic.count(stream);
        let stream = Paced::new(stream, held.place(), Pace::new(&self.limits), chatter);
        let served = if version == Version::HTTP_2 {
            self.serve_http_2(stream, held.place()).await
        } else {
            self.serve_http_1(stream, held.place()).await
        };
        if let Err(error) = served {
            let never_came = error.is_timeout() && held.place().requests_begun() == 0;
            if never_came || error.is_parse_too_large() {
                refusals.count(Limit::Header);
            }
            if error.is_parse() {
                let status = if error.is_parse_too_large() {
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
                } else {
                    StatusCode::BAD_REQUEST
                };
                live.now().app.unreadable(held.place().address(), status);
            }
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn serve_http_1<S>(mut self, stream: S, place: Arc<Place>) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let bytes = self.limits.header_bytes as usize;
        let stream = Framed::new(stream, bytes, self.refusals);
        let live = self.live;
        let its = Arc::clone(&place);
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.header)
                .max_buf_size(bytes)
                .max_headers(self.limits.header_fields)
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| {
                        work(Arc::clone(&live.now().app), Arc::clone(&place), request)
                    }),
                )
        );
        tokio::select! {
            served = &mut connection => return served,
            asked = told_and_asked(&mut self.stopped, &its) => if !asked {
                return Ok(());
            },
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }

    async fn serve_http_2<S>(mut self, stream: S, place: Arc<Place>) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let live = self.live;
        let its = Arc::clone(&place);
        let mut connection = pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(self.limits.streams)
                .max_pending_accept_reset_streams(self.limits.resets as usize)
                .max_local_error_reset_streams(self.limits.resets as usize)
                .max_header_list_size(self.limits.header_bytes)
                .initial_stream_window_size(READ_AHEAD)
                .initial_connection_window_size(READ_AHEAD.saturating_mul(self.limits.streams))
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| {
                        let (app, place) = (Arc::clone(&live.now().app), Arc::clone(&its));
                        async move {
                            let answer = work(app, Arc::clone(&place), request).await?;
                            Ok::<_, Infallible>(answer.map(|body| Metered::new(body, &place)))
                        }
                    }),
                )
        );
        let pace = Pace::new(&self.limits);
        tokio::select! {
            served = &mut connection => return served,
            () = place.answers().one_is_slow(pace) => place.refused(Limit::Answer),
            asked = told_and_asked(&mut self.stopped, &place) => if !asked {
                return Ok(());
            },
            () = place.idle_for(self.limits.header) => if place.requests_begun() == 0 {
                place.refused(Limit::Header);
                return Ok(());
            },
        }
        connection.as_mut().graceful_shutdown();
        // What is on its way arrives: a proxy has many clients on one connection, of which one is slow. But a client
        // that leaves answers lying, or does not answer the ping that ends the connection, is not waited for.
        let slow = async {
            place.answers().one_is_slow(pace).await;
            sleep(self.limits.grace).await;
        };
        tokio::select! {
            served = &mut connection => served,
            () = slow => Ok(()),
            () = place.stuck(pace) => Ok(()),
        }
    }
}

/// Answers one request; the connection is at work meanwhile.
async fn work(
    app: Arc<App>,
    place: Arc<Place>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let Some(work) = place.begin_request() else {
        // The connection ends before anything waits for this.
        return std::future::pending().await;
    };
    let answered = app.handle(&place, request).await;
    let success = |response: &Response<Body>| response.status().is_success();
    work.answered(answered.as_ref().is_ok_and(success));
    answered
}
