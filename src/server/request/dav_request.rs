//! The context of one request in dav-server, and the results of the store.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use dav_server::fs::FsError;
use http::Method;

use crate::account::Caller;
use crate::server::limits::overwrites::Overwrites;
use crate::server::limits::quotas::{Existing, Quotas};
use crate::server::metrics::Metrics;
use crate::server::request::dav_listing::Listing;
use crate::server::request::dav_node::Node;
use crate::server::request::reply::Reject;
use crate::server::request::route::Route;
use crate::store::{self, Meta, Put};
use crate::time::printable_time;

/// One request on its way through dav-server: its context, and the results of the store.
pub(super) struct DavRequest {
    pub(super) route: Route,
    pub(super) caller: Caller,
    pub(super) quotas: Arc<Quotas>,
    pub(super) overwrites: Arc<Overwrites>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) method: Method,
    /// Whether it has a condition.
    pub(super) is_conditional: bool,
    pub(super) now: SystemTime,
    /// The backup that dav-server found before an upload.
    pub(super) existing: OnceLock<Existing>,
    /// When that backup was uploaded.
    pub(super) last_upload: OnceLock<SystemTime>,
    /// The backup of a GET, read once: dav-server first reads its metadata, then opens it.
    pub(super) loaded: OnceLock<(Meta, Bytes)>,
    pub(super) listing: Listing,
    /// The result of a successful upload.
    pub(super) put: OnceLock<Put>,
    /// The first failure of the store, or of a quota.
    pub(super) failure: OnceLock<Reject>,
}

impl DavRequest {
    /// Records and logs a failure of the store. Returns the error for dav-server.
    pub(super) fn failed(&self, operation: &'static str, error: &store::Error) -> FsError {
        self.metrics.storage_failed(operation);
        tracing::error!(
            operation,
            error = error as &dyn std::error::Error,
            "storage failed"
        );
        let _ = self.failure.set(error.into());
        match error {
            store::Error::Full(_) => FsError::InsufficientStorage,
            store::Error::Unavailable(_) | store::Error::ReadOnly(_) | store::Error::Other(_) => {
                FsError::GeneralFailure
            }
        }
    }

    /// Whether backups look as if they did not exist: a phone gets one by its id, with GET.
    pub(super) fn hides_backups(&self) -> bool {
        self.method.as_str() == "PROPFIND" && !self.caller.role().may_list()
    }

    /// The resource of a backup. Its time is never later than that of the request, as RFC 9110
    /// §8.8.2.1 demands of `Last-Modified`, and can be printed, whatever the store says:
    /// dav-server's libraries panic on a time that has no HTTP date.
    pub(super) fn node(&self, meta: Meta) -> Node {
        let modified = printable_time(meta.last_upload.min(self.now));
        // dav-server adds the quotes of an ETag in a header, but not in a listing.
        let quote = if self.method.as_str() == "PROPFIND" {
            "\""
        } else {
            ""
        };
        Node::File {
            length: meta.length,
            uploaded: Some((modified, meta.version)),
            quote,
        }
    }
}

impl From<&store::Error> for Reject {
    fn from(error: &store::Error) -> Self {
        match error {
            store::Error::Full(_) => Self::Full,
            store::Error::Unavailable(_) => Self::Unavailable,
            store::Error::ReadOnly(_) => Self::ReadOnly,
            store::Error::Other(_) => Self::Storage,
        }
    }
}
