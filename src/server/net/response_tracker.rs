//! Progress of the responses in flight on one HTTP/2 connection.
//!
//! On HTTP/1.1 the minimum rate of the stream covers its one response (`rate_limited_stream.rs`).
//! On HTTP/2 a client can keep the flow-control window of one stream closed and read everything
//! else quickly, so each response is tracked separately.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::min_rate::MinRate;
use crate::lock::lock;

/// The responses of one connection whose bodies are being sent.
#[derive(Default)]
pub(crate) struct ResponseTracker {
    responses: Mutex<Responses>,
    /// Notified when a response starts.
    started: Notify,
}

/// Identifies one response of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ResponseId(u64);

#[derive(Default)]
struct Responses {
    next: u64,
    in_flight: HashMap<ResponseId, Progress>,
}

struct Progress {
    started: Instant,
    bytes: u64,
}

impl ResponseTracker {
    /// Starts tracking a response.
    pub(crate) fn start(&self) -> ResponseId {
        let id = {
            let mut responses = self.lock();
            responses.next += 1;
            let id = ResponseId(responses.next);
            let progress = Progress {
                started: Instant::now(),
                bytes: 0,
            };
            responses.in_flight.insert(id, progress);
            id
        };
        self.started.notify_one();
        id
    }

    /// Counts bytes of a response that were handed to the connection.
    pub(crate) fn add(&self, id: ResponseId, bytes: usize) {
        if let Some(progress) = self.lock().in_flight.get_mut(&id) {
            progress.bytes += bytes as u64;
        }
    }

    /// Stops tracking a response.
    pub(crate) fn finish(&self, id: ResponseId) {
        self.lock().in_flight.remove(&id);
    }

    /// Resolves when one of the responses is slower than `min_rate`.
    pub(crate) async fn slow_response(&self, min_rate: MinRate) {
        loop {
            let started = self.started.notified();
            let deadline = {
                let responses = self.lock();
                let in_flight = responses.in_flight.values();
                in_flight
                    .map(|progress| min_rate.deadline(progress.started, progress.bytes))
                    .min()
            };
            let Some(deadline) = deadline else {
                started.await;
                continue;
            };
            if deadline <= Instant::now() {
                return;
            }
            tokio::select! {
                () = started => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Responses> {
        lock(&self.responses)
    }
}
