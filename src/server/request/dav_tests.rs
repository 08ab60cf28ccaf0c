//! Unit tests of the adapter of dav-server.

use std::num::NonZeroU32;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::HeaderName;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use tokio::sync::Semaphore;

use super::*;
use crate::store::{Error, Meta, Restored, Trashed, Upload, Verified};

/// A store that is empty, records uploads, and reports each as a replacement.
#[derive(Default)]
struct RecordingStore {
    uploads: Mutex<Vec<Bytes>>,
    /// If set, each upload waits for a permit, and is reported as a new backup.
    gate: Option<Semaphore>,
}

impl Store for RecordingStore {
    fn put(&self, _: BackupId, upload: Upload) -> BoxFuture<'_, Result<Put, Error>> {
        Box::pin(async move {
            self.uploads.lock().unwrap().push(upload.body);
            let Some(gate) = &self.gate else {
                return Ok(Put::Replaced);
            };
            gate.acquire().await.unwrap().forget();
            Ok(Put::Created)
        })
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
    fn roll_back(
        &self,
        _: Trashed,
        _: SystemTime,
        _: bool,
    ) -> BoxFuture<'_, Result<Restored, Error>> {
        Box::pin(future::ready(Ok(Restored::Gone)))
    }
    fn pass_over(&self, _: Trashed) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(future::ready(Ok(())))
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

fn dav(store: &Arc<RecordingStore>, limits: crate::config::Quotas) -> Dav {
    let metrics = Arc::new(Metrics::new(0));
    let overwrites = Arc::new(Overwrites::new(Arc::clone(&metrics)));
    let quotas = Arc::new(Quotas::new(limits, Arc::clone(&metrics)));
    let store = Arc::<RecordingStore>::clone(store);
    Dav::new(store, quotas, overwrites, metrics, "/", None, 0)
}

async fn put(
    dav: &Dav,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    body: Bytes,
) -> Result<StatusCode, Reject> {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::PUT;
    for (name, value) in headers {
        parts.headers.append(name, value);
    }
    let call = DavCall {
        parts: &parts,
        route: Route::Backup(BackupId::from_bytes([1; 32])),
        caller: &Caller::anonymous(),
        base: PathBase::Own,
    };
    let response = dav.handle(&call, body, SystemTime::UNIX_EPOCH).await;
    response.map(|response| response.status())
}

/// Found by `fuzz/`: the first of these ended a connection in a panic.
#[tokio::test]
async fn an_invalid_condition_is_refused_and_nothing_is_stored() {
    let store = Arc::new(RecordingStore::default());
    let dav = dav(&store, crate::config::Quotas::default());
    let put = async |name: HeaderName, lines: &[&[u8]]| {
        let line = |line: &&[u8]| (name.clone(), HeaderValue::from_bytes(line).unwrap());
        put(&dav, lines.iter().map(line), Bytes::from_static(b"backup")).await
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
            assert_eq!(
                put(name.clone(), &[bad]).await,
                Err(Reject::BadCondition),
                "{shown}"
            );
            // In another line than the first too, where there may be no star either.
            let good = &b"\"a\""[..];
            for lines in [[good, bad], [bad, good], [good, b"*"], [b"*", b"*"]] {
                let refused = put(name.clone(), &lines).await;
                assert_eq!(refused, Err(Reject::BadCondition), "{shown}");
            }
        }
    }
    assert!(store.uploads.lock().unwrap().is_empty());

    for good in [&b"*"[..], b"\"\"", b"\"a\"", b" W/\"a\" ,\"b\""] {
        let shown = good.escape_ascii();
        assert_eq!(
            put(IF_MATCH, &[good]).await,
            Err(Reject::PreconditionFailed),
            "{shown}"
        );
        assert_eq!(
            put(IF_NONE_MATCH, &[good]).await,
            Ok(StatusCode::NO_CONTENT),
            "{shown}"
        );
    }
}

/// The upload memory counts the bytes of an upload until they are dropped: a copy would not be
/// counted.
#[tokio::test]
async fn an_upload_reaches_the_store_without_a_copy_and_the_result_of_the_store_takes_precedence() {
    let store = Arc::new(RecordingStore::default());
    let dav = dav(&store, crate::config::Quotas::default());
    let backup = Bytes::from_owner(vec![7; 100_000]);

    let response = put(&dav, [], backup.clone()).await;

    // dav-server found no backup; the store reports a replacement.
    assert_eq!(response, Ok(StatusCode::NO_CONTENT));
    let stored = store.uploads.lock().unwrap();
    assert_eq!(
        (stored[0].as_ptr(), stored[0].len()),
        (backup.as_ptr(), backup.len())
    );
}

/// The store finishes what it has begun, so a client that disconnects would evade the quotas.
#[tokio::test]
async fn an_upload_counts_although_its_client_has_disconnected() {
    let store = Arc::new(RecordingStore {
        gate: Some(Semaphore::new(0)),
        ..RecordingStore::default()
    });
    let limits = crate::config::Quotas {
        new_backups_per_account: NonZeroU32::new(1),
        ..crate::config::Quotas::default()
    };
    let dav = dav(&store, limits);
    let backup = Bytes::from_static(b"backup");

    let reaches_the_store = async {
        while store.uploads.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = put(&dav, [], backup.clone()) => panic!("the store has not finished"),
        () = reaches_the_store => {}
    }
    store.gate.as_ref().unwrap().add_permits(2);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }

    assert_eq!(put(&dav, [], backup).await, Err(Reject::OverQuota));
    assert_eq!(store.uploads.lock().unwrap().len(), 1);
}
