//! Request bodies: how long one claims to be, reading it within bounds, and reading what is not wanted
//! so that the answer arrives.
//!
//! A phone that is refused in the middle of its upload often never sees why: its system reports a broken
//! connection. So a body of bearable size is read to its end before the refusal goes out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Version;
use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::server::net::rate_limited_stream::Pace;
use crate::server::request::reply::Reject;

/// The largest body of any request but an upload, in bytes.
const SMALL: usize = 2_048;
/// How much of an unwanted body is read at the least before the connection is given up, in bytes.
const DRAIN_AT_LEAST: u64 = 2 << 20;

/// The body of one request, not yet read.
pub(crate) struct RequestBody {
    incoming: Incoming,
    declared: Option<u64>,
    expects_continue: bool,
    limits: BodyLimits,
}

/// How long a body may take, and how much of it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    deadline: Duration,
    pace: Pace,
    drain: u64,
}

impl BodyLimits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            deadline: config.limits.body,
            pace: Pace::new(&config.limits),
            drain: DRAIN_AT_LEAST.max(config.max_backup_bytes as u64 * 2),
        }
    }

    /// Until when the next bytes must be there, of a body that began at `start` and of which so many came.
    fn next(&self, start: Instant, received: u64) -> Instant {
        let whole = start + self.deadline;
        whole.min(self.pace.deadline(start, received))
    }
}

impl RequestBody {
    /// Takes a request's body, after making sure that its length is beyond doubt.
    pub(crate) fn new(
        parts: &Parts,
        incoming: Incoming,
        limits: BodyLimits,
    ) -> (Self, Result<(), Reject>) {
        let (declared, verdict) = match declared_length(parts) {
            Ok(declared) => (declared, Ok(())),
            Err(reject) => (None, Err(reject)),
        };
        let body = Self {
            incoming,
            declared,
            // Over HTTP/2 nobody waits to be asked.
            expects_continue: parts.version < Version::HTTP_2 && parts.headers.contains_key(EXPECT),
            limits,
        };
        (body, verdict)
    }

    /// The value of `Content-Length`.
    pub(crate) fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// Reads a body of exactly `length` bytes.
    pub(crate) async fn read_exactly(&mut self, length: usize) -> Result<Bytes, Reject> {
        match self.read(length, length).await {
            Ok(whole) if whole.len() == length => Ok(whole),
            Ok(_) | Err(Reject::TooLarge) => Err(Reject::Cut),
            Err(reject) => Err(reject),
        }
    }

    /// Reads the body of a request that hardly needs one.
    pub(crate) async fn read_small(&mut self) -> Result<Bytes, Reject> {
        self.read(0, SMALL).await
    }

    /// Reads all of a body of at most so many bytes. `expected` bytes of memory are taken when the first has come.
    async fn read(&mut self, expected: usize, most: usize) -> Result<Bytes, Reject> {
        let start = Instant::now();
        let mut whole = BytesMut::new();
        loop {
            let next = self.limits.next(start, whole.len() as u64);
            let frame = timeout_at(next, self.incoming.frame()).await;
            let data = match frame.map_err(|_| Reject::Slow)? {
                None => return Ok(whole.freeze()),
                Some(Err(_)) => return Err(Reject::Cut),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            if data.len() > most - whole.len() {
                return Err(Reject::TooLarge);
            }
            if whole.is_empty() {
                whole.reserve(expected);
            }
            whole.extend_from_slice(&data);
        }
    }

    /// Deals with a body that nobody wants, before the refusal goes out: one of bearable size is read to
    /// its end; a larger one, or one of unknown size, is read while the answer is under way; one that the
    /// client holds back until it is asked for is not asked for; one that broke off or took too long is
    /// not waited for again.
    pub(crate) async fn discard(self, reject: Reject) {
        let over = [Reject::BadFraming, Reject::Cut, Reject::Slow].contains(&reject);
        if over || self.incoming.is_end_stream() || self.expects_continue {
            return;
        }
        let at_once = reject == Reject::TooLarge
            || self
                .declared
                .is_none_or(|length| length > self.limits.drain);
        if at_once {
            tokio::spawn(self.drain());
        } else {
            self.drain().await;
        }
    }

    /// Whoever takes longer than the limits allow loses the connection, and with it perhaps the answer.
    async fn drain(mut self) {
        let start = Instant::now();
        let mut received = 0;
        while received <= self.limits.drain {
            let next = self.limits.next(start, received);
            let Ok(Some(Ok(frame))) = timeout_at(next, self.incoming.frame()).await else {
                return;
            };
            received += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
    }
}

/// What the headers say about the length: `Content-Length` once, or `Transfer-Encoding: chunked` once,
/// or neither. Anything else could be read differently by a proxy in front.
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
    fn a_length_is_known_or_unknown_or_in_doubt() {
        assert_eq!(declared(&[]), Ok(None));
        assert_eq!(declared(&[("content-length", "12")]), Ok(Some(12)));
        assert_eq!(declared(&[("transfer-encoding", "chunked")]), Ok(None));
        let doubtful: [&[(&str, &str)]; 8] = [
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
        for headers in doubtful {
            assert_eq!(declared(headers), Err(Reject::BadFraming), "{headers:?}");
        }
    }
}
