//! Responses: complete ones, and refusals. The status of a refusal is chosen only here.
//!
//! The body of a refusal is one constant line, so it echoes nothing of the request and reveals no
//! internal cause.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Body as _, Frame};

use futures_util::stream::BoxStream;

use crate::server::metrics::limit::Limit;

/// The body of a response: complete, or a stream (of a listing).
pub(crate) type Body =
    Either<Full<Bytes>, StreamBody<BoxStream<'static, std::io::Result<Frame<Bytes>>>>>;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reject {
    /// The length, target or credentials of the request are ambiguous (RFC 9112 §6.3).
    BadFraming,
    /// The header has too many fields.
    HeaderTooLarge,
    /// No or wrong credentials.
    Unauthorized,
    /// No such resource.
    NotFound,
    /// The resource does not have this method, only these.
    MethodNotAllowed(&'static [&'static str]),
    /// The account may read, and nothing else.
    ReadOnlyAccount,
    /// An upload without `Content-Length`.
    LengthRequired,
    /// An empty upload.
    Empty,
    /// The body ended early.
    Incomplete,
    /// The body was not complete in time.
    BodyTimeout,
    /// The body is larger than this server accepts.
    TooLarge,
    /// A partial upload (RFC 9110 §14.5).
    Partial,
    /// An upload with a content coding, or in an envelope (RFC 9110 §15.5.16).
    UnsupportedMedia,
    /// An invalid or harmful PROPFIND body.
    BadXml,
    /// PROPFIND with infinite depth (RFC 4918 §9.1).
    InfiniteDepth,
    /// A listing whose paths may be wrong outside a proxy (`net/external_path.rs`).
    UnknownPath,
    /// A condition of the request is invalid.
    BadCondition,
    /// A condition of the request does not hold.
    PreconditionFailed,
    /// Too many uploads or requests at once.
    Overloaded,
    /// Too many guesses; the next one is possible after this number of seconds.
    TooMany(u32),
    /// The disk is full.
    Full,
    /// A quota refuses a new backup, or a larger one.
    OverQuota,
    /// The storage cannot be reached; a later request may succeed.
    Unavailable,
    /// Nothing can be written at the moment; a later request may succeed.
    ReadOnly,
    /// The storage failed; the log has the reason.
    Storage,
}

impl Reject {
    fn status_and_text(self) -> (StatusCode, &'static str) {
        match self {
            Self::BadFraming => (StatusCode::BAD_REQUEST, "ambiguous request framing\n"),
            Self::HeaderTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too many header fields\n",
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "user name and password required\n",
            ),
            Self::NotFound => (StatusCode::NOT_FOUND, "not found\n"),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"),
            Self::ReadOnlyAccount => (StatusCode::FORBIDDEN, "this account may only read\n"),
            Self::LengthRequired => (StatusCode::LENGTH_REQUIRED, "content-length required\n"),
            Self::Empty => (StatusCode::BAD_REQUEST, "empty backup\n"),
            Self::Incomplete => (StatusCode::BAD_REQUEST, "incomplete body\n"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body timeout\n"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body too large\n"),
            Self::Partial => (
                StatusCode::BAD_REQUEST,
                "partial uploads are not supported\n",
            ),
            Self::UnsupportedMedia => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "only plain, unencoded uploads are supported\n",
            ),
            Self::BadXml => (StatusCode::BAD_REQUEST, "invalid PROPFIND body\n"),
            Self::InfiniteDepth => (StatusCode::FORBIDDEN, "depth must be 0 or 1\n"),
            Self::UnknownPath => (
                StatusCode::FORBIDDEN,
                "no listing behind this proxy unless publicUrl and basePath have one path\n",
            ),
            Self::BadCondition => (StatusCode::BAD_REQUEST, "invalid condition\n"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition failed\n"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "server overloaded\n"),
            Self::TooMany(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "too many failures, try again later\n",
            ),
            Self::OverQuota => (
                StatusCode::INSUFFICIENT_STORAGE,
                "no space left for new or larger backups\n",
            ),
            Self::Full => (StatusCode::INSUFFICIENT_STORAGE, "no space left\n"),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the storage cannot be reached\n",
            ),
            Self::ReadOnly => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the storage is read-only\n",
            ),
            Self::Storage => (StatusCode::INTERNAL_SERVER_ERROR, "the storage failed\n"),
        }
    }

    /// The limit under which this refusal is counted; `None` if it is counted elsewhere or not at
    /// all.
    pub(crate) fn limit(self) -> Option<Limit> {
        match self {
            Self::BadFraming => Some(Limit::Framing),
            Self::HeaderTooLarge => Some(Limit::Header),
            Self::BodyTimeout => Some(Limit::Body),
            Self::Overloaded => Some(Limit::Overload),
            Self::Unauthorized
            | Self::NotFound
            | Self::MethodNotAllowed(_)
            | Self::ReadOnlyAccount
            | Self::LengthRequired
            | Self::Empty
            | Self::Incomplete
            | Self::TooLarge
            | Self::Partial
            | Self::UnsupportedMedia
            | Self::BadXml
            | Self::InfiniteDepth
            | Self::UnknownPath
            | Self::BadCondition
            | Self::PreconditionFailed
            // The guess limiter and the quotas count these themselves.
            | Self::TooMany(_)
            | Self::OverQuota
            | Self::Full
            | Self::Unavailable
            | Self::ReadOnly
            | Self::Storage => None,
        }
    }

    /// The response to a refused request.
    pub(crate) fn response(self) -> Response<Body> {
        let (status, text) = self.status_and_text();
        let mut response = plain(
            status,
            "text/plain; charset=utf-8",
            Bytes::from_static(text.as_bytes()),
        );
        let headers = response.headers_mut();
        if self == Self::Unauthorized {
            // Without a Basic challenge (RFC 7617 §2), iOS 7.x never sends credentials.
            let challenge =
                HeaderValue::from_static(r#"Basic realm="Threema Safe", charset="UTF-8""#);
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Self::MethodNotAllowed(methods) = self {
            headers.insert(ALLOW, allow(methods));
        }
        if self == Self::UnsupportedMedia {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if let Self::TooMany(seconds) = self {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if [Self::Overloaded, Self::Unavailable, Self::ReadOnly].contains(&self) {
            // In seconds (RFC 9110 §10.2.3).
            headers.insert(RETRY_AFTER, HeaderValue::from_static("30"));
        }
        if self == Self::BadFraming {
            // Bytes that follow on this connection may belong to the body of this request.
            return closing_connection(response);
        }
        response
    }
}

/// Adds `Connection: close`, after which no more requests are read on an HTTP/1.1 connection.
/// HTTP/2 marks the end of each request.
pub(crate) fn closing_connection(mut response: Response<Body>) -> Response<Body> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// The value of an `Allow` header (RFC 9110 §10.2.1).
fn allow(methods: &[&str]) -> HeaderValue {
    HeaderValue::from_str(&methods.join(", ")).expect("methods are visible ASCII")
}

/// A complete response that no cache stores.
pub(crate) fn plain(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The response to HEAD: the header that GET would get. hyper omits the body only on HTTP/1.1;
/// HTTP/2 clients treat one as a protocol error.
pub(crate) fn without_body(mut response: Response<Body>) -> Response<Body> {
    let length = response.body().size_hint().exact();
    if let (Some(length @ 1..), headers) = (length, response.headers_mut()) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Either::Left(Full::default());
    response
}

/// The response to OPTIONS for a resource with these methods: WebDAV class 1, no locks (RFC 4918
/// §18.1).
pub(crate) fn options(methods: &[&str]) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    let headers = response.headers_mut();
    headers.insert("dav", HeaderValue::from_static("1"));
    headers.insert(ALLOW, allow(methods));
    response
}

/// The response with the `config` document: two integers, uncompressed.
pub(crate) fn config(document: Bytes) -> Response<Body> {
    plain(StatusCode::OK, "application/json", document)
}

/// The landing page.
pub(crate) fn page(html: Bytes) -> Response<Body> {
    let mut response = plain(StatusCode::OK, "text/html; charset=utf-8", html);
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}
