//! In front of hyper on HTTP/1.1: no request whose beginning, end or target two readers could read differently.
//!
//! hyper makes one length of two equal ones, drops a length beside chunks, and takes bare LF for the end of a
//! line, all before any of our code sees the request. Each is allowed (RFC 9112 lets a recipient choose), and
//! each is what request smuggling lives on where a proxy in front chooses otherwise. So [`Framed`] looks at the
//! bytes themselves: it hands hyper a header only when it is whole and beyond doubt, counts the body by the one
//! length that is left, and looks at the next header. In place of any other it hands over what hyper answers with
//! 400 and the end of the connection, after the answers that are under way.
//!
//! What a body of chunks holds is left to hyper, which is strict. Such a request is the last of its connection
//! (`http.rs` says so in its answer), and nothing behind it is ever read as a request: so nobody here has to
//! know where it ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::server::metrics::limit::{Limit, Refusals};

/// What hyper takes for no request, whatever came before.
const NO_REQUEST: &[u8] = b"\0\r\n\r\n";
/// Bytes that are read at once while a header is awaited.
const READ: usize = 2 << 10;

/// A stream on which only requests beyond doubt arrive.
pub(crate) struct Framed<S> {
    stream: S,
    header_bytes: usize,
    refusals: Refusals,
    next: Next,
    /// Read and not handed on.
    held: Vec<u8>,
    /// How many of these may be handed on.
    ready: usize,
    /// How many of these are known to hold no end of a header.
    searched: usize,
}

/// What comes next on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A header.
    Header,
    /// So many bytes of a body.
    Body(u64),
    /// What needs no look, as no request follows.
    Rest,
    /// Nothing that anybody may see.
    Nothing,
}

impl<S> Framed<S> {
    pub(crate) fn new(stream: S, header_bytes: usize, refusals: Refusals) -> Self {
        Self {
            stream,
            header_bytes,
            refusals,
            next: Next::Header,
            held: Vec::new(),
            ready: 0,
            searched: 0,
        }
    }

    /// Decides about what is held; `false` when more has to be read for that.
    fn decide(&mut self) -> bool {
        if self.next == Next::Body(0) {
            self.next = Next::Header;
            self.searched = 0;
        }
        match self.next {
            Next::Nothing => self.held.clear(),
            Next::Rest => self.ready = self.held.len(),
            Next::Body(left) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX);
                self.ready = self.held.len().min(most);
                self.next = Next::Body(left - self.ready as u64);
            }
            Next::Header => match end_of_header(&self.held, self.searched) {
                Ok(Some(end)) => match self.held.get(..end).and_then(what_follows) {
                    Some(next) => {
                        self.ready = end;
                        self.next = next;
                    }
                    None => self.refuse(),
                },
                // hyper says that it is too large, and gets nothing that would make it whole.
                Ok(None) if self.held.len() >= self.header_bytes => {
                    self.ready = self.held.len();
                    self.next = Next::Nothing;
                }
                Ok(None) => self.searched = self.held.len(),
                Err(Doubtful) => self.refuse(),
            },
        }
        self.ready > 0
    }

    fn refuse(&mut self) {
        self.refusals.count(Limit::Framing);
        self.held = NO_REQUEST.into();
        self.ready = self.held.len();
        self.next = Next::Nothing;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ready > 0 {
                let count = this.ready.min(buffer.remaining());
                buffer.put_slice(this.held.get(..count).unwrap_or_default());
                this.held.drain(..count);
                this.ready -= count;
                return Poll::Ready(Ok(()));
            }
            if !this.held.is_empty() && this.decide() {
                continue;
            }
            let stream = Pin::new(&mut this.stream);
            match this.next {
                Next::Rest => return stream.poll_read(context, buffer),
                Next::Body(left @ 1..) => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    let most = most.min(buffer.remaining());
                    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
                    ready!(stream.poll_read(context, &mut part))?;
                    let count = part.filled().len();
                    buffer.advance(count);
                    this.next = Next::Body(left - count as u64);
                    return Poll::Ready(Ok(()));
                }
                Next::Header | Next::Body(0) | Next::Nothing => {
                    let mut read = [0; READ];
                    let mut read = ReadBuf::new(&mut read);
                    ready!(stream.poll_read(context, &mut read))?;
                    if read.filled().is_empty() {
                        // The end, perhaps in the middle of a header: hyper knows what to do.
                        this.next = Next::Rest;
                        if this.held.is_empty() {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    this.held.extend_from_slice(read.filled());
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
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

/// Two readers could read it differently.
#[derive(Debug, PartialEq, Eq)]
struct Doubtful;

/// Where the header at the beginning of `held` ends, if it does; the first `searched` bytes were looked at before.
fn end_of_header(held: &[u8], searched: usize) -> Result<Option<usize>, Doubtful> {
    if held.starts_with(b"\r") || held.starts_with(b"\n") {
        return Err(Doubtful);
    }
    for (position, &byte) in held.iter().enumerate().skip(searched) {
        let line = held.get(..=position).unwrap_or_default();
        match byte {
            b'\n' if !line.ends_with(b"\r\n") => return Err(Doubtful),
            b'\n' if line.ends_with(b"\r\n\r\n") => return Ok(Some(position + 1)),
            0 => return Err(Doubtful),
            _ => {}
        }
    }
    Ok(None)
}

/// What follows a whole header; `None` if that, or the header itself, is in doubt.
fn what_follows(header: &[u8]) -> Option<Next> {
    let lines = header.strip_suffix(b"\r\n\r\n")?;
    let mut lines = lines.split(|&byte| byte == b'\n').map(without_return);
    let is_1_1 = is_request_line(lines.next()?)?;
    let mut length = None;
    let mut chunked = None;
    let mut host = None;
    let mut authorization = None;
    for line in lines {
        let (name, value) = field(line)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let repeated = if is("content-length") {
            length.replace(decimal(value)?).is_some()
        } else if is("transfer-encoding") {
            let fine = is_1_1 && value.eq_ignore_ascii_case(b"chunked");
            chunked.replace(fine.then_some(())?).is_some()
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
    // HTTP/1.0 knew no Host (RFC 9112 §3.2).
    if is_1_1 && host.is_none() {
        return None;
    }
    match (length, chunked) {
        (Some(_), Some(())) => None,
        (None, Some(())) => Some(Next::Rest),
        (length, None) => Some(Next::Body(length.unwrap_or(0))),
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether the request is of HTTP/1.1, and not of 1.0; `None` if its first line is no other's.
fn is_request_line(line: &[u8]) -> Option<bool> {
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !is_token(method) {
        return None;
    }
    let visible = target
        .iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    let one_form = target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS");
    // What CONNECT names is a host, and this is no proxy.
    if !visible || !one_form || method == b"CONNECT" {
        return None;
    }
    match version {
        b"HTTP/1.1" => Some(true),
        b"HTTP/1.0" => Some(false),
        _ => None,
    }
}

/// The name and the value of one line of a header.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..)?;
    let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    (is_token(name) && value.iter().all(is_text)).then(|| (name, value.trim_ascii()))
}

/// RFC 9110 §5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_tchar)
}

fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = digits.then_some(value)?;
    str::from_utf8(text).ok()?.parse().ok()
}

/// Whether this is a host, and at the most a port.
fn is_authority(value: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
    let Ok(authority) = Authority::try_from(value) else {
        return false;
    };
    let whole = authority.port_u16().is_some() || authority.host() == authority.as_str();
    value.iter().all(plain) && whole && !authority.host().is_empty()
}

/// Whether it is beyond doubt what a request is for and who makes it. HTTP/2 has no raw header to look at, and its
/// library compares no Host with the `:authority` (RFC 9113 §8.3.1).
pub(crate) fn is_clear(parts: &Parts) -> bool {
    let once = |name| parts.headers.get_all(name).iter().count() <= 1;
    let target = parts.uri.path();
    let asterisk = target == "*" && parts.method == Method::OPTIONS;
    if !once(HOST) || !once(AUTHORIZATION) || !(target.starts_with('/') || asterisk) {
        return false;
    }
    if parts.version != Version::HTTP_2 {
        return parts.uri.authority().is_none();
    }
    let host = parts.headers.get(HOST).map(HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|known| known.as_str().as_bytes());
    let one = host.or(authority).is_some_and(is_authority);
    one && host
        .zip(authority)
        .is_none_or(|(host, authority)| host.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const GET: &str = "GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const PUT: &str = "PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nab\n";

    /// What gets through of these bytes, written in pieces of this size and then no more.
    async fn through(sent: &str, piece: usize) -> String {
        let (mut client, stream) = tokio::io::duplex(1 << 20);
        let mut framed = Framed::new(stream, 8_192, Refusals::default());
        let mut received = String::new();
        let read = framed.read_to_string(&mut received);
        let write = async {
            for piece in sent.as_bytes().chunks(piece) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        tokio::join!(read, write).0.unwrap();
        received
    }

    #[tokio::test]
    async fn clear_requests_get_through_as_they_are() {
        let chunked = "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\n";
        let one = "GET / HTTP/1.0\r\n\r\n";
        let half = "GET / HTTP/1.1\r\nHo";
        for sent in [
            GET.to_owned(),
            [GET, PUT, PUT, GET].concat(),
            [PUT, chunked].concat(),
            [one, half].concat(),
        ] {
            for piece in [1, 7, sent.len()] {
                assert_eq!(through(&sent, piece).await, sent);
            }
        }
    }

    #[tokio::test]
    async fn nothing_gets_through_from_the_first_doubt_on() {
        let no_request = str::from_utf8(NO_REQUEST).unwrap();
        for doubtful in [
            "GET / HTTP/1.1\nHost: localhost\n\n",
            "\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        ] {
            let sent = [GET, PUT, doubtful, GET].concat();
            for piece in [1, 7, sent.len()] {
                let expected = [GET, PUT, no_request].concat();
                assert_eq!(through(&sent, piece).await, expected, "{doubtful:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_header_that_is_too_large_never_becomes_whole() {
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9_000));
        let received = through(&format!("{long}\r\nHost: localhost\r\n\r\n{GET}"), 4_096).await;
        assert!(received.len() >= 8_192 && long.starts_with(&received));
    }

    #[test]
    fn only_one_length_and_one_host_are_clear() {
        let with = |lines: &str| {
            what_follows(format!("PUT / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n").as_bytes())
        };
        assert_eq!(with("A: b"), Some(Next::Body(0)));
        assert_eq!(with("content-length:  12\t"), Some(Next::Body(12)));
        assert_eq!(with("Transfer-Encoding: Chunked"), Some(Next::Rest));
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
