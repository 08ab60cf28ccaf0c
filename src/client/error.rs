//! Errors of the requests to a server, with texts that name the remedy.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

use super::trust::TrustError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Connecting or the TLS handshake failed, a timeout passed, or the connection was closed
    /// early.
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The server can be reached, and TLS rejects its certificate.
    #[error("the server's certificate is not trusted")]
    Untrusted(#[source] rustls::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The server responds with 401 in spite of the credentials.
    #[error("the server rejects user name and password (401)")]
    WrongCredentials,
    /// The server responds with 401, and no credentials are set.
    #[error("the server requires a user name and a password (401), and none are set")]
    NoCredentials,
    /// The server responds with 401 without `WWW-Authenticate: Basic`. iOS 7.x sends credentials
    /// only after a Basic or Digest challenge; the iOS emulation supports Basic only.
    #[error(
        "the server responds with 401 without a Basic challenge, so an iPhone would never log in"
    )]
    NoChallenge,
    /// The server responds with 404 to a request for a backup.
    #[error("not found on the server (404); on a restore the app says: no backup found")]
    NotFound,
    /// The server responds with 404 to `GET config`.
    #[error("no config at this address (404); check the server's address")]
    NoConfig,
    /// The server responds with 3xx. OkHttp in Android 6.x resends a redirected PUT as GET (300 to
    /// 303), and counts its success as a successful upload.
    #[error(
        "the server redirects ({0}): Android would turn an upload into a download and count it as a backup"
    )]
    Redirected(u16),
    /// The server responds with any other status than 2xx.
    #[error("the server responds with status {0}")]
    Status(u16),
    /// The backup is too large for the server's limit, so that the app would not send it.
    #[error(
        "backup too large: {size} bytes, and the server accepts {limit}; the app would not send it"
    )]
    TooLarge {
        /// Length of the backup, in bytes.
        size: u64,
        /// `maxBackupBytes` of the server's `config`, in bytes.
        limit: u64,
    },
    /// The body of `config` is not a `config` document.
    #[error(
        "invalid config: expected a JSON object with maxBackupBytes and retentionDays; no app would back up"
    )]
    NotAConfig,
    /// The response body is larger than any backup.
    #[error("the response is larger than {0} bytes")]
    ResponseTooLarge(usize),
    /// The response body has a `Content-Encoding`.
    #[error("the server compresses its responses; disable compression for this path")]
    Compressed,
}

impl Error {
    /// Whether the only problem of the server's certificate is that its issuer is not trusted.
    #[must_use]
    pub fn is_unknown_authority(&self) -> bool {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        matches!(self, Self::Untrusted(error) if *error == unknown)
    }

    /// Converts the HTTP library's error, without the URL, because that of a backup is a secret.
    pub(super) fn from_reqwest(error: reqwest::Error) -> Self {
        match certificate_error(&error) {
            Some(error) => Self::Untrusted(error),
            None => Self::Unreachable(error.without_url()),
        }
    }
}

/// The certificate error of TLS, if it is among the causes.
fn certificate_error(error: &(dyn StdError + 'static)) -> Option<rustls::Error> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        let is_certificate = matches!(error, rustls::Error::InvalidCertificate(_));
        return is_certificate.then(|| error.clone());
    }
    // `io::Error::source` skips the wrapped error itself and returns that error's cause.
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    let cause = wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static));
    certificate_error(cause.or_else(|| error.source())?)
}
