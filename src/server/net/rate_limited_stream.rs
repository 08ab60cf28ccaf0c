//! A stream with a minimum write rate and a limit on bytes that belong to no request.
//!
//! hyper keeps a connection open when its client does not read the response, and when its client
//! endlessly sends bytes that belong to no request. [`RateLimitedStream`] ends both, for HTTP/1.1
//! and HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection_limiter::{ConnectionSlot, InFlight};
use super::min_rate::MinRate;

use crate::server::metrics::limit::Limit;

/// Limits on the bytes that a client may send after the start of its last request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnsolicitedBytesLimit {
    /// While no request is in flight.
    pub(crate) idle: u64,
    /// While requests are in flight; their bodies count too.
    pub(crate) active: u64,
}

/// A stream that fails when its client reads too slowly, or sends too many bytes that belong to no
/// request.
pub(crate) struct RateLimitedStream<S> {
    stream: S,
    slot: Arc<ConnectionSlot>,
    min_rate: MinRate,
    unsolicited: UnsolicitedBytesLimit,
    /// Bytes received since the last request started.
    received: u64,
    /// The number of requests that had started by then.
    requests: u64,
    /// Present while the client has not read everything that was written.
    pending: Option<PendingWrite>,
}

/// Output that the client has not read yet.
struct PendingWrite {
    since: Instant,
    written: u64,
    deadline: Pin<Box<Sleep>>,
    /// A connection whose client reads a response is not idle.
    _in_flight: Option<InFlight>,
}

impl<S> RateLimitedStream<S> {
    pub(crate) fn new(
        stream: S,
        slot: Arc<ConnectionSlot>,
        min_rate: MinRate,
        unsolicited: UnsolicitedBytesLimit,
    ) -> Self {
        Self {
            stream,
            slot,
            min_rate,
            unsolicited,
            received: 0,
            requests: 0,
            pending: None,
        }
    }

    /// Waits for the client to read, or fails when it is too slow.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let (min_rate, slot) = (self.min_rate, &self.slot);
        let pending = self.pending.get_or_insert_with(|| {
            let since = Instant::now();
            PendingWrite {
                since,
                written: 0,
                deadline: Box::pin(sleep_until(min_rate.deadline(since, 0))),
                _in_flight: slot.start(),
            }
        });
        match pending.deadline.as_mut().poll(context) {
            Poll::Ready(()) => {
                slot.count_refusal(Limit::Response);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn wrote(&mut self, count: usize) {
        self.slot.add_written(count);
        if let Some(pending) = &mut self.pending {
            pending.written += count as u64;
            let deadline = self.min_rate.deadline(pending.since, pending.written);
            pending.deadline.as_mut().reset(deadline);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RateLimitedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        let requests = self.slot.requests_started();
        if requests != self.requests {
            self.requests = requests;
            self.received = 0;
        }
        self.received += count as u64;
        let limit = if self.slot.has_request() {
            self.unsolicited.active
        } else {
            self.unsolicited.idle
        };
        if self.received > limit {
            self.slot.count_refusal(Limit::UnsolicitedBytes);
            let text = "too many bytes that belong to no request";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RateLimitedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.wait(context),
            Poll::Ready(result) => {
                self.wrote(result.as_ref().map_or(0, |count| *count));
                Poll::Ready(result)
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            Poll::Pending => self.wait(context),
            Poll::Ready(result) => {
                self.wrote(result.as_ref().map_or(0, |count| *count));
                Poll::Ready(result)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => self.wait(context),
            Poll::Ready(result) => {
                self.pending = None;
                Poll::Ready(result)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Pending => self.wait(context),
            done @ Poll::Ready(_) => done,
        }
    }
}
