//! The admin listener: plain HTTP for whoever runs the server, on loopback by default and never on the
//! public port.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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

use super::live::Live;
use super::status::{AccountsStatus, Attention, Status, StorageStatus, Vitals};
use super::{dashboard, with_causes};
use crate::account::Authenticator;
use crate::store::Store;

/// The path that says whether the server is alive.
pub const HEALTH_PATH: &str = "/healthz";
/// The path that says whether phones can be sent here.
const READY_PATH: &str = "/readyz";
/// The path of the [`Status`], as JSON.
pub const STATUS_PATH: &str = "/status.json";
const METRICS_PATH: &str = "/metrics";
/// The path of the page for people.
const PAGE_PATH: &str = "/";
/// What Prometheus asks for: OpenMetrics 1.0 text.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The page has its style within, and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// How many connections at once; an operator's tools need few.
const CONNECTIONS: usize = 32;
/// How long a connection may stay without a request.
const IDLE: Duration = Duration::from_secs(15);
/// How long a connection may be there: else a few that do not read would keep everybody else out.
const LONGEST: Duration = Duration::from_secs(60);
/// How long the storage may take to be tried: longer, and it is as good as gone.
const STORAGE_WAIT: Duration = Duration::from_secs(4);

/// What is told, and who knows it.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) live: Arc<Live>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) clock: fn() -> SystemTime,
}

/// The status as scripts get it, with what follows from it.
#[derive(Serialize)]
struct Told<'a> {
    ready: bool,
    attention: Vec<Attention>,
    #[serde(flatten)]
    status: &'a Status,
}

/// Answers on `listener` until it is dropped.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, admin.clone()));
            }
            Err(error) => super::connection::back_off(&error).await,
        }
    }
}

async fn connection(stream: TcpStream, admin: Admin) {
    let answer = |request| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(&request).await) }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    match timeout(LONGEST, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection ended"),
        Err(_) => tracing::debug!("admin connection took too long"),
    }
}

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let known = [
            HEALTH_PATH,
            READY_PATH,
            STATUS_PATH,
            METRICS_PATH,
            PAGE_PATH,
        ];
        if !known.contains(&path) {
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
                let told = Told {
                    ready: status.is_ready(),
                    attention: status.attention(),
                    status: &status,
                };
                with_type(StatusCode::OK, "application/json", json!(told).to_string())
            }
            METRICS_PATH => with_type(
                StatusCode::OK,
                METRICS_TYPE,
                self.vitals.metrics_of(&status),
            ),
            _ => {
                let page = dashboard::render(&status);
                let mut response = with_type(StatusCode::OK, "text/html; charset=utf-8", page);
                response.headers_mut().insert(
                    CONTENT_SECURITY_POLICY,
                    HeaderValue::from_static(PAGE_POLICY),
                );
                response
            }
        }
    }

    /// How the server is. Tries the storage.
    async fn status(&self) -> Status {
        let storage = async {
            let tried = self.store.try_write().await;
            StorageStatus {
                free_bytes: self.store.free_bytes().await.ok().flatten(),
                problem: tried.err().map(|error| with_causes(&error)),
            }
        };
        let storage = timeout(STORAGE_WAIT, storage).await;
        let gone = |_| StorageStatus {
            free_bytes: None,
            problem: Some(format!(
                "it does not answer within {} seconds",
                STORAGE_WAIT.as_secs()
            )),
        };
        let storage = storage.unwrap_or_else(gone);
        let settings = self.live.now();
        let quota = settings.shared.quotas.used_up(storage.free_bytes);
        Status {
            accounts: AccountsStatus {
                none: self.authenticator.is_empty() && !settings.config.allow_anonymous,
                bad: self.authenticator.is_bad(),
            },
            quota_used_up: quota.map(str::to_owned),
            storage,
            ..self.vitals.status((self.clock)())
        }
    }
}

fn readiness(status: &Status) -> Response<Full<Bytes>> {
    if status.is_ready() {
        return text(StatusCode::OK, "ready\n");
    }
    let mut why = String::new();
    for line in status.attention() {
        why = why + &line.text + "\n";
    }
    text(StatusCode::SERVICE_UNAVAILABLE, why)
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
