//! One request: from its header to its answer, in the order in which things are decided.
//!
//! Framing, resource, caller, method, size, body; only then does anything act. Whoever lacks credentials
//! learns nothing but that, whatever the path or method: an iPhone sends each request without credentials
//! first, an upload with its whole body, and comes back with them only after a 401.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::account::{Authenticator, Caller, Credentials};
use crate::config::{ClientAddresses, Config};
use crate::server::limits::guess_limiter::{Asks, Guard};
use crate::server::limits::upload_memory::UploadMemory;
use crate::server::metrics::Metrics;
use crate::server::metrics::limit::{Limit, Refusals};
use crate::server::metrics::upload_history::Uploads;
use crate::server::net::client_address::ClientAddress;
use crate::server::net::connection_limiter::Place;
use crate::server::net::proxy_detection::Crowd;
use crate::server::net::request_framing as framing;
use crate::server::net::trusted_proxies::Proxies;
use crate::server::request::access_log;
use crate::server::request::access_log::{AccessLine, known_method};
use crate::server::request::body::{BodyLimits, RequestBody};
use crate::server::request::context::{Means, Shared};
use crate::server::request::dav::Dav;
use crate::server::request::pseudonym::{Pseudonym, Pseudonyms};
use crate::server::request::reply;
use crate::server::request::reply::{Body, Reject};
use crate::server::request::route::Route;
use crate::server::request::{conditions, landing_page as page, xml_guard as xml};

/// How long an upload waits for memory, and a request for its turn, before it is refused. Shorter than any app waits for an answer.
const WAIT: Duration = Duration::from_secs(10);

/// Headers by which some servers take a part of an upload. Whoever sends one would lose the rest of a backup.
const PARTIAL: [&str; 4] = [
    "content-range",
    "x-update-range",
    "upload-offset",
    "oc-chunked",
];

/// Everything that requests share.
pub(crate) struct App {
    base_path: String,
    config_document: Bytes,
    page: Bytes,
    authenticator: Arc<Authenticator>,
    guard: Arc<Guard>,
    dav: Dav,
    upload_memory: Arc<UploadMemory>,
    max_backup_bytes: usize,
    body_limits: BodyLimits,
    header_fields: usize,
    /// One permit for each request that may be at work.
    turns: Arc<Semaphore>,
    refusals: Refusals,
    metrics: Arc<Metrics>,
    uploads: Arc<Uploads>,
    anonymous_restore: bool,
    allow_anonymous: bool,
    /// What the log tells of clients.
    client_addresses: ClientAddresses,
    pseudonyms: Arc<Pseudonyms>,
    proxies: Arc<Proxies>,
    crowd: Arc<Crowd>,
    clock: fn() -> SystemTime,
}

/// What is decided about a request before its body is looked at.
enum Plan {
    Page,
    Config,
    Options(&'static str),
    Upload(Caller),
    Dav(Caller),
}

/// A request on which everything is decided but what dav-server decides.
struct Decided<'a> {
    parts: &'a Parts,
    route: Route,
    caller: Caller,
    address: ClientAddress,
}

impl App {
    /// What answers under this configuration.
    pub(crate) fn new(config: &Config, means: &Means, shared: &Shared) -> Self {
        let config_document = serde_json::json!({
            "maxBackupBytes": config.max_backup_bytes,
            "retentionDays": config.retention_days,
        });
        let config_document = Bytes::from(config_document.to_string());
        Self {
            base_path: config.base_path.clone(),
            page: page::render(config.public_url.as_deref(), config.retention_days),
            authenticator: Arc::clone(&means.authenticator),
            refusals: means.metrics.refusals(),
            metrics: Arc::clone(&means.metrics),
            uploads: Arc::clone(&means.uploads),
            guard: Arc::clone(&shared.guard),
            dav: Dav::new(
                Arc::clone(&means.store),
                Arc::clone(&shared.quotas),
                Arc::clone(&means.metrics),
                &config.base_path,
                config_document.len(),
            ),
            config_document,
            upload_memory: Arc::clone(&shared.upload_memory),
            max_backup_bytes: config.max_backup_bytes,
            body_limits: BodyLimits::new(config),
            header_fields: config.limits.header_fields,
            turns: Arc::clone(&shared.turns),
            anonymous_restore: config.anonymous_restore,
            allow_anonymous: config.allow_anonymous,
            client_addresses: config.log.client_addresses,
            pseudonyms: Arc::clone(&means.pseudonyms),
            proxies: Arc::clone(&shared.proxies),
            crowd: Arc::clone(&means.crowd),
            clock: means.clock,
        }
    }

    /// Answers one request on the connection that has this place, and writes its line in the log.
    pub(crate) async fn handle(
        self: Arc<Self>,
        place: &Place,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (parts, incoming) = request.into_parts();
        let address = self.proxies.client(place.address(), &parts.headers);
        let route = Route::parse(&self.base_path, parts.uri.path());
        let (mut body, length) = RequestBody::new(&parts, incoming, self.body_limits);
        let mut line = AccessLine {
            metrics: self.metrics.requests().start(),
            method: known_method(&parts.method),
            route: route.word(),
            backup: self.pseudonym(route),
            client: address.shown(self.client_addresses),
            started: Instant::now(),
            received: body.declared().unwrap_or_default(),
            status: None,
        };

        let answer = match length {
            Ok(()) if !framing::is_clear(&parts) => Err(Reject::BadFraming),
            Ok(()) if parts.headers.len() > self.header_fields => Err(Reject::HeaderTooLarge),
            Ok(()) => {
                let is_told = !self.proxies.trust(address);
                self.crowd.see(address, is_told);
                self.answer(&parts, route, &mut body, address, place).await
            }
            Err(reject) => Err(reject),
        };
        let response = match answer {
            Ok(response) => response,
            Err(reject) => {
                self.count(reject);
                body.discard(reject).await;
                reject.response()
            }
        };
        let response = if parts.headers.contains_key(TRANSFER_ENCODING) {
            // Nobody in front of hyper knows where chunks end (`framing.rs`).
            reply::last_of_its_connection(response)
        } else {
            response
        };
        let response = if parts.method == Method::HEAD {
            reply::without_body(response)
        } else {
            response
        };

        if parts.method == Method::PUT && response.status().is_success() {
            self.uploads.count((self.clock)());
        }
        line.status = Some(response.status().as_u16());
        Ok(response)
    }

    /// HTTP/1.1 could not read what came on a connection from `peer`, and answered with `status`.
    pub(crate) fn unreadable(&self, peer: ClientAddress, status: StatusCode) {
        self.metrics.requests().unreadable();
        access_log::unreadable(peer.shown(self.client_addresses), status.as_u16());
    }

    /// What stands for the backup in the log.
    fn pseudonym(&self, route: Route) -> Option<Pseudonym> {
        match route {
            Route::Backup(id) => self.pseudonyms.of(id, (self.clock)()),
            Route::Root | Route::Config | Route::Backups | Route::Unknown => None,
        }
    }

    async fn answer(
        &self,
        parts: &Parts,
        route: Route,
        body: &mut RequestBody,
        address: ClientAddress,
        place: &Place,
    ) -> Result<Response<Body>, Reject> {
        let plan = self.plan(parts, route, address).await?;
        // Not whoever needs no credentials: thousands could hold all places.
        let credentials = self.allow_anonymous || parts.headers.contains_key(AUTHORIZATION);
        if credentials && !matches!(plan, Plan::Page) {
            place.let_in();
        }
        if let Plan::Upload(caller) = plan {
            let backup = self.receive(parts, body, address).await?;
            let request = Decided {
                parts,
                route,
                caller,
                address,
            };
            return self.carry_out(&request, backup).await;
        }
        let small = body.read_small().await?;
        match plan {
            Plan::Page => Ok(reply::page(self.page.clone())),
            Plan::Config => Ok(reply::config(self.config_document.clone())),
            Plan::Options(allow) => Ok(reply::options(allow)),
            Plan::Upload(caller) | Plan::Dav(caller) => {
                if !xml::is_harmless(&small) {
                    return Err(Reject::BadXml);
                }
                let propfind = parts.method.as_str() == "PROPFIND";
                let small = if propfind { small } else { Bytes::new() };
                let request = Decided {
                    parts,
                    route,
                    caller,
                    address,
                };
                self.carry_out(&request, small).await
            }
        }
    }

    /// Does what was decided, now that the body is here.
    async fn carry_out(
        &self,
        request: &Decided<'_>,
        body: Bytes,
    ) -> Result<Response<Body>, Reject> {
        let Decided {
            parts,
            route,
            caller,
            address,
        } = request;
        let look = match asks(parts, *route) {
            Some(asks) => {
                let look = timeout(WAIT, self.guard.look(caller, *address, asks)).await;
                Some(look.map_err(|_| Reject::Overloaded)??)
            }
            None => None,
        };
        let answer = match self.turn().await {
            Ok(turn) => {
                let turn = Arc::new(turn);
                // An upload keeps its turn until the store is through with it, also when its request goes away.
                let body = Bytes::from_owner(With {
                    body,
                    _kept: Arc::clone(&turn),
                });
                let now = (self.clock)();
                let (method, headers) = (&parts.method, &parts.headers);
                self.dav
                    .handle(method, *route, caller, headers, body, now)
                    .await
            }
            Err(reject) => Err(reject),
        };
        if let Some(look) = look.filter(|_| !tells_of_nothing(&answer)) {
            look.found();
        }
        answer
    }

    fn count(&self, reject: Reject) {
        let limit = if reject == Reject::Slow {
            Limit::Body
        } else if reject == Reject::Overloaded {
            Limit::Overload
        } else if reject == Reject::HeaderTooLarge {
            Limit::Header
        } else if reject == Reject::BadFraming {
            Limit::Framing
        } else {
            return;
        };
        self.refusals.count(limit);
    }

    /// Waits until the request, which has come in full, may be worked on.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Reject> {
        match timeout(WAIT, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Reject::Overloaded),
        }
    }

    /// Decides what is to be done, from the header alone.
    async fn plan(
        &self,
        parts: &Parts,
        route: Route,
        address: ClientAddress,
    ) -> Result<Plan, Reject> {
        let read = [Method::GET, Method::HEAD].contains(&parts.method);
        if read && route == Route::Root {
            return Ok(Plan::Page);
        }
        let caller = self.caller(parts, route, address).await?;
        let allow = route.allow().ok_or(Reject::NotFound)?;
        if !allow
            .split(", ")
            .any(|method| method == parts.method.as_str())
        {
            return Err(Reject::MethodNotAllowed(allow));
        }
        match (parts.method.as_str(), route) {
            ("OPTIONS", _) => Ok(Plan::Options(allow)),
            ("PUT", _) => Ok(Plan::Upload(caller)),
            ("PROPFIND", _) => {
                // RFC 4918 §9.1: no Depth means infinity.
                let depth = parts.headers.get("depth").map(http::HeaderValue::as_bytes);
                let finite = matches!(depth, Some(b"0" | b"1"));
                if finite {
                    Ok(Plan::Dav(caller))
                } else {
                    Err(Reject::InfiniteDepth)
                }
            }
            (_, Route::Config) => Ok(Plan::Config),
            _ => Ok(Plan::Dav(caller)),
        }
    }

    async fn caller(
        &self,
        parts: &Parts,
        route: Route,
        address: ClientAddress,
    ) -> Result<Caller, Reject> {
        let read = [Method::GET, Method::HEAD].contains(&parts.method);
        let header = parts.headers.get(AUTHORIZATION);
        let credentials = header.and_then(|value| Credentials::parse(value.as_bytes()));
        match credentials {
            // Whoever shows Basic credentials is known by them or refused, also where none are needed: an
            // operator with a mistyped password must not take an empty list for the truth.
            Some(credentials) if !(self.allow_anonymous && self.authenticator.is_empty()) => {
                self.guard
                    .let_in(&self.authenticator, &credentials, address)
                    .await
            }
            _ if self.allow_anonymous => Ok(Caller::anonymous()),
            None if self.anonymous_restore && header.is_none() && read => {
                // Also for an id that is unknown: after a 401, iOS 7.2 would send the Safe password.
                match route {
                    Route::Backup(_) => Ok(Caller::anonymous()),
                    Route::Root | Route::Config | Route::Backups | Route::Unknown => {
                        Err(Reject::Unauthorized)
                    }
                }
            }
            _ => Err(Reject::Unauthorized),
        }
    }

    /// Takes in an upload.
    async fn receive(
        &self,
        parts: &Parts,
        body: &mut RequestBody,
        address: ClientAddress,
    ) -> Result<Bytes, Reject> {
        if PARTIAL.iter().any(|name| parts.headers.contains_key(*name)) {
            return Err(Reject::Partial);
        }
        let length = match body.declared().map(usize::try_from) {
            None => return Err(Reject::LengthRequired),
            Some(Ok(0)) => return Err(Reject::Empty),
            Some(Ok(length)) if length <= self.max_backup_bytes => length,
            Some(_) => return Err(Reject::TooLarge),
        };
        let permits = u32::try_from(length).map_err(|_| Reject::TooLarge)?;
        let memory = self.upload_memory.take(address.prefix(), permits);
        let memory = timeout(WAIT, memory).await;
        let memory = memory.map_err(|_| Reject::Overloaded)?;

        let backup = body.read_exactly(length).await?;
        // Its share of the memory for uploads.
        Ok(Bytes::from_owner(With {
            body: backup,
            _kept: memory,
        }))
    }
}

/// What the answer to this request tells about the id in it. An upload tells it too (201, 204, or 507 where new backups
/// are not taken), but puts something under the id, unless a condition keeps it from that; no app sends one.
fn asks(parts: &Parts, route: Route) -> Option<Asks> {
    let Route::Backup(_) = route else {
        return None;
    };
    match parts.method.as_str() {
        "GET" | "HEAD" | "DELETE" => Some(Asks::WhatIsThere),
        "PUT" if conditions::is_conditional(&parts.headers) => Some(Asks::WhatIsThere),
        "PUT" => Some(Asks::WhatWasThere),
        _ => None,
    }
}

/// Whether this may be the answer to a guess that was wrong.
fn tells_of_nothing(answer: &Result<Response<Body>, Reject>) -> bool {
    match answer {
        Ok(response) => response.status() == StatusCode::CREATED,
        Err(reject) => [
            Reject::NotFound,
            Reject::PreconditionFailed,
            Reject::OverQuota,
        ]
        .contains(reject),
    }
}

/// A body and what is given back when the last of it is gone: also a request that goes away leaves its backup with the
/// store.
struct With<T> {
    body: Bytes,
    _kept: T,
}

impl<T> AsRef<[u8]> for With<T> {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}
