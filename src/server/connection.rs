//! One listener's connections: accept, TLS, HTTP/1.1 or HTTP/2, until the client or the server has had enough.
//!
//! Accepting only accepts: the handshake runs in each connection's own task under a deadline, so that no
//! silent client delays another. Whoever is too many waits: one in each listener's hand, the others in the
//! kernel's queue.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::http::App;
use super::tls;
use crate::config::Limits;

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

/// What a connection needs to be served.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) tls: TlsAcceptor,
    pub(super) app: Arc<App>,
    pub(super) limits: Limits,
    pub(super) stopped: watch::Receiver<bool>,
}

/// Serves whoever comes to `listener`, until the server is told to stop.
pub(super) async fn accept(listener: TcpListener, places: Arc<Semaphore>, connection: Connection) {
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
pub(super) async fn back_off(error: &io::Error) {
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

    /// Answers one connection whose handshake is done, until it ends.
    pub(super) async fn answer<S>(self, stream: S, version: Version)
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
