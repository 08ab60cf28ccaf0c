//! Answers: ready-made ones, and refusals. The status of a refusal is chosen here and nowhere else.
//!
//! The body of a refusal is one constant line; it echoes nothing of the request and names no cause.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Body as _, Frame};

use futures_util::stream::BoxStream;

/// The body of an answer: whole, or a stream (of a listing).
pub(crate) type Body =
    Either<Full<Bytes>, StreamBody<BoxStream<'static, std::io::Result<Frame<Bytes>>>>>;

/// Why a request is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reject {
    /// Where the request ends, what it is for or who makes it is unclear (RFC 9112 §6.3).
    BadFraming,
    /// The header has too many lines.
    HeaderTooLarge,
    /// No or wrong credentials.
    Unauthorized,
    /// No such resource.
    NotFound,
    /// The resource has no such method; it has these.
    MethodNotAllowed(&'static str),
    /// An upload without `Content-Length`.
    LengthRequired,
    /// An upload of nothing.
    Empty,
    /// The body ended early.
    Cut,
    /// The body did not end in time.
    Slow,
    /// The body is larger than this server takes.
    TooLarge,
    /// A part of an upload (RFC 9110 §14.5).
    Partial,
    /// The body of a PROPFIND that no client would send.
    BadXml,
    /// PROPFIND of everything (RFC 4918 §9.1).
    InfiniteDepth,
    /// A condition of the request is none.
    BadCondition,
    /// A condition of the request does not hold.
    PreconditionFailed,
    /// Too many uploads or requests at once.
    Overloaded,
    /// Too many guesses; in so many seconds the next one may be tried.
    TooMany(u32),
    /// The disk is full.
    Full,
    /// There is room, but not for new backups.
    OverQuota,
    /// The storage cannot be reached right now; the request may succeed in a while.
    Unavailable,
    /// The storage failed, for a reason in the log.
    Storage,
}

impl Reject {
    fn status_and_text(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadFraming => (StatusCode::BAD_REQUEST, "the request is unclear\n"),
            Self::HeaderTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the header is too large\n",
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "user name and password required\n",
            ),
            Self::NotFound => (StatusCode::NOT_FOUND, "not found\n"),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"),
            Self::LengthRequired => (StatusCode::LENGTH_REQUIRED, "content-length required\n"),
            Self::Empty => (StatusCode::BAD_REQUEST, "a backup is not empty\n"),
            Self::Cut => (StatusCode::BAD_REQUEST, "the body ended early\n"),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n"),
            Self::Partial => (StatusCode::BAD_REQUEST, "only whole backups are taken\n"),
            Self::BadXml => (StatusCode::BAD_REQUEST, "the body is not a propfind\n"),
            Self::InfiniteDepth => (StatusCode::FORBIDDEN, "depth must be 0 or 1\n"),
            Self::BadCondition => (StatusCode::BAD_REQUEST, "the condition is unclear\n"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition failed\n"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "too much at once\n"),
            Self::TooMany(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "too many failures, try again later\n",
            ),
            Self::OverQuota => (
                StatusCode::INSUFFICIENT_STORAGE,
                "no space left for new backups\n",
            ),
            Self::Full => (StatusCode::INSUFFICIENT_STORAGE, "no space left\n"),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the storage cannot be reached\n",
            ),
            Self::Storage => (StatusCode::INTERNAL_SERVER_ERROR, "the storage failed\n"),
        }
    }

    /// The answer.
    pub(crate) fn response(self) -> Response<Body> {
        let (status, text) = self.status_and_text();
        let mut response = plain(
            status,
            "text/plain; charset=utf-8",
            Bytes::from_static(text.as_bytes()),
        );
        let headers = response.headers_mut();
        if self == Self::Unauthorized {
            // Without a Basic challenge no iPhone ever sends credentials.
            let challenge =
                HeaderValue::from_static(r#"Basic realm="Threema Safe", charset="UTF-8""#);
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Self::MethodNotAllowed(allow) = self {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Self::TooMany(seconds) = self {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if [Self::Overloaded, Self::Unavailable].contains(&self) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("30"));
        }
        if self == Self::BadFraming {
            // What follows on this connection cannot be told from this request's body.
            return last_of_its_connection(response);
        }
        response
    }
}

/// The answer after which nothing more is read on a connection of HTTP/1.1; HTTP/2 knows where a request ends.
pub(crate) fn last_of_its_connection(mut response: Response<Body>) -> Response<Body> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// An answer with a whole body, that nobody keeps.
pub(crate) fn plain(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer to HEAD: the header that GET would have got. hyper leaves the body out on HTTP/1.1 only; on
/// HTTP/2 clients take one for a protocol error.
pub(crate) fn without_body(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact();
    if let (Some(length @ 1..), headers) = (length, response.headers_mut()) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Either::Left(Full::default());
    response
}

/// What OPTIONS tells of a resource with these methods: WebDAV class 1, no locks (RFC 4918 §18.1).
pub(crate) fn options(allow: &'static str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    let headers = response.headers_mut();
    headers.insert("dav", HeaderValue::from_static("1"));
    headers.insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// The `config` document (protocol: two plain integers, under 4096 bytes, never compressed).
pub(crate) fn config(document: Bytes) -> Response<Body> {
    plain(StatusCode::OK, "application/json", document)
}

/// The page for people.
pub(crate) fn page(html: Bytes) -> Response<Body> {
    let mut response = plain(StatusCode::OK, "text/html; charset=utf-8", html);
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}
