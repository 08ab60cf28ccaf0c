//! Uploads through dav-server: the write half of the adapter.

use std::fmt;
use std::io::SeekFrom;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use dav_server::fs::{DavFile, DavMetaData, FsError, FsFuture};
use futures_util::future;

use crate::account::AccountName;
use crate::backup::BackupId;
use crate::server::limits::quotas::{Existing, NewVersion};
use crate::server::request::dav_request::DavRequest;
use crate::server::request::reply::Reject;
use crate::store::{Store, Upload, Uploader};

/// An upload in progress. The store gets the backup only once it is complete.
pub(super) struct UploadFile {
    pub(super) store: Arc<dyn Store>,
    pub(super) request: Arc<DavRequest>,
    pub(super) id: BackupId,
    /// The declared length, in bytes.
    pub(super) size: u64,
    pub(super) received: Bytes,
}

impl fmt::Debug for UploadFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("UploadFile")
    }
}

impl DavFile for UploadFile {
    fn metadata(&mut self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        // dav-server calls this after the upload, for the ETag of the response.
        Box::pin(async move {
            let found = self.store.stat(self.id).await;
            let meta = found
                .map_err(|_| FsError::GeneralFailure)?
                .ok_or(FsError::NotFound)?;
            Ok(Box::new(self.request.node(meta)) as Box<dyn DavMetaData>)
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
                // The usual case, a single chunk, needs no copy.
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

    /// Stores a complete backup. dav-server flushes also after a wrong length.
    ///
    /// In a task of its own: the store finishes an upload also when the client has disconnected, and
    /// what it stored has to count, or disconnecting would be a way around the quotas.
    fn flush(&mut self) -> FsFuture<'_, ()> {
        Box::pin(async move {
            if self.received.is_empty() || self.received.len() as u64 != self.size {
                return Err(FsError::GeneralFailure);
            }
            let (store, request) = (Arc::clone(&self.store), Arc::clone(&self.request));
            let body = std::mem::take(&mut self.received);
            let stored = tokio::spawn(store_upload(store, request, self.id, body));
            stored.await.unwrap_or(Err(FsError::GeneralFailure))
        })
    }
}

/// Stores a complete backup within the quotas, and records the result in the request.
async fn store_upload(
    store: Arc<dyn Store>,
    request: Arc<DavRequest>,
    id: BackupId,
    body: Bytes,
) -> Result<(), FsError> {
    let existing = request.existing.get().copied();
    let (quotas, account) = (&request.quotas, request.caller.name());
    let upload = NewVersion {
        account,
        id,
        length: body.len() as u64,
        existing: existing.unwrap_or(Existing::Unknown),
    };
    let Ok(admission) = quotas.admit(&*store, upload).await else {
        let _ = request.failure.set(Reject::OverQuota);
        return Err(FsError::InsufficientStorage);
    };
    let last_upload = request.last_upload.get();
    let age = last_upload.map(|&time| request.now.duration_since(time).unwrap_or_default());
    let (left, min_free) = quotas.room_in_trash();
    let upload = Upload {
        uploader: Some(Uploader::of(id, account.map(AccountName::as_str))),
        keep: Some(request.overwrites.keep(id, age, left, min_free)),
        ..Upload::new(body, request.now)
    };
    match store.put(id, upload).await {
        Ok(put) => {
            admission.stored(put);
            quotas.kept_in_trash(request.overwrites.stored(id, put, age));
            let _ = request.put.set(put);
            Ok(())
        }
        Err(error) => Err(request.failed("store", &error)),
    }
}
