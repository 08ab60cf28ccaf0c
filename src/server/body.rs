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
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::reply::Reject;

/// The largest body of any request but an upload, in bytes.
const SMALL: usize = 2_048;
/// How much of an unwanted body is read at the least before the connection is given up, in bytes.
const DRAIN_AT_LEAST: u64 = 2 << 20;

/// The body of one request, not yet read.
pub(crate) struct RequestBody {
    incoming: Incoming,
    declared: Option<u64>,
    expects_continue: bool,
    deadline: Duration,
    drain_limit: u64,
}

impl RequestBody {
    /// Takes a request's body, after making sure that its length is beyond doubt. `max_backup_bytes`
    /// decides how much is drained, `deadline` how long reading may take.
    pub(crate) fn new(
        parts: &Parts,
        incoming: Incoming,
        max_backup_bytes: usize,
        deadline: Duration,
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
            deadline,
            drain_limit: DRAIN_AT_LEAST.max(max_backup_bytes as u64 * 2),
        };
        (body, verdict)
    }

    /// The value of `Content-Length`.
    pub(crate) fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// Reads a body of exactly `length` bytes.
    pub(crate) async fn read_exactly(&mut self, length: usize) -> Result<Bytes, Reject> {
        let read = async {
            let mut whole = BytesMut::new();
            let mut body = Limited::new(&mut self.incoming, length);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| Reject::Cut)?;
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if whole.is_empty() {
                    whole.reserve(length);
                }
                whole.extend_from_slice(&data);
            }
            if whole.len() == length {
                Ok(whole.freeze())
            } else {
                Err(Reject::Cut)
            }
        };
        timeout(self.deadline, read)
            .await
            .unwrap_or(Err(Reject::Slow))
    }

    /// Reads the body of a request that hardly needs one.
    pub(crate) async fn read_small(&mut self) -> Result<Bytes, Reject> {
        let read = Limited::new(&mut self.incoming, SMALL).collect();
        match timeout(self.deadline, read).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                Err(Reject::TooLarge)
            }
            Ok(Err(_)) => Err(Reject::Cut),
            Err(_) => Err(Reject::Slow),
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
            || self.declared.is_none_or(|length| length > self.drain_limit);
        if at_once {
            tokio::spawn(self.drain());
        } else {
            self.drain().await;
        }
    }

    async fn drain(mut self) {
        let drained = async {
            let mut left = self.drain_limit;
            while let Some(Ok(frame)) = self.incoming.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(rest) = left.checked_sub(length) else {
                    return;
                };
                left = rest;
            }
        };
        // Whoever takes longer loses the connection, and with it perhaps the answer.
        let _ = timeout(self.deadline, drained).await;
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
