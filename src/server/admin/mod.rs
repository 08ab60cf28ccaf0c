//! Admin listener: plain HTTP for operators and their monitoring, on loopback by default and never
//! on the public port.

mod chart;
pub(crate) mod collector;
mod status_page;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::collector::StatusCollector;
use crate::server::net::listener::back_off;
use crate::server::status::{Alert, Status};

/// Path of the liveness probe.
pub const HEALTH_PATH: &str = "/healthz";
/// Path of the readiness probe.
const READY_PATH: &str = "/readyz";
/// Path of the [`Status`] as JSON.
pub const STATUS_PATH: &str = "/status.json";
/// Path of the metrics, for Prometheus.
const METRICS_PATH: &str = "/metrics";
/// Path of the status page.
const PAGE_PATH: &str = "/";
/// Media type of the metrics: OpenMetrics 1.0 text, which Prometheus requests.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content security policy of the status page, which contains its stylesheet and loads nothing.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// Maximum number of concurrent connections; an operator's tools need few.
const MAX_CONNECTIONS: usize = 32;
/// Time limit for the header of a request, and for an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum lifetime of a connection: otherwise a few clients that do not read would occupy all
/// connections.
const MAX_LIFETIME: Duration = Duration::from_secs(60);

/// `/status.json`: the status and its assessment.
#[derive(Serialize)]
struct StatusDocument<'a> {
    ready: bool,
    alerts: Vec<Alert>,
    #[serde(flatten)]
    status: &'a Status,
}

/// Serves the admin listener until this future is dropped.
pub(crate) async fn serve(listener: TcpListener, collector: Arc<StatusCollector>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve_connection(stream, Arc::clone(&collector)));
            }
            Err(error) => back_off(&error).await,
        }
    }
}

async fn serve_connection(stream: TcpStream, collector: Arc<StatusCollector>) {
    let respond = |request| {
        let collector = Arc::clone(&collector);
        async move { Ok::<_, Infallible>(collector.respond(&request).await) }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service_fn(respond));
    match timeout(MAX_LIFETIME, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection ended"),
        Err(_) => tracing::debug!("admin connection closed: too long"),
    }
}

impl StatusCollector {
    async fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let paths = [
            HEALTH_PATH,
            READY_PATH,
            STATUS_PATH,
            METRICS_PATH,
            PAGE_PATH,
        ];
        if !paths.contains(&path) {
            return text(StatusCode::NOT_FOUND, "not found\n");
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        }
        if path == HEALTH_PATH {
            return text(StatusCode::OK, "alive\n");
        }
        let status = self.status().await;
        match path {
            READY_PATH => readiness(&status),
            STATUS_PATH => {
                let document = StatusDocument {
                    ready: status.is_ready(),
                    alerts: status.alerts(),
                    status: &status,
                };
                with_type(
                    StatusCode::OK,
                    "application/json",
                    json!(document).to_string(),
                )
            }
            METRICS_PATH => with_type(StatusCode::OK, METRICS_TYPE, self.metrics_text(&status)),
            _ => {
                let page = status_page::render(&status);
                let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", page);
                response.headers_mut().insert(
                    CONTENT_SECURITY_POLICY,
                    HeaderValue::from_static(PAGE_POLICY),
                );
                response
            }
        }
    }
}

fn readiness(status: &Status) -> Response<Full<Bytes>> {
    if status.is_ready() {
        return text(StatusCode::OK, "ready\n");
    }
    let mut reasons = String::new();
    for alert in status.alerts() {
        reasons = reasons + &alert.text + "\n";
    }
    text(StatusCode::SERVICE_UNAVAILABLE, reasons)
}

fn text(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", text.into())
}

fn with_type(
    status: StatusCode,
    content_type: &'static str,
    text: String,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
