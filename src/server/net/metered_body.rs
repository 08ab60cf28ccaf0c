//! HTTP/2 response bodies that report their progress to the connection's [`ResponseTracker`].
//!
//! A body is handed to hyper in chunks. hyper polls for a chunk only when the flow-control window
//! has room for the one before, so the bytes handed over are the bytes that the client reads.
//!
//! [`ResponseTracker`]: super::response_tracker::ResponseTracker

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::connection_limiter::{ConnectionSlot, InFlight};
use super::response_tracker::ResponseId;

/// Bytes of a chunk: an HTTP/2 frame of the default maximum size (RFC 9113 §4.2).
const CHUNK: usize = 16 << 10;

/// The body of a response. The connection is active until all of it is sent.
pub(crate) struct MeteredBody<B> {
    body: B,
    rest: Bytes,
    slot: Arc<ConnectionSlot>,
    id: ResponseId,
    _in_flight: Option<InFlight>,
}

impl<B> MeteredBody<B> {
    pub(crate) fn new(body: B, slot: &Arc<ConnectionSlot>) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            slot: Arc::clone(slot),
            id: slot.responses().start(),
            _in_flight: slot.start(),
        }
    }
}

impl<B> Drop for MeteredBody<B> {
    fn drop(&mut self) {
        self.slot.responses().finish(self.id);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for MeteredBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let chunk = this.rest.split_to(this.rest.len().min(CHUNK));
        this.slot.responses().add(this.id, chunk.len());
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let exact = self.body.size_hint().exact();
        exact.map_or_else(SizeHint::default, |exact| {
            SizeHint::with_exact(exact + self.rest.len() as u64)
        })
    }
}
