//! Request bodies: their declared length, bounded reads, and draining of refused bodies.
//!
//! A client that is refused in the middle of its upload often never sees the refusal: its operating
//! system reports a broken connection. So a refused body of moderate size is read to its end before
//! the response is sent.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Version;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::server::net::min_rate::MinRate;
use crate::server::request::reply::Reject;

/// The maximum body of a request that is no upload, in bytes.
const MAX_SMALL_BODY: usize = 2_048;
/// The lower bound of [`BodyLimits::drain`], in bytes.
const MIN_DRAIN: u64 = 2 << 20;

/// The body of one request, not yet read.
pub(crate) struct RequestBody {
    incoming: Incoming,
    declared: Option<u64>,
    expects_continue: bool,
    limits: BodyLimits,
}

/// Deadline and minimum rate of a body, and how much of a refused one is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    deadline: Duration,
    min_rate: MinRate,
    /// The maximum that is read of a refused body, in bytes.
    drain: u64,
}

impl BodyLimits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            deadline: config.limits.body,
            min_rate: MinRate::new(&config.limits),
            drain: MIN_DRAIN.max(config.max_backup_bytes as u64 * 2),
        }
    }

    /// The time by which the next bytes must arrive, of a body that started at `start` and of which
    /// `received` bytes have arrived.
    fn next_deadline(&self, start: Instant, received: u64) -> Instant {
        let total = start + self.deadline;
        total.min(self.min_rate.deadline(start, received))
    }
}

impl RequestBody {
    /// The body of a request, and an error if its length is ambiguous.
    pub(crate) fn new(
        parts: &Parts,
        incoming: Incoming,
        limits: BodyLimits,
    ) -> (Self, Result<(), Reject>) {
        let (declared, checked) = match declared_length(parts) {
            Ok(declared) => (declared, Ok(())),
            Err(reject) => (None, Err(reject)),
        };
        let body = Self {
            incoming,
            declared,
            // HTTP/2 clients do not wait for a 100 response.
            expects_continue: parts.version < Version::HTTP_2 && parts.headers.contains_key(EXPECT),
            limits,
        };
        (body, checked)
    }

    /// The value of `Content-Length`, in bytes; `None` if there is none.
    pub(crate) fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// Reads a body of exactly `length` bytes.
    ///
    /// # Errors
    /// When the body has another length, or does not arrive within the limits.
    pub(crate) async fn read_exactly(&mut self, length: usize) -> Result<Bytes, Reject> {
        match self.read(length, length).await {
            Ok(body) if body.len() == length => Ok(body),
            Ok(_) | Err(Reject::TooLarge) => Err(Reject::Incomplete),
            Err(reject) => Err(reject),
        }
    }

    /// Reads the body of a request that is no upload.
    ///
    /// # Errors
    /// When the body is larger than [`MAX_SMALL_BODY`], or does not arrive within the limits.
    pub(crate) async fn read_small(&mut self) -> Result<Bytes, Reject> {
        self.read(0, MAX_SMALL_BODY).await
    }

    /// Reads a body of at most `max` bytes. `expected` bytes of memory are reserved when the first
    /// ones arrive.
    async fn read(&mut self, expected: usize, max: usize) -> Result<Bytes, Reject> {
        let start = Instant::now();
        let mut body = BytesMut::new();
        loop {
            let deadline = self.limits.next_deadline(start, body.len() as u64);
            let frame = timeout_at(deadline, self.incoming.frame()).await;
            let data = match frame.map_err(|_| Reject::BodyTimeout)? {
                None => return Ok(body.freeze()),
                Some(Err(_)) => return Err(Reject::Incomplete),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            if data.len() > max - body.len() {
                return Err(Reject::TooLarge);
            }
            if body.is_empty() {
                body.reserve(expected);
            }
            body.extend_from_slice(&data);
        }
    }

    /// Handles a refused body before the response is sent. A body of moderate size is read to its
    /// end; a larger one, or one of unknown size, is read while the response is sent. A body that
    /// the client holds back until a 100 response is not requested, and one that ended early or
    /// timed out is not read any further.
    pub(crate) async fn discard(self, reject: Reject) {
        let is_final =
            [Reject::BadFraming, Reject::Incomplete, Reject::BodyTimeout].contains(&reject);
        if is_final || self.incoming.is_end_stream() || self.expects_continue {
            return;
        }
        let in_background = reject == Reject::TooLarge
            || self
                .declared
                .is_none_or(|length| length > self.limits.drain);
        if in_background {
            tokio::spawn(self.drain());
        } else {
            self.drain().await;
        }
    }

    /// Reads a refused body and discards it. If the client is slower than the limits allow, the
    /// connection is closed, perhaps before the client has received the response.
    async fn drain(mut self) {
        let start = Instant::now();
        let mut received = 0;
        while received <= self.limits.drain {
            let deadline = self.limits.next_deadline(start, received);
            let Ok(Some(Ok(frame))) = timeout_at(deadline, self.incoming.frame()).await else {
                return;
            };
            received += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
    }
}

/// The declared length: `Content-Length` once, or `Transfer-Encoding: chunked` once, or neither. A
/// proxy in front could read anything else differently.
fn declared_length(parts: &Parts) -> Result<Option<u64>, Reject> {
    let mut encodings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    let encoding = encodings.next();
    let length = lengths.next();
    if encodings.next().is_some() || lengths.next().is_some() {
        return Err(Reject::BadFraming);
    }
    match (encoding, length) {
        (None, None) => Ok(None),
        (Some(encoding), None) if encoding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(None),
        (None, Some(length)) => {
            let digits = length
                .to_str()
                .ok()
                .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok());
            length.map(Some).ok_or(Reject::BadFraming)
        }
        (Some(_), _) => Err(Reject::BadFraming),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(headers: &[(&str, &str)]) -> Result<Option<u64>, Reject> {
        let mut request = http::Request::put("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        declared_length(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_declared_length_is_present_absent_or_ambiguous() {
        assert_eq!(declared(&[]), Ok(None));
        assert_eq!(declared(&[("content-length", "12")]), Ok(Some(12)));
        assert_eq!(declared(&[("transfer-encoding", "chunked")]), Ok(None));
        let ambiguous: [&[(&str, &str)]; 8] = [
            &[("content-length", "12"), ("content-length", "12")],
            &[("content-length", "12, 12")],
            &[("content-length", "+12")],
            &[("content-length", "99999999999999999999")],
            &[("content-length", "12"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip, chunked")],
            &[
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            &[("transfer-encoding", "identity")],
        ];
        for headers in ambiguous {
            assert_eq!(declared(headers), Err(Reject::BadFraming), "{headers:?}");
        }
    }
}
