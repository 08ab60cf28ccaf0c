//! Resources as dav-server sees them, and downloads: the read half of the adapter.

use std::fmt;
use std::io::SeekFrom;
use std::time::SystemTime;

use bytes::{Buf, Bytes};
use dav_server::fs::{DavDirEntry, DavFile, DavMetaData, FsError, FsFuture, FsResult};
use futures_util::future;

use crate::store::Version;

/// The entity tag of a version, with its quotation marks.
pub(crate) fn entity_tag(Version(version): Version) -> String {
    format!("\"{version:x}\"")
}

/// The metadata of a resource.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node {
    Collection,
    File {
        /// In bytes.
        length: u64,
        /// `None` for the `config` document, which has no time and no ETag.
        uploaded: Option<(SystemTime, Version)>,
        /// The quotation mark around an ETag, if dav-server does not add it.
        quote: &'static str,
    },
}

impl DavMetaData for Node {
    fn len(&self) -> u64 {
        match self {
            Self::Collection => 0,
            Self::File { length, .. } => *length,
        }
    }

    fn modified(&self) -> FsResult<SystemTime> {
        match self {
            Self::File {
                uploaded: Some((time, _)),
                ..
            } => Ok(*time),
            Self::File { uploaded: None, .. } | Self::Collection => Err(FsError::NotImplemented),
        }
    }

    fn is_dir(&self) -> bool {
        matches!(self, Self::Collection)
    }

    fn etag(&self) -> Option<String> {
        match self {
            Self::File {
                uploaded: Some((_, Version(version))),
                quote,
                ..
            } => Some(format!("{quote}{version:x}{quote}")),
            Self::File { uploaded: None, .. } | Self::Collection => None,
        }
    }
}

/// An entry of a collection.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) node: Node,
}

impl DavDirEntry for Entry {
    fn name(&self) -> Vec<u8> {
        self.name.clone().into_bytes()
    }

    fn metadata(&self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        Box::pin(future::ready(Ok(
            Box::new(self.node) as Box<dyn DavMetaData>
        )))
    }
}

/// A download in progress, or only the metadata of a backup.
pub(crate) struct Download {
    pub(crate) node: Node,
    pub(crate) rest: Bytes,
}

impl fmt::Debug for Download {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Download")
    }
}

impl DavFile for Download {
    fn metadata(&mut self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        Box::pin(future::ready(Ok(
            Box::new(self.node) as Box<dyn DavMetaData>
        )))
    }

    fn read_bytes(&mut self, count: usize) -> FsFuture<'_, Bytes> {
        let chunk = self.rest.split_to(count.min(self.rest.len()));
        // dav-server would send zeros in place of missing bytes.
        let result = if chunk.is_empty() {
            Err(FsError::GeneralFailure)
        } else {
            Ok(chunk)
        };
        Box::pin(future::ready(result))
    }

    fn write_buf(&mut self, _: Box<dyn Buf + Send>) -> FsFuture<'_, ()> {
        Box::pin(future::ready(Err(FsError::Forbidden)))
    }

    fn write_bytes(&mut self, _: Bytes) -> FsFuture<'_, ()> {
        Box::pin(future::ready(Err(FsError::Forbidden)))
    }

    fn seek(&mut self, _: SeekFrom) -> FsFuture<'_, u64> {
        Box::pin(future::ready(Err(FsError::NotImplemented)))
    }

    fn flush(&mut self) -> FsFuture<'_, ()> {
        Box::pin(future::ready(Err(FsError::Forbidden)))
    }
}
