//! Request framing guard for HTTP/1.1: refuses requests whose start, end or target two parsers
//! could read differently (request smuggling).
//!
//! hyper merges two equal `Content-Length` headers, drops a `Content-Length` beside
//! `Transfer-Encoding`, and accepts a bare LF as a line end, all before the handler sees the
//! request. RFC 9112 allows each of these, and each permits request smuggling if a proxy in front
//! of the server chooses otherwise. So [`FramingGuard`] reads the bytes before hyper does: it
//! passes a header on only when it is complete and unambiguous, counts the body by its one length,
//! and then checks the next header. In place of an ambiguous header it passes on bytes that hyper
//! answers with 400 and the end of the connection, after the responses in flight.
//!
//! A header larger than `limits.headerBytes` is passed on incomplete, so that hyper answers with
//! 431. HTTP/2 has its own framing; [`is_unambiguous`], which the request handler calls for every
//! request of either version, checks its target, host and credentials.
//!
//! Chunked bodies are left to hyper, which parses them strictly. Such a request is the last of its
//! connection (`request/handler.rs` closes the connection in the response), and no bytes after it
//! are parsed as a request, so the guard does not have to find its end.
//!
//! Written by hand, as a second HTTP/1 parser that only refuses: hyper has no option for it, and
//! httparse, the parser in hyper, accepts a bare LF too and leaves the body length to its caller.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::server::metrics::limit::{Limit, Refusals};

/// Bytes that hyper never parses as a request, whatever came before.
const INVALID_REQUEST: &[u8] = b"\0\r\n\r\n";
/// Bytes of one read while the guard waits for a header.
const READ_SIZE: usize = 2 << 10;

/// A stream that passes on only requests with unambiguous framing.
pub(crate) struct FramingGuard<S> {
    stream: S,
    header_bytes: usize,
    refusals: Refusals,
    state: State,
    /// Bytes that were read and not yet passed on.
    buffer: Vec<u8>,
    /// How many bytes of the buffer may be passed on.
    ready: usize,
    /// How many bytes of the buffer were searched for the end of a header.
    searched: usize,
}

/// The part of the connection that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A header.
    Header,
    /// The rest of a body, of this length in bytes.
    Body(u64),
    /// Bytes that are passed on unchecked, because no request follows.
    Passthrough,
    /// Bytes that are discarded, after a request that was refused.
    Discard,
}

impl<S> FramingGuard<S> {
    pub(crate) fn new(stream: S, header_bytes: usize, refusals: Refusals) -> Self {
        Self {
            stream,
            header_bytes,
            refusals,
            state: State::Header,
            buffer: Vec::new(),
            ready: 0,
            searched: 0,
        }
    }

    /// Checks the buffer; false if more bytes are needed.
    fn check(&mut self) -> bool {
        if self.state == State::Body(0) {
            self.state = State::Header;
            self.searched = 0;
        }
        match self.state {
            State::Discard => self.buffer.clear(),
            State::Passthrough => self.ready = self.buffer.len(),
            State::Body(left) => {
                let max = usize::try_from(left).unwrap_or(usize::MAX);
                self.ready = self.buffer.len().min(max);
                self.state = State::Body(left - self.ready as u64);
            }
            State::Header => match end_of_header(&self.buffer, self.searched) {
                Ok(Some(end)) => match self.buffer.get(..end).and_then(parse_header) {
                    Some(state) => {
                        self.ready = end;
                        self.state = state;
                    }
                    None => self.refuse(),
                },
                // hyper answers that it is too large, and gets no bytes that would complete it.
                Ok(None) if self.buffer.len() >= self.header_bytes => {
                    self.ready = self.buffer.len();
                    self.state = State::Discard;
                }
                Ok(None) => self.searched = self.buffer.len(),
                Err(Ambiguous) => self.refuse(),
            },
        }
        self.ready > 0
    }

    fn refuse(&mut self) {
        self.refusals.count(Limit::Framing);
        self.buffer = INVALID_REQUEST.into();
        self.ready = self.buffer.len();
        self.state = State::Discard;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FramingGuard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        output: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ready > 0 {
                let count = this.ready.min(output.remaining());
                output.put_slice(this.buffer.get(..count).unwrap_or_default());
                this.buffer.drain(..count);
                this.ready -= count;
                return Poll::Ready(Ok(()));
            }
            if !this.buffer.is_empty() && this.check() {
                continue;
            }
            let stream = Pin::new(&mut this.stream);
            match this.state {
                State::Passthrough => return stream.poll_read(context, output),
                State::Body(left @ 1..) => {
                    let max = usize::try_from(left).unwrap_or(usize::MAX);
                    let max = max.min(output.remaining());
                    let mut part = ReadBuf::new(output.initialize_unfilled_to(max));
                    ready!(stream.poll_read(context, &mut part))?;
                    let count = part.filled().len();
                    output.advance(count);
                    this.state = State::Body(left - count as u64);
                    return Poll::Ready(Ok(()));
                }
                State::Header | State::Body(0) | State::Discard => {
                    let mut read = [0; READ_SIZE];
                    let mut read = ReadBuf::new(&mut read);
                    ready!(stream.poll_read(context, &mut read))?;
                    if read.filled().is_empty() {
                        // The end of the stream, perhaps within a header: hyper handles both.
                        this.state = State::Passthrough;
                        if this.buffer.is_empty() {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    this.buffer.extend_from_slice(read.filled());
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FramingGuard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Two parsers could read the bytes differently.
#[derive(Debug, PartialEq, Eq)]
struct Ambiguous;

/// The end of the header at the start of `buffer`, if it is complete; the first `searched` bytes
/// were searched before.
fn end_of_header(buffer: &[u8], searched: usize) -> Result<Option<usize>, Ambiguous> {
    if buffer.starts_with(b"\r") || buffer.starts_with(b"\n") {
        return Err(Ambiguous);
    }
    for (position, &byte) in buffer.iter().enumerate().skip(searched) {
        let line = buffer.get(..=position).unwrap_or_default();
        match byte {
            b'\n' if !line.ends_with(b"\r\n") => return Err(Ambiguous),
            b'\n' if line.ends_with(b"\r\n\r\n") => return Ok(Some(position + 1)),
            0 => return Err(Ambiguous),
            _ => {}
        }
    }
    Ok(None)
}

/// The state after a complete header; `None` if the header is ambiguous.
fn parse_header(header: &[u8]) -> Option<State> {
    let lines = header.strip_suffix(b"\r\n\r\n")?;
    let mut lines = lines.split(|&byte| byte == b'\n').map(strip_cr);
    let is_1_1 = parse_request_line(lines.next()?)?;
    let mut length = None;
    let mut chunked = None;
    let mut host = None;
    let mut authorization = None;
    for line in lines {
        let (name, value) = parse_field(line)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let repeated = if is("content-length") {
            length.replace(parse_length(value)?).is_some()
        } else if is("transfer-encoding") {
            let is_valid = is_1_1 && value.eq_ignore_ascii_case(b"chunked");
            chunked.replace(is_valid.then_some(())?).is_some()
        } else if is("host") {
            host.replace(is_authority(value).then_some(())?).is_some()
        } else if is("authorization") {
            authorization.replace(()).is_some()
        } else {
            false
        };
        if repeated {
            return None;
        }
    }
    // HTTP/1.0 has no Host (RFC 9112 §3.2).
    if is_1_1 && host.is_none() {
        return None;
    }
    match (length, chunked) {
        (Some(_), Some(())) => None,
        (None, Some(())) => Some(State::Passthrough),
        (length, None) => Some(State::Body(length.unwrap_or(0))),
    }
}

fn strip_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a request line is of HTTP/1.1 rather than 1.0; `None` if it is invalid.
fn parse_request_line(line: &[u8]) -> Option<bool> {
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !is_token(method) {
        return None;
    }
    let visible = target
        .iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    let is_supported = target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS");
    // The target of CONNECT is a host, and this server is no proxy.
    if !visible || !is_supported || method == b"CONNECT" {
        return None;
    }
    match version {
        b"HTTP/1.1" => Some(true),
        b"HTTP/1.0" => Some(false),
        _ => None,
    }
}

/// Parses one header field into its name and value.
fn parse_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..)?;
    let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    (is_token(name) && value.iter().all(is_text)).then(|| (name, value.trim_ascii()))
}

/// RFC 9110 §5.6.2: `token`.
fn is_token(bytes: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_tchar)
}

/// Parses a `Content-Length` of digits only.
fn parse_length(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = digits.then_some(value)?;
    str::from_utf8(text).ok()?.parse().ok()
}

/// Whether this is a host, with or without a port.
fn is_authority(value: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
    let Ok(authority) = Authority::try_from(value) else {
        return false;
    };
    let whole = authority.port_u16().is_some() || authority.host() == authority.as_str();
    value.iter().all(plain) && whole && !authority.host().is_empty()
}

/// Whether the target and the credentials of a request are unambiguous. HTTP/2 has no raw header
/// that could be checked, and the h2 crate does not compare `Host` with `:authority` (RFC 9113
/// §8.3.1).
pub(crate) fn is_unambiguous(parts: &Parts) -> bool {
    let once = |name| parts.headers.get_all(name).iter().count() <= 1;
    let target = parts.uri.path();
    let is_asterisk = target == "*" && parts.method == Method::OPTIONS;
    if !once(HOST) || !once(AUTHORIZATION) || !(target.starts_with('/') || is_asterisk) {
        return false;
    }
    if parts.version != Version::HTTP_2 {
        return parts.uri.authority().is_none();
    }
    let host = parts.headers.get(HOST).map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|known| known.as_str().as_bytes());
    let is_valid = host.or(authority).is_some_and(is_authority);
    is_valid
        && host
            .zip(authority)
            .is_none_or(|(host, authority)| host.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const GET: &str = "GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const PUT: &str = "PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nab\n";

    /// The bytes that the guard passes on of `sent`, which is written in chunks of this size.
    async fn pass(sent: &str, chunk: usize) -> String {
        let (mut client, stream) = tokio::io::duplex(1 << 20);
        let mut guard = FramingGuard::new(stream, 8_192, Refusals::default());
        let mut received = String::new();
        let read = guard.read_to_string(&mut received);
        let write = async {
            for chunk in sent.as_bytes().chunks(chunk) {
                client.write_all(chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        tokio::join!(read, write).0.unwrap();
        received
    }

    #[tokio::test]
    async fn unambiguous_requests_are_passed_on_unchanged() {
        let chunked = "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\n";
        let one = "GET / HTTP/1.0\r\n\r\n";
        let half = "GET / HTTP/1.1\r\nHo";
        for sent in [
            GET.to_owned(),
            [GET, PUT, PUT, GET].concat(),
            [PUT, chunked].concat(),
            [one, half].concat(),
        ] {
            for chunk in [1, 7, sent.len()] {
                assert_eq!(pass(&sent, chunk).await, sent);
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_passed_on_after_an_ambiguous_request() {
        let invalid = str::from_utf8(INVALID_REQUEST).unwrap();
        for ambiguous in [
            "GET / HTTP/1.1\nHost: localhost\n\n",
            "\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        ] {
            let sent = [GET, PUT, ambiguous, GET].concat();
            for chunk in [1, 7, sent.len()] {
                let expected = [GET, PUT, invalid].concat();
                assert_eq!(pass(&sent, chunk).await, expected, "{ambiguous:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_header_that_is_too_large_is_never_completed() {
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9_000));
        let received = pass(&format!("{long}\r\nHost: localhost\r\n\r\n{GET}"), 4_096).await;
        assert!(received.len() >= 8_192 && long.starts_with(&received));
    }

    #[test]
    fn only_one_length_and_one_host_are_unambiguous() {
        let with = |lines: &str| {
            parse_header(format!("PUT / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n").as_bytes())
        };
        assert_eq!(with("A: b"), Some(State::Body(0)));
        assert_eq!(with("content-length:  12\t"), Some(State::Body(12)));
        assert_eq!(with("Transfer-Encoding: Chunked"), Some(State::Passthrough));
        for lines in [
            "Content-Length: 12\r\nContent-Length: 12",
            "Content-Length: 12\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\ncontent-length: 12",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Content-Length: +12",
            "Content-Length: ",
            "Content-Length : 12",
            "Host: x",
            "A: b\r\n c",
            "A",
            ": b",
            "A: b\rc: d",
            "A: b\x7f",
        ] {
            assert_eq!(with(lines), None, "{lines:?}");
        }
        for host in [
            "", "a b", "a@b", "a/b", "http://a", "a,b", "a:", "a:x", "a:99999", ":1", "[::1",
        ] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
        for host in [
            "localhost",
            "safe.example.org:8443",
            "[::1]:8443",
            "192.0.2.1",
        ] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
    }
}
