//! Clients that send exactly what a test says.
//!
//! [`Client`] sends whole requests on one connection, HTTP/1.1 or HTTP/2; [`Raw`] writes bytes and
//! reads answers. Waiting is for events; [`soon`] only keeps a broken server from hanging the
//! tests.
//!
//! Over 500 lines: both clients share how answers are parsed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::Listening;

/// No working server needs this long for anything that a test waits for.
pub(crate) const FAIL_SAFE: Duration = Duration::from_secs(60);

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

impl Protocol {
    pub(crate) const BOTH: [Self; 2] = [Self::Http1, Self::Http2];
}

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body whose length is known.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body of pieces, whose length is not announced.
pub(crate) fn pieces(
    pieces: impl Stream<Item = io::Result<&'static [u8]>> + Send + 'static,
) -> Body {
    let frames = pieces.map(|piece| piece.map(|bytes| Frame::data(Bytes::from_static(bytes))));
    StreamBody::new(frames).boxed_unsync()
}

/// A body of one piece after which nothing ever comes, not even the end.
pub(crate) fn unfinished(piece: &'static [u8]) -> Body {
    let first = stream::iter((!piece.is_empty()).then_some(Ok(piece)));
    pieces(first.chain(stream::pending()))
}

/// One connection that carries whole requests.
pub(crate) struct Client {
    sender: Sender,
    authority: String,
    authorization: Option<String>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub(crate) async fn connect(
        server: &impl Listening,
        protocol: Protocol,
        authorization: Option<String>,
    ) -> Self {
        let raw = Raw::connect(server, &[protocol.alpn()], rustls::ALL_VERSIONS).await;
        Self::over(raw.unwrap(), server, protocol, authorization).await
    }

    /// Connects from one of the addresses of loopback, 127.0.0.0/8.
    pub(crate) async fn connect_from(
        source: Ipv4Addr,
        server: &impl Listening,
        protocol: Protocol,
        authorization: Option<String>,
    ) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        let raw = Raw::connect_from(source, socket, server, protocol.alpn()).await;
        Self::over(raw.unwrap(), server, protocol, authorization).await
    }

    async fn over(
        raw: Raw,
        server: &impl Listening,
        protocol: Protocol,
        authorization: Option<String>,
    ) -> Self {
        assert_eq!(raw.alpn().as_deref(), Some(protocol.alpn()));
        let stream = TokioIo::new(raw.stream);
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let executor = TokioExecutor::new();
                let (sender, connection) = http2::handshake(executor, stream).await.unwrap();
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Self {
            sender,
            authority: format!("localhost:{}", server.address().port()),
            authorization,
        }
    }

    /// Sends a request with a body of known length, and reads the answer.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.send_body(method, path, headers, whole(body))
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
    }

    /// Sends a request without a body, and reads the answer.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.send(method, path, headers, "").await
    }

    /// Sends a request whose body may be anything, and reads the answer if there is one.
    pub(crate) async fn send_body(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> hyper::Result<Answer> {
        let mut request = Request::new(body);
        *request.method_mut() = method.parse().unwrap();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(name, value);
        }
        if let Some(authorization) = &self.authorization {
            request
                .headers_mut()
                .insert("authorization", authorization.parse().unwrap());
        }
        let authority: HeaderValue = self.authority.parse().unwrap();
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                *request.uri_mut() = path.parse().unwrap();
                request.headers_mut().insert("host", authority);
                soon(sender.ready()).await?;
                soon(sender.send_request(request)).await?
            }
            Sender::Http2(sender) => {
                let uri = Uri::builder()
                    .scheme("https")
                    .authority(authority.as_bytes())
                    .path_and_query(path);
                *request.uri_mut() = uri.build().unwrap();
                soon(sender.ready()).await?;
                soon(sender.send_request(request)).await?
            }
        };
        let (parts, body) = response.into_parts();
        let body = soon(BodyExt::collect(body)).await?.to_bytes();
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next();
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value.map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    /// The resources in a listing, in order.
    #[track_caller]
    pub(crate) fn hrefs(&self) -> Vec<&str> {
        assert_eq!(self.status, 207, "{self:?}");
        let mut hrefs: Vec<_> = self
            .text()
            .split("<D:href>")
            .skip(1)
            .map(|rest| rest.split_once("</D:href>").unwrap().0)
            .collect();
        hrefs.sort_unstable();
        hrefs
    }

    /// Makes sure that this is a refusal with this status: one constant line of text, which no
    /// cache keeps.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        let challenge = self.header("www-authenticate");
        if status == 401 {
            assert_eq!(
                challenge,
                Some(r#"Basic realm="Threema Safe", charset="UTF-8""#)
            );
        } else {
            assert_eq!(challenge, None);
        }
        let content_type = self.header("content-type");
        assert_eq!(content_type, Some("text/plain; charset=utf-8"), "{self:?}");
        assert!(self.text().lines().count() <= 1, "{self:?}");
    }
}

/// A connection on which a test writes bytes.
pub(crate) struct Raw {
    stream: TlsStream<Tap>,
    received: Vec<u8>,
}

impl Raw {
    /// A handshake that offers these protocols and versions of TLS.
    pub(crate) async fn connect(
        server: &impl Listening,
        alpn: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(server.address()).await?;
        Self::over(stream, server, alpn, versions).await
    }

    /// Connects this socket from one of the addresses of loopback, 127.0.0.0/8.
    pub(crate) async fn connect_from(
        source: Ipv4Addr,
        socket: TcpSocket,
        server: &impl Listening,
        alpn: &[u8],
    ) -> io::Result<Self> {
        socket.bind((source, 0).into())?;
        let stream = socket.connect(server.address()).await?;
        Self::over(stream, server, &[alpn], rustls::ALL_VERSIONS).await
    }

    async fn over(
        stream: TcpStream,
        server: &impl Listening,
        alpn: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let ca = server.site().folder().join("certs/ca.pem");
        for authority in CertificateDer::pem_file_iter(ca).unwrap() {
            roots.add(authority.unwrap()).unwrap();
        }
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let tap = Tap {
            stream,
            seen: Arc::default(),
        };
        tap.stream.set_nodelay(true).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        Ok(Self {
            stream: soon(connector.connect(name, tap)).await?,
            received: Vec::new(),
        })
    }

    pub(crate) fn alpn(&self) -> Option<Vec<u8>> {
        self.stream.get_ref().1.alpn_protocol().map(Into::into)
    }

    pub(crate) fn tls_version(&self) -> Option<ProtocolVersion> {
        self.stream.get_ref().1.protocol_version()
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
        soon(self.stream.flush()).await.unwrap();
    }

    /// Writes as long as the server reads.
    pub(crate) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        soon(self.stream.write_all(bytes.as_ref())).await?;
        soon(self.stream.flush()).await
    }

    /// Says that nothing more will be written: the end of the TLS stream, then FIN.
    pub(crate) async fn end_writing(&mut self) {
        soon(self.stream.shutdown()).await.unwrap();
    }

    /// FIN in the middle of the TLS stream.
    pub(crate) async fn break_off(&mut self) {
        soon(self.stream.get_mut().0.stream.shutdown())
            .await
            .unwrap();
    }

    /// RST: as when the phone's system kills its connections.
    pub(crate) fn reset(self) {
        self.stream.get_ref().0.stream.set_zero_linger().unwrap();
    }

    /// The client's address.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.get_ref().0.stream.local_addr().unwrap()
    }

    /// Reads the next answer, also an interim one.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// Reads the next answer; one to HEAD has no body.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Answer {
        let head = self.read_through(b"\r\n\r\n").await;
        let head = str::from_utf8(&head).unwrap();
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let status_line = lines.next().unwrap();
        let status: u16 = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("not an answer: {status_line}"));
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                value.parse::<HeaderValue>().unwrap(),
            );
        }
        let length = headers.get("content-length");
        let length: Option<usize> = length.map(|value| value.to_str().unwrap().parse().unwrap());
        let body = if method == "HEAD" || status < 200 || [204, 304].contains(&status) {
            Vec::new()
        } else if let Some(length) = length {
            self.read_exactly(length).await
        } else {
            assert_eq!(headers["transfer-encoding"], "chunked");
            self.read_chunks().await
        };
        Answer {
            status,
            headers,
            body: body.into(),
        }
    }

    /// Reads the next answer, if there is one before the connection ends.
    pub(crate) async fn answer_before_end(&mut self) -> Option<Answer> {
        if self.received.is_empty() && !self.read_more().await {
            return None;
        }
        Some(self.answer().await)
    }

    /// Waits until the server ends the connection, and makes sure that nothing more comes before.
    pub(crate) async fn assert_ended(&mut self) {
        while self.read_more().await {}
        let rest = String::from_utf8_lossy(&self.received);
        assert!(rest.is_empty(), "more than expected came: {rest}");
    }

    /// All that comes until the server ends the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.read_more().await {}
        std::mem::take(&mut self.received)
    }

    /// So many bytes, if they come before the connection ends.
    pub(crate) async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.received.len() < count {
            if !self.read_more().await {
                return None;
            }
        }
        Some(self.received.drain(..count).collect())
    }

    /// Whether the server has not ended the connection until now.
    pub(crate) fn is_open(&self) -> bool {
        is_open(&self.stream.get_ref().0.stream)
    }

    /// Writes this so often, and discards what comes meanwhile; whether the server ended the
    /// connection before it had all.
    pub(crate) async fn flood(&mut self, bytes: &[u8], times: usize) -> bool {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let write = async {
            for _ in 0..times {
                if writer.write_all(bytes).await.is_err() || writer.flush().await.is_err() {
                    return true;
                }
            }
            false
        };
        let read = async {
            let mut buffer = [0; 16 << 10];
            while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            true
        };
        soon(async {
            tokio::select! {
                ended = write => ended,
                ended = read => ended,
            }
        })
        .await
    }

    /// The TLS records that came since the last call, as (type, length).
    pub(crate) fn records(&mut self) -> Vec<(u8, usize)> {
        let seen = std::mem::take(&mut *self.stream.get_ref().0.seen.lock().unwrap());
        let mut rest = &*seen;
        let mut records = Vec::new();
        while let [kind, _, _, high, low, more @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            records.push((*kind, length));
            rest = &more[length..];
        }
        records
    }

    async fn read_chunks(&mut self) -> Vec<u8> {
        let mut whole = Vec::new();
        loop {
            let size = self.read_through(b"\r\n").await;
            let size = str::from_utf8(&size).unwrap().trim();
            let size = usize::from_str_radix(size, 16).unwrap();
            whole.extend(self.read_exactly(size).await);
            self.read_exactly(2).await;
            if size == 0 {
                return whole;
            }
        }
    }

    async fn read_through(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            let found = self
                .received
                .windows(mark.len())
                .position(|window| window == mark);
            if let Some(position) = found {
                return self.received.drain(..position + mark.len()).collect();
            }
            assert!(
                self.read_more().await,
                "the server ended the connection after {:?}",
                String::from_utf8_lossy(&self.received)
            );
        }
    }

    async fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(
                self.read_more().await,
                "the server ended the connection in an answer's body"
            );
        }
        self.received.drain(..length).collect()
    }

    /// Reads what is there, at least one byte; `false` at the end, however it came.
    async fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match soon(self.stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                true
            }
        }
    }
}

/// Whether the other end has not ended the connection until now. What came is left where it is.
pub(crate) fn is_open(stream: &TcpStream) -> bool {
    let peeked = stream.peek(&mut [0]).now_or_never();
    peeked.is_none_or(|read| read.is_ok_and(|count| count > 0))
}

/// A TCP stream that remembers what came.
struct Tap {
    stream: TcpStream,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.seen
            .lock()
            .unwrap()
            .extend_from_slice(&buffer.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Waits for what happens at once on a working server.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(FAIL_SAFE, event)
        .await
        .expect("a working server does not take that long")
}

/// The value of an `Authorization` header.
pub(crate) fn basic(name_and_password: impl AsRef<[u8]>) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(name_and_password))
}
