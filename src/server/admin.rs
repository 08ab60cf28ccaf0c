//! The admin listener: plain HTTP for whoever runs the server, on loopback by default and never on the
//! public port.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::status::Vitals;

/// The path that says whether the server is alive.
pub const HEALTH_PATH: &str = "/healthz";
/// The path of the [`Status`](super::Status), as JSON.
pub const STATUS_PATH: &str = "/status.json";
const METRICS_PATH: &str = "/metrics";
/// What Prometheus asks for: OpenMetrics 1.0 text.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many connections at once; an operator's tools need few.
const CONNECTIONS: usize = 32;
/// How long a connection may stay without a request.
const IDLE: Duration = Duration::from_secs(15);

/// Answers on `listener` until it is dropped.
pub(crate) async fn serve(listener: TcpListener, vitals: Arc<Vitals>, clock: fn() -> SystemTime) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, Arc::clone(&vitals), clock));
            }
            Err(error) => super::connection::back_off(&error).await,
        }
    }
}

async fn connection(stream: TcpStream, vitals: Arc<Vitals>, clock: fn() -> SystemTime) {
    let answer = move |request| {
        let response = answer(&request, &vitals, clock);
        async { Ok::<_, Infallible>(response) }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn answer(
    request: &Request<Incoming>,
    vitals: &Vitals,
    clock: fn() -> SystemTime,
) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let read = [Method::GET, Method::HEAD].contains(request.method());
    let known = [HEALTH_PATH, STATUS_PATH, METRICS_PATH];
    let (status, content_type, text) = match request.uri().path() {
        path if !known.contains(&path) => (StatusCode::NOT_FOUND, TEXT, "not found\n".into()),
        _ if !read => (
            StatusCode::METHOD_NOT_ALLOWED,
            TEXT,
            "method not allowed\n".into(),
        ),
        STATUS_PATH => (
            StatusCode::OK,
            "application/json",
            serde_json::json!(vitals.status(clock())).to_string(),
        ),
        METRICS_PATH => (StatusCode::OK, METRICS_TYPE, vitals.metrics()),
        _ => (StatusCode::OK, TEXT, "alive\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
