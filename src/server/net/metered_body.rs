//! Answers on HTTP/2, and who takes one too slowly.
//!
//! On HTTP/1.1 the stream itself shows that (`pace.rs`). On HTTP/2 a client can open no window for one answer, or one
//! byte after another, and be quick with everything else. So each body is handed on in pieces, which hyper takes only
//! when there is a window for the one before, and what was taken of it is noted.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::server::net::connection_limiter::{Place, Work};
use crate::server::net::rate_limited_stream::Pace;

/// Bytes of a piece: a frame of the usual size.
const PIECE: usize = 16 << 10;

/// The answers of one connection that are being taken.
#[derive(Default)]
pub(crate) struct Answers {
    all: Mutex<All>,
    /// Told when there is one more.
    more: Notify,
}

#[derive(Default)]
struct All {
    next: u64,
    taken: HashMap<u64, Taken>,
}

struct Taken {
    since: Instant,
    bytes: u64,
}

impl Answers {
    /// Done when one of them is taken more slowly than `pace`.
    pub(crate) async fn one_is_slow(&self, pace: Pace) {
        loop {
            let more = self.more.notified();
            let deadline = {
                let all = self.all();
                let deadlines = all.taken.values();
                deadlines
                    .map(|taken| pace.deadline(taken.since, taken.bytes))
                    .min()
            };
            let Some(deadline) = deadline else {
                more.await;
                continue;
            };
            if deadline <= Instant::now() {
                return;
            }
            tokio::select! {
                () = more => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer, whose client is at work until all of it is taken.
pub(crate) struct Metered<B> {
    body: B,
    piece: Bytes,
    place: Arc<Place>,
    number: u64,
    _work: Option<Work>,
}

impl<B> Metered<B> {
    pub(crate) fn new(body: B, place: &Arc<Place>) -> Self {
        let number = {
            let mut all = place.answers().all();
            all.next += 1;
            let number = all.next;
            let taken = Taken {
                since: Instant::now(),
                bytes: 0,
            };
            all.taken.insert(number, taken);
            number
        };
        place.answers().more.notify_one();
        Self {
            body,
            piece: Bytes::new(),
            place: Arc::clone(place),
            number,
            _work: place.begin(),
        }
    }
}

impl<B> Drop for Metered<B> {
    fn drop(&mut self) {
        self.place.answers().all().taken.remove(&self.number);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Metered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if this.piece.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.piece = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = this.piece.split_to(this.piece.len().min(PIECE));
        if let Some(taken) = this.place.answers().all().taken.get_mut(&this.number) {
            taken.bytes += piece.len() as u64;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let exact = self.body.size_hint().exact();
        exact.map_or_else(SizeHint::default, |exact| {
            SizeHint::with_exact(exact + self.piece.len() as u64)
        })
    }
}
