//! Request handler: checks one request in a fixed order, then has the adapter of the store carry it
//! out (`dav.rs`).
//!
//! The order is: framing (400), number of header fields (431), credentials (401), rate limit on
//! wrong passwords (429), resource (404), method (405), the account's role (403); for an upload
//! whether its body is the backup (400, 415), its length (411, 413) and memory for it (503); then
//! the body is read. After that come the rate limit on backup ids (429) and a request permit (503),
//! and only then is the store used. A refused body of moderate size is drained before the response
//! (`body.rs`).
//!
//! A request without credentials gets 401 whatever its path and method: the iOS app sends every
//! request without credentials first, an upload with its whole body, and repeats it with
//! credentials after a 401. Exceptions are GET and HEAD of the landing page, and what
//! `allowAnonymous` and `anonymousRestore` allow.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::account::{Caller, Credentials};
use crate::config::Config;
use crate::server::limits::guess_limiter::{GuessError, Probe};
use crate::server::net::client_address::ClientAddress;
use crate::server::net::connection_limiter::ConnectionSlot;
use crate::server::net::external_path::{ExternalPath, PathBase};
use crate::server::net::request_framing;
use crate::server::request::access_log;
use crate::server::request::access_log::{AccessLine, known_method};
use crate::server::request::body::{BodyLimits, RequestBody};
use crate::server::request::context::{Services, SharedState};
use crate::server::request::dav::{Dav, DavCall};
use crate::server::request::pseudonym::Pseudonym;
use crate::server::request::reply;
use crate::server::request::reply::{Body, Reject};
use crate::server::request::route::Route;
use crate::server::request::{conditions, landing_page, upload_headers, xml_guard};

/// How long an upload waits for memory, and a request for its permit, before it gets 503. Shorter
/// than any app waits for a response.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// How long a request with credentials waits for a check of the accounts file where there are no
/// accounts and none are needed.
const ACCOUNTS_TIMEOUT: Duration = Duration::from_secs(1);

/// Handles requests under one configuration.
pub(crate) struct RequestHandler {
    config: Arc<Config>,
    services: Services,
    shared: SharedState,
    dav: Dav,
    external_path: ExternalPath,
    config_document: Bytes,
    landing_page: Bytes,
    body_limits: BodyLimits,
}

/// What is decided about a request from its header, before its body is read.
enum Plan {
    Page,
    Config,
    Options(&'static [&'static str]),
    Upload(Caller),
    Dav(Caller, PathBase),
}

/// A request that is accepted, except for its conditions, which dav-server evaluates.
struct Accepted<'a> {
    parts: &'a Parts,
    route: Route,
    caller: Caller,
    base: PathBase,
    address: ClientAddress,
}

impl RequestHandler {
    pub(crate) fn new(config: Arc<Config>, services: &Services, shared: &SharedState) -> Self {
        let config_document = serde_json::json!({
            "maxBackupBytes": config.max_backup_bytes,
            "retentionDays": config.retention_days,
        });
        let config_document = Bytes::from(config_document.to_string());
        let external_path = ExternalPath::new(&config);
        Self {
            landing_page: landing_page::render(config.public_url.as_deref(), config.retention_days),
            dav: Dav::new(
                Arc::clone(&services.store),
                Arc::clone(&shared.quotas),
                Arc::clone(&shared.overwrites),
                Arc::clone(&services.metrics),
                &config.base_path,
                external_path.public(),
                config_document.len(),
            ),
            external_path,
            config_document,
            body_limits: BodyLimits::new(&config),
            services: services.clone(),
            shared: shared.clone(),
            config,
        }
    }

    /// Handles one request of the connection in this slot, and writes its line to the access log.
    pub(crate) async fn handle(
        self: Arc<Self>,
        slot: &ConnectionSlot,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (parts, incoming) = request.into_parts();
        let address = self.shared.proxies.client(slot.address(), &parts.headers);
        let route = Route::parse(&self.config.base_path, parts.uri.path());
        let (mut body, length) = RequestBody::new(&parts, incoming, self.body_limits);
        let mut line = AccessLine {
            metrics: self.services.metrics.requests().start(),
            method: known_method(&parts.method),
            route: route.label(),
            backup: self.pseudonym(route),
            client: address.logged(self.config.log.client_addresses),
            started: Instant::now(),
            received: body.declared().unwrap_or_default(),
            status: None,
        };

        let result = match length {
            Ok(()) if !request_framing::is_unambiguous(&parts) => Err(Reject::BadFraming),
            Ok(()) if parts.headers.len() > self.config.limits.header_fields => {
                Err(Reject::HeaderTooLarge)
            }
            Ok(()) => {
                let is_client = !self.shared.proxies.trusts(address);
                self.services.proxy_detector.observe(address, is_client);
                self.respond(&parts, route, &mut body, address, slot).await
            }
            Err(reject) => Err(reject),
        };
        let response = match result {
            Ok(response) => response,
            Err(reject) => {
                if let Some(limit) = reject.limit() {
                    self.services.metrics.refusals().count(limit);
                }
                body.discard(reject).await;
                reject.response()
            }
        };
        let response = if parts.headers.contains_key(TRANSFER_ENCODING) {
            // The framing guard does not parse chunks (`net/request_framing.rs`).
            reply::closing_connection(response)
        } else {
            response
        };
        let response = if parts.method == Method::HEAD {
            reply::without_body(response)
        } else {
            response
        };

        if parts.method == Method::PUT && response.status().is_success() {
            self.services.uploads.count(self.services.clock.now());
        }
        line.status = Some(response.status().as_u16());
        Ok(response)
    }

    /// Logs and counts bytes that hyper could not parse as an HTTP/1.1 request and answered with
    /// `status`.
    pub(crate) fn unreadable(&self, peer: ClientAddress, status: StatusCode) {
        self.services.metrics.requests().unreadable();
        access_log::unreadable(
            peer.logged(self.config.log.client_addresses),
            status.as_u16(),
        );
    }

    /// The pseudonym of the backup in the access log.
    fn pseudonym(&self, route: Route) -> Option<Pseudonym> {
        match route {
            Route::Backup(id) => self.services.pseudonyms.of(id, self.services.clock.now()),
            Route::Root | Route::Config | Route::Backups | Route::Unknown => None,
        }
    }

    /// Responds to a request with unambiguous framing.
    async fn respond(
        &self,
        parts: &Parts,
        route: Route,
        body: &mut RequestBody,
        address: ClientAddress,
        slot: &ConnectionSlot,
    ) -> Result<Response<Body>, Reject> {
        let plan = self.plan(parts, route, address, slot).await?;
        // Not for callers that need no credentials: they could pin all connection slots.
        let credentials = self.config.allow_anonymous || parts.headers.contains_key(AUTHORIZATION);
        if credentials && !matches!(plan, Plan::Page) {
            slot.mark_authenticated();
        }
        let is_upload = matches!(plan, Plan::Upload(_));
        let body = if is_upload {
            self.receive(parts, body, address).await?
        } else {
            body.read_small().await?
        };
        let (caller, base) = match plan {
            Plan::Page => return Ok(reply::page(self.landing_page.clone())),
            Plan::Config => {
                self.dav.check_conditions_of_config(parts)?;
                return Ok(reply::config(self.config_document.clone()));
            }
            Plan::Options(methods) => return Ok(reply::options(methods)),
            Plan::Upload(caller) => (caller, PathBase::Own),
            Plan::Dav(caller, base) => (caller, base),
        };
        if !is_upload && !xml_guard::is_harmless(&body) {
            return Err(Reject::BadXml);
        }
        let has_body = is_upload || parts.method.as_str() == "PROPFIND";
        let request = Accepted {
            parts,
            route,
            caller,
            base,
            address,
        };
        self.run(&request, if has_body { body } else { Bytes::new() })
            .await
    }

    /// Runs an accepted request with its complete body.
    async fn run(&self, request: &Accepted<'_>, body: Bytes) -> Result<Response<Body>, Reject> {
        let Accepted {
            parts,
            route,
            caller,
            base,
            address,
        } = request;
        let charge = match probe(parts, *route) {
            Some(probe) => {
                let charge = self.shared.guess_limiter.charge(caller, *address, probe);
                let charge = timeout(MAX_WAIT, charge).await;
                Some(charge.map_err(|_| Reject::Overloaded)??)
            }
            None => None,
        };
        let result = match self.request_permit().await {
            Ok(permit) => {
                let permit = Arc::new(permit);
                // An upload keeps its permit until the store is done with it, also when its request
                // is cancelled.
                let body = Bytes::from_owner(BytesWithGuard {
                    bytes: body,
                    _guard: Arc::clone(&permit),
                });
                let call = DavCall {
                    parts,
                    route: *route,
                    caller,
                    base: *base,
                };
                let now = self.services.clock.now();
                if let (&Method::PUT, Route::Backup(id)) = (&parts.method, *route) {
                    self.services.recent.add(id, self.services.clock.elapsed());
                }
                self.dav.handle(&call, body, now).await
            }
            Err(reject) => Err(reject),
        };
        if let Some(charge) = charge.filter(|_| !may_be_wrong_guess(&result)) {
            charge.refund();
        }
        result
    }

    /// Waits for one of `limits.requests` permits. The request has been received in full.
    async fn request_permit(&self) -> Result<OwnedSemaphorePermit, Reject> {
        let permits = Arc::clone(&self.shared.request_permits);
        match timeout(MAX_WAIT, permits.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Reject::Overloaded),
        }
    }

    /// Decides from the header alone how to respond, or refuses the request.
    async fn plan(
        &self,
        parts: &Parts,
        route: Route,
        address: ClientAddress,
        slot: &ConnectionSlot,
    ) -> Result<Plan, Reject> {
        let is_read = [Method::GET, Method::HEAD].contains(&parts.method);
        if is_read && route == Route::Root {
            return Ok(Plan::Page);
        }
        let caller = self.caller(parts, route, address).await?;
        let all = route.methods().ok_or(Reject::NotFound)?;
        let methods = route.methods_of(caller.role()).unwrap_or(all);
        if !all.contains(&parts.method.as_str()) {
            return Err(Reject::MethodNotAllowed(methods));
        }
        if !methods.contains(&parts.method.as_str()) {
            return Err(Reject::ReadOnlyAccount);
        }
        match (parts.method.as_str(), route) {
            ("OPTIONS", _) => Ok(Plan::Options(methods)),
            ("PUT", _) => Ok(Plan::Upload(caller)),
            ("PROPFIND", _) => {
                // RFC 4918 §9.1: no Depth means infinity.
                let depth = parts.headers.get("depth").map(http::HeaderValue::as_bytes);
                if !matches!(depth, Some(b"0" | b"1")) {
                    return Err(Reject::InfiniteDepth);
                }
                let (peer, proxies) = (slot.address(), &self.shared.proxies);
                let is_proxy = proxies.trusts(peer) && !proxies.uses_proxy_protocol(peer);
                let (external, headers) = (&self.external_path, &parts.headers);
                let base = external.base(parts.version, headers, is_proxy, &route.path(""));
                base.map(|base| Plan::Dav(caller, base))
                    .ok_or(Reject::UnknownPath)
            }
            (_, Route::Config) => Ok(Plan::Config),
            _ => Ok(Plan::Dav(caller, PathBase::Own)),
        }
    }

    async fn caller(
        &self,
        parts: &Parts,
        route: Route,
        address: ClientAddress,
    ) -> Result<Caller, Reject> {
        let is_read = [Method::GET, Method::HEAD].contains(&parts.method);
        let header = parts.headers.get(AUTHORIZATION);
        let credentials = header.and_then(|value| Credentials::parse(value.as_bytes()));
        match credentials {
            // Basic credentials are verified also where none are needed: otherwise an operator with
            // a mistyped password would get an empty listing instead of a 401.
            Some(credentials) if !self.accepts_any_credentials().await => {
                let guess_limiter = &self.shared.guess_limiter;
                let caller =
                    guess_limiter.authenticate(&self.services.authenticator, &credentials, address);
                Ok(caller.await?)
            }
            _ if self.config.allow_anonymous => Ok(Caller::anonymous()),
            None if self.config.anonymous_restore && header.is_none() && is_read => {
                // Also for an unknown id: after a 401, iOS 7.2 to 7.2.2 would send the Safe
                // password.
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

    /// Whether no credentials are needed and there is no account to verify them against, also in
    /// an accounts file that was written a moment ago.
    async fn accepts_any_credentials(&self) -> bool {
        let authenticator = &self.services.authenticator;
        if !self.config.allow_anonymous || !authenticator.is_empty() {
            return false;
        }
        // If the file cannot be checked in time, the last check counts.
        drop(timeout(ACCOUNTS_TIMEOUT, authenticator.file().refresh()).await);
        authenticator.is_empty()
    }

    /// Receives the body of an upload.
    async fn receive(
        &self,
        parts: &Parts,
        body: &mut RequestBody,
        address: ClientAddress,
    ) -> Result<Bytes, Reject> {
        upload_headers::check(&parts.headers, body.declared())?;
        let length = match body.declared().map(usize::try_from) {
            None => return Err(Reject::LengthRequired),
            Some(Ok(0)) => return Err(Reject::Empty),
            Some(Ok(length)) if length <= self.config.max_backup_bytes => length,
            Some(_) => return Err(Reject::TooLarge),
        };
        let permits = u32::try_from(length).map_err(|_| Reject::TooLarge)?;
        let memory = self.shared.upload_memory.acquire(address.prefix(), permits);
        let memory = timeout(MAX_WAIT, memory).await;
        let memory = memory.map_err(|_| Reject::Overloaded)?;

        let backup = body.read_exactly(length).await?;
        Ok(Bytes::from_owner(BytesWithGuard {
            bytes: backup,
            _guard: memory,
        }))
    }
}

/// How the response reveals whether the id in the request exists; `None` if it does not. An upload
/// reveals it too (201 or 204, or 507 where a quota refuses new backups), but stores a backup under
/// the id, unless a conditional header prevents that; no app sends one.
fn probe(parts: &Parts, route: Route) -> Option<Probe> {
    let Route::Backup(_) = route else {
        return None;
    };
    match parts.method.as_str() {
        "GET" | "HEAD" | "DELETE" => Some(Probe::Read),
        "PUT" if conditions::is_conditional(&parts.headers) => Some(Probe::Read),
        "PUT" => Some(Probe::Create),
        _ => None,
    }
}

/// Whether this may be the response to a wrong guess.
fn may_be_wrong_guess(result: &Result<Response<Body>, Reject>) -> bool {
    match result {
        Ok(response) => response.status() == StatusCode::CREATED,
        Err(reject) => [
            Reject::NotFound,
            Reject::PreconditionFailed,
            Reject::OverQuota,
        ]
        .contains(reject),
    }
}

impl From<GuessError> for Reject {
    fn from(error: GuessError) -> Self {
        match error {
            GuessError::InvalidCredentials => Self::Unauthorized,
            GuessError::RateLimited { retry_after } => Self::TooMany(retry_after),
        }
    }
}

/// Bytes that hold a permit until the last reference to them is dropped: the store may still use
/// them when the request is cancelled.
struct BytesWithGuard<G> {
    bytes: Bytes,
    _guard: G,
}

impl<G> AsRef<[u8]> for BytesWithGuard<G> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
