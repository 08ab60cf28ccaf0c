//! The admin listener: plain HTTP for whoever runs the server, on loopback by default and never on the
//! public port.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The path that says whether the server is alive.
pub const HEALTH_PATH: &str = "/healthz";

/// How many connections at once; an operator's tools need few.
const CONNECTIONS: usize = 32;
/// How long a connection may stay without a request.
const IDLE: Duration = Duration::from_secs(15);

/// Answers on `listener` until it is dropped.
pub(crate) async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream));
            }
            Err(error) => super::back_off(&error).await,
        }
    }
}

async fn connection(stream: TcpStream) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let read = [Method::GET, Method::HEAD].contains(request.method());
    let (status, text) = match request.uri().path() {
        HEALTH_PATH if read => (StatusCode::OK, "alive\n"),
        HEALTH_PATH => (StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"),
        _ => (StatusCode::NOT_FOUND, "not found\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    Ok(response)
}
