//! Adapter between dav-server and the store.
//!
//! dav-server evaluates conditional requests and lists collections, for GET, HEAD, PUT, DELETE and
//! PROPFIND, except for the `If` header (`if_header.rs`). It sees only requests that `handler.rs`
//! has accepted: known resource, caller and method, a complete body, and no headers but conditions,
//! `Content-Length` and `Depth`. Paths are not parsed again, except for the prefix that dav-server
//! writes into a listing, and quotas are checked when an upload is complete (`dav_upload.rs`).
//!
//! The result of the store is recorded beside dav-server, in [`DavRequest`], and takes precedence
//! over its response, because dav-server guesses: a failed metadata call counts as "new file", and
//! a listing that fails halfway looks like a short one.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use dav_server::davpath::DavPath;
use dav_server::fs::{
    DavDirEntry, DavFile, DavMetaData, FsError, FsFuture, FsResult, FsStream, GuardedFileSystem,
    OpenOptions, ReadDirMeta,
};
use dav_server::{DavHandler, DavMethod, DavMethodSet};
use futures_util::{StreamExt, future, stream};
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::Frame;

use crate::account::Caller;
use crate::backup::BackupId;
use crate::server::limits::overwrites::Overwrites;
use crate::server::limits::quotas::{Existing, Quotas};
use crate::server::metrics::Metrics;
use crate::server::net::external_path::{PathBase, PublicPath};
use crate::server::request::conditions::{CONDITIONAL, are_valid, for_dav_server, is_conditional};
use crate::server::request::dav_listing::Listing;
use crate::server::request::dav_node::{Download, Entry, Node, entity_tag};
use crate::server::request::dav_request::DavRequest;
use crate::server::request::dav_upload::UploadFile;
use crate::server::request::if_header::{IfHeader, Tagged};
use crate::server::request::reply::{Body, Reject};
use crate::server::request::route::Route;
use crate::store::{Put, Store};

const PROPFIND: &str = "PROPFIND";
const DEPTH: &str = "depth";

/// In bytes: larger than any backup, so that dav-server reads a backup in one chunk.
const READ_BUFFER: usize = 1 << 30;

/// dav-server over a store.
pub(crate) struct Dav {
    store: Arc<dyn Store>,
    /// Under `basePath`.
    own: Prefixed,
    /// Under the path of `publicUrl`, if that is another one.
    public: Option<Prefixed>,
    quotas: Arc<Quotas>,
    overwrites: Arc<Overwrites>,
    metrics: Arc<Metrics>,
}

/// dav-server under one path.
struct Prefixed {
    handler: DavHandler<Arc<DavRequest>>,
    /// The path as it stands in a URL.
    path: String,
}

/// A request that [`Dav::handle`] carries out.
pub(crate) struct DavCall<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) route: Route,
    pub(crate) caller: &'a Caller,
    /// The path of the resources in a listing.
    pub(crate) base: PathBase,
}

impl Dav {
    /// `base_path` starts and ends with a slash; `public` is the path of `publicUrl` if that is
    /// another one; `config_length` is the length of the `config` document.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        quotas: Arc<Quotas>,
        overwrites: Arc<Overwrites>,
        metrics: Arc<Metrics>,
        base_path: &str,
        public: Option<&PublicPath>,
        config_length: usize,
    ) -> Self {
        let mut methods = DavMethodSet::none();
        for method in [
            DavMethod::Get,
            DavMethod::Head,
            DavMethod::Put,
            DavMethod::Delete,
            DavMethod::PropFind,
        ] {
            methods.add(method);
        }
        let prefixed = |prefix: &str, path: &str| Prefixed {
            handler: DavHandler::builder()
                .filesystem(Box::new(BackupFileSystem {
                    store: Arc::clone(&store),
                    config_length: config_length as u64,
                }))
                .strip_prefix(prefix)
                .methods(methods)
                .autoindex(false)
                .read_buf_size(READ_BUFFER)
                .build_handler(),
            path: path.to_owned(),
        };
        Self {
            own: prefixed(base_path, base_path),
            public: public.map(|public| prefixed(&public.decoded, &public.encoded)),
            store,
            quotas,
            overwrites,
            metrics,
        }
    }

    /// Carries out a GET, HEAD, PUT, DELETE or PROPFIND.
    pub(crate) async fn handle(
        &self,
        call: &DavCall<'_>,
        body: Bytes,
        now: SystemTime,
    ) -> Result<Response<Body>, Reject> {
        let DavCall {
            parts,
            route,
            caller,
            base,
        } = *call;
        let (method, headers) = (&parts.method, &parts.headers);
        if !are_valid(headers) {
            return Err(Reject::BadCondition);
        }
        let context = Arc::new(DavRequest {
            route,
            caller: caller.clone(),
            quotas: Arc::clone(&self.quotas),
            overwrites: Arc::clone(&self.overwrites),
            metrics: Arc::clone(&self.metrics),
            method: method.clone(),
            is_conditional: is_conditional(headers),
            now,
            existing: OnceLock::new(),
            last_upload: OnceLock::new(),
            loaded: OnceLock::new(),
            listing: Listing::new(
                method.as_str() == PROPFIND
                    && route == Route::Backups
                    && caller.role().may_list()
                    && headers.get(DEPTH).is_some_and(|depth| depth == "1"),
            ),
            put: OnceLock::new(),
            failure: OnceLock::new(),
        });
        self.check_if_header(parts, &context).await?;
        let public = self.public.as_ref().filter(|_| base == PathBase::Public);
        let prefixed = public.unwrap_or(&self.own);
        let request = build_request(prefixed, parts, route, body);
        let response = prefixed
            .handler
            .handle_guarded(request, String::new(), Arc::clone(&context))
            .await;
        let (mut parts, body) = response.into_parts();
        if method.as_str() == PROPFIND && parts.status == StatusCode::MULTI_STATUS {
            return Ok(Response::from_parts(parts, stream_listing(body, context)));
        }
        // Every other body is small or in memory already, and is sent in one write.
        let body = BodyExt::collect(body)
            .await
            .map_err(|_| Reject::Storage)?
            .to_bytes();
        match (context.failure.get(), context.put.get()) {
            (Some(reject), None) => return Err(*reject),
            (_, Some(Put::Created)) => parts.status = StatusCode::CREATED,
            (_, Some(Put::Replaced | Put::Suspicious(_))) => parts.status = StatusCode::NO_CONTENT,
            (None, None) => {}
        }
        let unmodified = parts.status == StatusCode::NOT_MODIFIED;
        if !parts.status.is_success() && !unmodified {
            return Err(reject_of(parts.status));
        }
        parts.headers.remove(CONNECTION);
        parts.headers.remove(ACCEPT_RANGES);
        parts
            .headers
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if unmodified {
            parts.headers.remove(CONTENT_LENGTH);
            parts.headers.remove(CONTENT_TYPE);
        }
        Ok(Response::from_parts(parts, Either::Left(Full::new(body))))
    }

    /// Evaluates the `If` header of a request, if it has one.
    async fn check_if_header(&self, parts: &Parts, request: &DavRequest) -> Result<(), Reject> {
        let Some(condition) = IfHeader::parse(&parts.headers)? else {
            return Ok(());
        };
        let needs_etag = condition.has_etag() && !request.hides_backups();
        let etag = if let (true, Route::Backup(id)) = (needs_etag, request.route) {
            let found = self.store.stat(id).await.map_err(|error| {
                request.failed("stat", &error);
                Reject::from(&error)
            })?;
            found.map(|meta| entity_tag(meta.version))
        } else {
            None
        };
        self.evaluate(&condition, parts, request.route, etag.as_deref())
    }

    /// Evaluates the `If` header of a request for the `config` document, which has no ETag.
    pub(crate) fn check_conditions_of_config(&self, parts: &Parts) -> Result<(), Reject> {
        match IfHeader::parse(&parts.headers)? {
            None => Ok(()),
            Some(condition) => self.evaluate(&condition, parts, Route::Config, None),
        }
    }

    fn evaluate(
        &self,
        condition: &IfHeader<'_>,
        parts: &Parts,
        route: Route,
        etag: Option<&str>,
    ) -> Result<(), Reject> {
        if condition.holds(etag, |tag| self.tagged(parts, route, tag)) {
            Ok(())
        } else {
            Err(Reject::PreconditionFailed)
        }
    }

    /// What a resource tag in a request for `route` names.
    fn tagged(&self, parts: &Parts, route: Route, tag: &str) -> Tagged {
        let own = parts.uri.authority().map(Authority::as_str);
        let own = own.or_else(|| parts.headers.get(HOST)?.to_str().ok());
        let (authority, path) = match tag.split_once("://") {
            Some((_, rest)) if !tag.starts_with('/') => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(authority), path)
            }
            _ => (own, tag),
        };
        // Behind a proxy, another name may be one of this server.
        let is_own = match (authority, own) {
            (Some(authority), Some(own)) => authority.eq_ignore_ascii_case(own),
            (None, _) => true,
            (Some(_), None) => false,
        };
        let bases = [Some(&self.own), self.public.as_ref()];
        let named = bases
            .into_iter()
            .flatten()
            .map(|base| Route::parse(&base.path, path))
            .find(|named| *named != Route::Unknown);
        match named {
            Some(named) if named == route && is_own => Tagged::Target,
            Some(Route::Backup(_)) => Tagged::Unknown,
            _ => Tagged::WithoutEtag,
        }
    }
}

/// The request that dav-server sees.
fn build_request(
    prefixed: &Prefixed,
    parts: &Parts,
    route: Route,
    body: Bytes,
) -> Request<Full<Bytes>> {
    let (method, headers) = (&parts.method, &parts.headers);
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = method.clone();
    *request.uri_mut() = route
        .path(&prefixed.path)
        .parse()
        .expect("a base path and a route contain only characters that a URI allows");
    let passed_on = request.headers_mut();
    for name in CONDITIONAL {
        for value in headers.get_all(&name) {
            passed_on.append(name.clone(), for_dav_server(&name, value));
        }
    }
    if method == Method::PUT {
        passed_on.insert(CONTENT_LENGTH, body.len().into());
    }
    if let Some(depth) = headers.get(DEPTH).filter(|_| method.as_str() == PROPFIND) {
        passed_on.insert(DEPTH, depth.clone());
    }
    request
}

/// The refusal that corresponds to a status of dav-server.
fn reject_of(status: StatusCode) -> Reject {
    match status {
        StatusCode::NOT_FOUND => Reject::NotFound,
        StatusCode::PRECONDITION_FAILED => Reject::PreconditionFailed,
        StatusCode::BAD_REQUEST => Reject::BadXml,
        _ => Reject::Storage,
    }
}

/// Streams a listing. If the store fails halfway, the connection is closed, and the end of the XML
/// is not sent: a truncated listing must not look complete to a tool that copies the backups in it.
/// To a proxy that speaks HTTP/1.0, a closed connection is the end of a complete response.
fn stream_listing(body: dav_server::body::Body, request: Arc<DavRequest>) -> Body {
    // dav-server skips what fails, so its next chunk may be the end.
    let frames = StreamExt::map(body, move |chunk| match request.failure.get() {
        Some(_) => Err(io::Error::other("the listing failed")),
        None => chunk.map(Frame::data),
    });
    Either::Right(StreamBody::new(frames.boxed()))
}

/// The store as a file system of dav-server. The resource is decided already and part of the
/// [`DavRequest`]; paths are not parsed again.
#[derive(Clone)]
struct BackupFileSystem {
    store: Arc<dyn Store>,
    config_length: u64,
}

impl BackupFileSystem {
    fn config(&self) -> Node {
        Node::File {
            length: self.config_length,
            uploaded: None,
            quote: "",
        }
    }

    async fn backup(&self, id: BackupId, request: &DavRequest) -> FsResult<Node> {
        // For a phone the collection is empty; it gets a backup by its id, with GET.
        if request.hides_backups() {
            return Err(FsError::NotFound);
        }
        let found = if request.method == Method::GET {
            let loaded = self
                .store
                .get(id)
                .await
                .map_err(|error| request.failed("read", &error))?;
            loaded.map(|(meta, body)| request.loaded.get_or_init(|| (meta, body)).0)
        } else {
            self.store
                .stat(id)
                .await
                .map_err(|error| request.failed("stat", &error))?
        };
        let existing = found.map_or(Existing::None, |meta| Existing::Backup(meta.length));
        let _ = request.existing.set(existing);
        if let Some(meta) = found {
            let _ = request.last_upload.set(meta.last_upload);
        }
        found
            .map(|meta| request.node(meta))
            .ok_or(FsError::NotFound)
    }
}

impl GuardedFileSystem<Arc<DavRequest>> for BackupFileSystem {
    fn metadata<'a>(
        &'a self,
        _path: &'a DavPath,
        request: &'a Arc<DavRequest>,
    ) -> FsFuture<'a, Box<dyn DavMetaData>> {
        Box::pin(async move {
            let node = match request.route {
                Route::Root | Route::Backups => Node::Collection,
                Route::Config => self.config(),
                Route::Backup(id) => self.backup(id, request).await?,
                Route::Unknown => return Err(FsError::NotFound),
            };
            let started = request.listing.start(&*self.store).await;
            started.map_err(|error| request.failed("list", &error))?;
            Ok(Box::new(node) as Box<dyn DavMetaData>)
        })
    }

    fn open<'a>(
        &'a self,
        _path: &'a DavPath,
        options: OpenOptions,
        request: &'a Arc<DavRequest>,
    ) -> FsFuture<'a, Box<dyn DavFile>> {
        Box::pin(async move {
            let Route::Backup(id) = request.route else {
                return Err(FsError::Forbidden);
            };
            if !options.write {
                let (node, body) = match request.loaded.get() {
                    Some((meta, body)) => (request.node(*meta), body.clone()),
                    None => (self.backup(id, request).await?, Bytes::new()),
                };
                return Ok(Box::new(Download { node, rest: body }) as Box<dyn DavFile>);
            }
            // A condition on a backup that could not be looked up may not hold.
            if request.is_conditional && request.existing.get().is_none() {
                return Err(FsError::GeneralFailure);
            }
            // There are no partial backups, and an upload of unknown length cannot be complete.
            let (true, false, Some(size)) = (options.truncate, options.append, options.size) else {
                return Err(FsError::Forbidden);
            };
            Ok(Box::new(UploadFile {
                store: Arc::clone(&self.store),
                request: Arc::clone(request),
                id,
                size,
                received: Bytes::new(),
            }) as Box<dyn DavFile>)
        })
    }

    fn read_dir<'a>(
        &'a self,
        _path: &'a DavPath,
        _meta: ReadDirMeta,
        request: &'a Arc<DavRequest>,
    ) -> FsFuture<'a, FsStream<Box<dyn DavDirEntry>>> {
        let entry = |name: &str, node| {
            Ok(Box::new(Entry {
                name: name.into(),
                node,
            }) as Box<dyn DavDirEntry>)
        };
        let entries: FsStream<_> = match (request.route, request.caller.role().may_list()) {
            (Route::Root, _) => Box::pin(stream::iter([
                entry("config", self.config()),
                entry("backups", Node::Collection),
            ])),
            (Route::Backups, true) => {
                let request = Arc::clone(request);
                let listing = request.listing.take(&*self.store);
                Box::pin(listing.map(move |listed| match listed {
                    Ok((id, meta)) => entry(&id.to_hex(), request.node(meta)),
                    Err(error) => Err(request.failed("list", &error)),
                }))
            }
            (Route::Backups | Route::Config | Route::Backup(_) | Route::Unknown, _) => {
                Box::pin(stream::empty())
            }
        };
        Box::pin(future::ready(Ok(entries)))
    }

    fn remove_file<'a>(
        &'a self,
        _path: &'a DavPath,
        request: &'a Arc<DavRequest>,
    ) -> FsFuture<'a, ()> {
        Box::pin(async move {
            let Route::Backup(id) = request.route else {
                return Err(FsError::Forbidden);
            };
            match self.store.remove(id, request.now).await {
                Ok(true) => {
                    request.quotas.backup_removed();
                    Ok(())
                }
                Ok(false) => Err(FsError::NotFound),
                Err(error) => Err(request.failed("remove", &error)),
            }
        })
    }
}

#[cfg(test)]
#[path = "dav_tests.rs"]
mod tests;
