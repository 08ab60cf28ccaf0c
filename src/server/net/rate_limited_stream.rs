//! Whoever takes or gives bytes slowly: how slow is too slow, and a stream that ends when its reader is.
//!
//! Nothing in hyper ends a connection whose client does not read its answer, or that sends what is no request
//! for ever. [`Paced`] does, on either version of HTTP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Limits;
use crate::server::metrics::limit::Limit;
use crate::server::net::connection_limiter::{Place, Work};

/// The least speed that is borne.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    grace: Duration,
    bytes_per_second: u32,
}

impl Pace {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            grace: limits.grace,
            bytes_per_second: limits.bytes_per_second,
        }
    }

    /// Until when more than `bytes` must have passed of what began at `start`.
    pub(crate) fn deadline(&self, start: Instant, bytes: u64) -> Instant {
        // 2³² bytes are beyond every body and answer.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / self.bytes_per_second;
        start + self.grace + earned
    }
}

/// How many bytes may come while no request begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chatter {
    /// While none is under way.
    pub(crate) idle: u64,
    /// While some are, whose bodies may be part of it.
    pub(crate) at_work: u64,
}

/// A stream that fails when its client takes what is written too slowly, or sends too much that is no request.
pub(crate) struct Paced<S> {
    stream: S,
    place: Arc<Place>,
    pace: Pace,
    chatter: Chatter,
    /// How many bytes have come since the last request began, and how many had begun until then.
    chattered: u64,
    requests: u64,
    /// What was not taken at once, until all of it is.
    owed: Option<Owed>,
}

struct Owed {
    since: Instant,
    written: u64,
    overdue: Pin<Box<Sleep>>,
    /// A client that is being answered is not idle.
    _work: Option<Work>,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, place: Arc<Place>, pace: Pace, chatter: Chatter) -> Self {
        Self {
            stream,
            place,
            pace,
            chatter,
            chattered: 0,
            requests: 0,
            owed: None,
        }
    }

    /// What to say when the client has not taken everything: wait, or that it took too long.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let (pace, place) = (self.pace, &self.place);
        let owed = self.owed.get_or_insert_with(|| {
            let since = Instant::now();
            Owed {
                since,
                written: 0,
                overdue: Box::pin(sleep_until(pace.deadline(since, 0))),
                _work: place.begin(),
            }
        });
        match owed.overdue.as_mut().poll(context) {
            Poll::Ready(()) => {
                place.refused(Limit::Answer);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn wrote(&mut self, count: usize) {
        self.place.wrote(count);
        if let Some(owed) = &mut self.owed {
            owed.written += count as u64;
            let deadline = self.pace.deadline(owed.since, owed.written);
            owed.overdue.as_mut().reset(deadline);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        let requests = self.place.requests_begun();
        if requests != self.requests {
            self.requests = requests;
            self.chattered = 0;
        }
        self.chattered += count as u64;
        let most = if self.place.has_request() {
            self.chatter.at_work
        } else {
            self.chatter.idle
        };
        if self.chattered > most {
            self.place.refused(Limit::UnsolicitedBytes);
            let text = "much came, and no request";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
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
                self.owed = None;
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
