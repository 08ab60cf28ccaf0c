//! The adapter between dav-server and the store.
//!
//! dav-server answers conditional requests and lists; it sees only requests that `http.rs` has decided on:
//! known resource, known caller, known method, a complete body, and no headers but conditions. How the
//! store ended is remembered beside it and has the last word, because dav-server guesses: a failing look
//! counts as "new file", and a listing that breaks off looks like a short one.

use std::fmt;
use std::io::{self, SeekFrom};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::{Buf, Bytes};
use dav_server::davpath::DavPath;
use dav_server::fs::{
    DavDirEntry, DavFile, DavMetaData, FsError, FsFuture, FsResult, FsStream, GuardedFileSystem,
    OpenOptions, ReadDirMeta,
};
use dav_server::{DavHandler, DavMethod, DavMethodSet};
use futures_util::{StreamExt, future, stream};
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::Frame;

use crate::account::{Caller, Role};
use crate::backup::BackupId;
use crate::server::limits::quotas::{Before, Quotas};
use crate::server::metrics::Metrics;
use crate::server::request::conditions::{FORWARDED, are_clear};
use crate::server::request::dav_listing::Listing;
use crate::server::request::dav_node::{Download, Entry, Node};
use crate::server::request::reply::{Body, Reject};
use crate::server::request::route::Route;
use crate::store::{self, Meta, Put, Store};

const PROPFIND: &str = "PROPFIND";
const DEPTH: &str = "depth";

/// Larger than any backup: a backup is handed over in one piece.
const READ_BUFFER: usize = 1 << 30;

/// dav-server over a store.
pub(crate) struct Dav {
    handler: DavHandler<Context>,
    base_path: String,
    quotas: Arc<Quotas>,
    metrics: Arc<Metrics>,
}

impl Dav {
    /// `base_path` begins and ends with a slash; `config_length` is the length of the `config` document.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        quotas: Arc<Quotas>,
        metrics: Arc<Metrics>,
        base_path: &str,
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
        let handler = DavHandler::builder()
            .filesystem(Box::new(Backups {
                store,
                config_length: config_length as u64,
            }))
            .strip_prefix(base_path)
            .methods(methods)
            .autoindex(false)
            .read_buf_size(READ_BUFFER)
            .build_handler();
        Self {
            handler,
            base_path: base_path.to_owned(),
            quotas,
            metrics,
        }
    }

    /// Carries out a GET, HEAD, PUT, DELETE or PROPFIND.
    pub(crate) async fn handle(
        &self,
        method: &Method,
        route: Route,
        caller: &Caller,
        headers: &HeaderMap,
        body: Bytes,
        now: SystemTime,
    ) -> Result<Response<Body>, Reject> {
        if !are_clear(headers) {
            return Err(Reject::BadCondition);
        }
        let context = Context(Arc::new(Exchange {
            route,
            caller: caller.clone(),
            quotas: Arc::clone(&self.quotas),
            metrics: Arc::clone(&self.metrics),
            method: method.clone(),
            now,
            before: OnceLock::new(),
            loaded: OnceLock::new(),
            listing: Listing::new(
                method.as_str() == PROPFIND
                    && (route, caller.role()) == (Route::Backups, Role::Operator)
                    && headers.get(DEPTH).is_some_and(|depth| depth == "1"),
            ),
            put: OnceLock::new(),
            failure: OnceLock::new(),
        }));
        let request = self.request(method, route, headers, body);
        let answer = self
            .handler
            .handle_guarded(request, String::new(), context.clone())
            .await;
        let exchange = context.0;
        let (mut parts, body) = answer.into_parts();
        if method.as_str() == PROPFIND && parts.status == StatusCode::MULTI_STATUS {
            return Ok(Response::from_parts(parts, listing(body, exchange)));
        }
        // Everything else is small or in memory already, and goes out in one write.
        let body = BodyExt::collect(body)
            .await
            .map_err(|_| Reject::Storage)?
            .to_bytes();
        match (exchange.failure.get(), exchange.put.get()) {
            (Some(reject), None) => return Err(*reject),
            (_, Some(Put::Created)) => parts.status = StatusCode::CREATED,
            (_, Some(Put::Replaced)) => parts.status = StatusCode::NO_CONTENT,
            (None, None) => {}
        }
        let unmodified = parts.status == StatusCode::NOT_MODIFIED;
        if !parts.status.is_success() && !unmodified {
            return Err(refusal(parts.status));
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

    fn request(
        &self,
        method: &Method,
        route: Route,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = route
            .path(&self.base_path)
            .parse()
            .expect("a base path and a route are made of characters that stand in a URI");
        let forwarded = request.headers_mut();
        for name in FORWARDED {
            for value in headers.get_all(&name) {
                forwarded.append(name.clone(), value.clone());
            }
        }
        if method == Method::PUT {
            forwarded.insert(CONTENT_LENGTH, body.len().into());
        }
        if let Some(depth) = headers.get(DEPTH).filter(|_| method.as_str() == PROPFIND) {
            forwarded.insert(DEPTH, depth.clone());
        }
        request
    }
}

/// The refusal that stands for a status of dav-server.
fn refusal(status: StatusCode) -> Reject {
    match status {
        StatusCode::NOT_FOUND => Reject::NotFound,
        StatusCode::PRECONDITION_FAILED => Reject::PreconditionFailed,
        StatusCode::BAD_REQUEST => Reject::BadXml,
        _ => Reject::Storage,
    }
}

/// A listing as it is read. If the store fails on the way, the connection breaks off: a list that ends
/// early must not look like a whole one to whoever copies by it.
fn listing(body: dav_server::body::Body, exchange: Arc<Exchange>) -> Body {
    let failed = stream::once(async move {
        exchange
            .failure
            .get()
            .map(|_| Err(io::Error::other("the listing broke off")))
    });
    let frames = StreamExt::map(body, |chunk| chunk.map(Frame::data));
    Either::Right(StreamBody::new(
        frames.chain(failed.filter_map(future::ready)).boxed(),
    ))
}

/// One request on its way through dav-server.
#[derive(Clone)]
struct Context(Arc<Exchange>);

struct Exchange {
    route: Route,
    caller: Caller,
    quotas: Arc<Quotas>,
    metrics: Arc<Metrics>,
    method: Method,
    now: SystemTime,
    /// What dav-server saw when it first looked at the place of an upload.
    before: OnceLock<Before>,
    /// The backup of a GET, read once: dav-server looks first and opens then.
    loaded: OnceLock<(Meta, Bytes)>,
    listing: Listing,
    put: OnceLock<Put>,
    failure: OnceLock<Reject>,
}

impl Exchange {
    /// Notes and reports a failure of the store, and gives dav-server something to end with.
    fn failed(&self, operation: &'static str, error: &store::Error) -> FsError {
        self.metrics.storage_failed(operation);
        tracing::error!(
            operation,
            error = error as &dyn std::error::Error,
            "storage failed"
        );
        let (reject, answer) = match error {
            store::Error::Full(_) => (Reject::Full, FsError::InsufficientStorage),
            store::Error::Unavailable(_) => (Reject::Unavailable, FsError::GeneralFailure),
            store::Error::Other(_) => (Reject::Storage, FsError::GeneralFailure),
        };
        let _ = self.failure.set(reject);
        answer
    }

    fn node(&self, meta: Meta) -> Node {
        // In a header dav-server puts the quotes around an ETag, in a listing it forgets them.
        let quote = if self.method.as_str() == PROPFIND {
            "\""
        } else {
            ""
        };
        Node::File {
            length: meta.length,
            uploaded: Some((meta.last_upload, meta.version)),
            quote,
        }
    }
}

/// The store as dav-server's file system. Which resource is meant is in the context, decided already;
/// paths are not read again.
#[derive(Clone)]
struct Backups {
    store: Arc<dyn Store>,
    config_length: u64,
}

impl Backups {
    fn config(&self) -> Node {
        Node::File {
            length: self.config_length,
            uploaded: None,
            quote: "",
        }
    }

    async fn look(&self, id: BackupId, exchange: &Exchange) -> FsResult<Node> {
        // To a phone the collection looks empty; it reaches what it knows the name of by GET.
        if exchange.method.as_str() == PROPFIND && exchange.caller.role() == Role::Phone {
            return Err(FsError::NotFound);
        }
        let found = if exchange.method == Method::GET {
            let loaded = self
                .store
                .get(id)
                .await
                .map_err(|error| exchange.failed("read", &error))?;
            loaded.map(|(meta, body)| exchange.loaded.get_or_init(|| (meta, body)).0)
        } else {
            self.store
                .stat(id)
                .await
                .map_err(|error| exchange.failed("stat", &error))?
        };
        let before = found.map_or(Before::Nothing, |meta| Before::Backup(meta.length));
        let _ = exchange.before.set(before);
        found
            .map(|meta| exchange.node(meta))
            .ok_or(FsError::NotFound)
    }
}

impl GuardedFileSystem<Context> for Backups {
    fn metadata<'a>(
        &'a self,
        _path: &'a DavPath,
        Context(exchange): &'a Context,
    ) -> FsFuture<'a, Box<dyn DavMetaData>> {
        Box::pin(async move {
            let node = match exchange.route {
                Route::Root | Route::Backups => Node::Collection,
                Route::Config => self.config(),
                Route::Backup(id) => self.look(id, exchange).await?,
                Route::Unknown => return Err(FsError::NotFound),
            };
            let started = exchange.listing.start(&*self.store).await;
            started.map_err(|error| exchange.failed("list", &error))?;
            Ok(Box::new(node) as Box<dyn DavMetaData>)
        })
    }

    fn open<'a>(
        &'a self,
        _path: &'a DavPath,
        options: OpenOptions,
        Context(exchange): &'a Context,
    ) -> FsFuture<'a, Box<dyn DavFile>> {
        Box::pin(async move {
            let Route::Backup(id) = exchange.route else {
                return Err(FsError::Forbidden);
            };
            if !options.write {
                let (node, body) = match exchange.loaded.get() {
                    Some((meta, body)) => (exchange.node(*meta), body.clone()),
                    None => (self.look(id, exchange).await?, Bytes::new()),
                };
                return Ok(Box::new(Download { node, rest: body }) as Box<dyn DavFile>);
            }
            // Parts of a backup do not exist, and an upload whose length is not known cannot be complete.
            let (true, false, Some(size)) = (options.truncate, options.append, options.size) else {
                return Err(FsError::Forbidden);
            };
            Ok(Box::new(Upload {
                store: Arc::clone(&self.store),
                exchange: Arc::clone(exchange),
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
        Context(exchange): &'a Context,
    ) -> FsFuture<'a, FsStream<Box<dyn DavDirEntry>>> {
        let entry = |name: &str, node| {
            Ok(Box::new(Entry {
                name: name.into(),
                node,
            }) as Box<dyn DavDirEntry>)
        };
        let entries: FsStream<_> = match (exchange.route, exchange.caller.role()) {
            (Route::Root, _) => Box::pin(stream::iter([
                entry("config", self.config()),
                entry("backups", Node::Collection),
            ])),
            (Route::Backups, Role::Operator) => {
                let exchange = Arc::clone(exchange);
                let listing = exchange.listing.take(&*self.store);
                Box::pin(listing.map(move |listed| match listed {
                    Ok((id, meta)) => entry(&id.to_hex(), exchange.node(meta)),
                    Err(error) => Err(exchange.failed("list", &error)),
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
        Context(exchange): &'a Context,
    ) -> FsFuture<'a, ()> {
        Box::pin(async move {
            let Route::Backup(id) = exchange.route else {
                return Err(FsError::Forbidden);
            };
            match self.store.remove(id, exchange.now).await {
                Ok(true) => {
                    exchange.quotas.removed();
                    Ok(())
                }
                Ok(false) => Err(FsError::NotFound),
                Err(error) => Err(exchange.failed("remove", &error)),
            }
        })
    }
}

/// A backup on its way in. Nothing reaches the store before all of it is here.
struct Upload {
    store: Arc<dyn Store>,
    exchange: Arc<Exchange>,
    id: BackupId,
    size: u64,
    received: Bytes,
}

impl fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Upload")
    }
}

impl DavFile for Upload {
    fn metadata(&mut self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        // Asked for after the upload, for the ETag of the answer.
        Box::pin(async move {
            let found = self.store.stat(self.id).await;
            let meta = found
                .map_err(|_| FsError::GeneralFailure)?
                .ok_or(FsError::NotFound)?;
            Ok(Box::new(self.exchange.node(meta)) as Box<dyn DavMetaData>)
        })
    }

    fn read_bytes(&mut self, _: usize) -> FsFuture<'_, Bytes> {
        Box::pin(future::ready(Err(FsError::Forbidden)))
    }

    fn write_buf(&mut self, mut buffer: Box<dyn Buf + Send>) -> FsFuture<'_, ()> {
        let length = buffer.remaining();
        self.write_bytes(buffer.copy_to_bytes(length))
    }

    fn write_bytes(&mut self, bytes: Bytes) -> FsFuture<'_, ()> {
        let fits = (self.received.len() + bytes.len()) as u64 <= self.size;
        if fits {
            if self.received.is_empty() {
                // The usual case, one piece, is taken over without a copy.
                self.received = bytes;
            } else {
                self.received = [&*self.received, &*bytes].concat().into();
            }
        }
        Box::pin(future::ready(if fits {
            Ok(())
        } else {
            Err(FsError::TooLarge)
        }))
    }

    fn seek(&mut self, _: SeekFrom) -> FsFuture<'_, u64> {
        Box::pin(future::ready(Err(FsError::NotImplemented)))
    }

    /// dav-server flushes also when the length was wrong: only a complete backup is stored.
    fn flush(&mut self) -> FsFuture<'_, ()> {
        Box::pin(async move {
            if self.received.is_empty() || self.received.len() as u64 != self.size {
                return Err(FsError::GeneralFailure);
            }
            let before = self.exchange.before.get().copied();
            let (quotas, account) = (&self.exchange.quotas, self.exchange.caller.name());
            let admission = quotas
                .admit(
                    &*self.store,
                    account,
                    self.size,
                    before.unwrap_or(Before::Unclear),
                )
                .await;
            let Ok(admission) = admission else {
                let _ = self.exchange.failure.set(Reject::OverQuota);
                return Err(FsError::InsufficientStorage);
            };
            let body = std::mem::take(&mut self.received);
            match self.store.put(self.id, body).await {
                Ok(put) => {
                    admission.ended(put);
                    let _ = self.exchange.put.set(put);
                    Ok(())
                }
                Err(error) => Err(self.exchange.failed("store", &error)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::BoxFuture;
    use futures_util::stream::BoxStream;
    use http::HeaderName;
    use http::header::{IF_MATCH, IF_NONE_MATCH};

    use super::*;
    use crate::store::{Error, Restored, Trashed, Verified};

    /// A store that looks empty, keeps what it is given in its hand, and says that it replaced something.
    #[derive(Default)]
    struct Hand(Mutex<Vec<Bytes>>);

    impl Store for Hand {
        fn put(&self, _: BackupId, body: Bytes) -> BoxFuture<'_, Result<Put, Error>> {
            self.0.lock().unwrap().push(body);
            Box::pin(future::ready(Ok(Put::Replaced)))
        }
        fn get(&self, _: BackupId) -> BoxFuture<'_, Result<Option<(Meta, Bytes)>, Error>> {
            Box::pin(future::ready(Ok(None)))
        }
        fn stat(&self, _: BackupId) -> BoxFuture<'_, Result<Option<Meta>, Error>> {
            Box::pin(future::ready(Ok(None)))
        }
        fn remove(&self, _: BackupId, _: SystemTime) -> BoxFuture<'_, Result<bool, Error>> {
            Box::pin(future::ready(Ok(false)))
        }
        fn expire(
            &self,
            _: BackupId,
            _: SystemTime,
            _: SystemTime,
        ) -> BoxFuture<'_, Result<bool, Error>> {
            Box::pin(future::ready(Ok(false)))
        }
        fn list(&self) -> BoxStream<'static, Result<(BackupId, Meta), Error>> {
            stream::empty().boxed()
        }
        fn list_trash(&self) -> BoxStream<'static, Result<Trashed, Error>> {
            stream::empty().boxed()
        }
        fn restore(&self, _: Trashed, _: SystemTime) -> BoxFuture<'_, Result<Restored, Error>> {
            Box::pin(future::ready(Ok(Restored::Gone)))
        }
        fn verify(&self, _: BackupId) -> BoxFuture<'_, Result<Option<Verified>, Error>> {
            Box::pin(future::ready(Ok(None)))
        }
        fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(future::ready(Ok(())))
        }
        fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
            Box::pin(future::ready(Ok(None)))
        }
        fn erase_trashed(&self, _: Trashed) -> BoxFuture<'_, Result<bool, Error>> {
            Box::pin(future::ready(Ok(false)))
        }
    }

    fn dav(store: &Arc<Hand>) -> Dav {
        let metrics = Arc::new(Metrics::new(0));
        let quotas = Arc::new(Quotas::new(
            crate::config::Quotas::default(),
            Arc::clone(&metrics),
        ));
        Dav::new(Arc::<Hand>::clone(store), quotas, metrics, "/", 0)
    }

    /// Found by `fuzz/`: the first of these ended a connection in a panic.
    #[tokio::test]
    async fn a_condition_that_is_none_is_refused_and_nothing_is_stored() {
        let store = Arc::new(Hand::default());
        let dav = dav(&store);
        let put = async |name: HeaderName, value: &[u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            let answer = dav
                .handle(
                    &Method::PUT,
                    Route::Backup(BackupId::from_bytes([1; 32])),
                    &Caller::anonymous(),
                    &HeaderMap::from_iter([(name, value)]),
                    Bytes::from_static(b"backup"),
                    SystemTime::UNIX_EPOCH,
                )
                .await;
            answer.map(|answer| answer.status())
        };
        for bad in [
            &b"\""[..],
            b"W/\"",
            b"\"a\", \"",
            b"\"a,\"",
            b"",
            b"a",
            b"\"a\"b\"",
            b"\"a\", *",
            b"w/\"a\"",
            b"\"\xe9\"",
        ] {
            for name in [IF_MATCH, IF_NONE_MATCH] {
                let shown = bad.escape_ascii();
                assert_eq!(put(name, bad).await, Err(Reject::BadCondition), "{shown}");
            }
        }
        assert!(store.0.lock().unwrap().is_empty());

        for good in [&b"*"[..], b"\"\"", b"\"a\"", b" W/\"a\" ,\"b\""] {
            let shown = good.escape_ascii();
            assert_eq!(
                put(IF_MATCH, good).await,
                Err(Reject::PreconditionFailed),
                "{shown}"
            );
            assert_eq!(
                put(IF_NONE_MATCH, good).await,
                Ok(StatusCode::NO_CONTENT),
                "{shown}"
            );
        }
    }

    /// The memory of an upload is accounted for as long as its bytes live: a copy would escape that.
    #[tokio::test]
    async fn an_upload_reaches_the_store_without_a_copy_and_the_store_has_the_last_word() {
        let store = Arc::new(Hand::default());
        let dav = dav(&store);
        let backup = Bytes::from_owner(vec![7; 100_000]);
        let route = Route::Backup(BackupId::from_bytes([1; 32]));

        let answer = dav
            .handle(
                &Method::PUT,
                route,
                &Caller::anonymous(),
                &HeaderMap::new(),
                backup.clone(),
                SystemTime::UNIX_EPOCH,
            )
            .await;

        // dav-server looked and saw nothing; the store knows better.
        assert_eq!(answer.unwrap().status(), StatusCode::NO_CONTENT);
        let stored = store.0.lock().unwrap();
        assert_eq!(
            (stored[0].as_ptr(), stored[0].len()),
            (backup.as_ptr(), backup.len())
        );
    }
}
