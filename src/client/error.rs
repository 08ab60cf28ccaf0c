//! What can go wrong between a phone and its server, in words that say what to mend.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

use super::trust::TrustError;

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, no TLS, or it broke off.
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The server is there, and TLS refuses its certificate.
    #[error("the server's certificate is not trusted")]
    Untrusted(#[source] rustls::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// 401 in spite of the credentials.
    #[error("the server refuses user name and password (401)")]
    WrongCredentials,
    /// 401, and there is nothing to log in with.
    #[error("the server wants a user name and a password (401), and none are set")]
    NoCredentials,
    /// 401 without `WWW-Authenticate: Basic`.
    #[error("the server answers 401 without a Basic challenge: an iPhone would never log in")]
    NoChallenge,
    /// 404.
    #[error(
        "there is no such thing on the server (404); on a restore the app says: no backup found"
    )]
    NotFound,
    /// 404, and it was `config` that was asked for.
    #[error("there is no config at this address (404), so the address is probably wrong")]
    NoConfig,
    /// 3xx.
    #[error(
        "the server redirects ({0}): Android would turn an upload into a download and count it as a backup"
    )]
    Redirected(u16),
    /// Any other refusal.
    #[error("the server answers {0}")]
    Status(u16),
    /// The app would not send this backup.
    #[error("the backup has {size} bytes and the server takes {limit}: the app would not send it")]
    TooLarge {
        /// Bytes of the backup.
        size: u64,
        /// What the server's `config` allows.
        limit: u64,
    },
    /// `config` is not what it should be.
    #[error(
        "config is not a JSON object with maxBackupBytes and retentionDays: no app would back up"
    )]
    NotAConfig,
    /// The answer is larger than any backup.
    #[error("the answer is larger than {0} bytes")]
    ResponseTooLarge(usize),
    /// The answer is compressed.
    #[error("the server compresses its answers; switch that off for this path")]
    Compressed,
}

impl Error {
    /// Whether nothing else is wrong with the server's certificate than that nobody trusted made it.
    #[must_use]
    pub fn is_unknown_authority(&self) -> bool {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        matches!(self, Self::Untrusted(error) if *error == unknown)
    }

    /// What a failed request means, without the URL: that of a backup is a secret.
    pub(super) fn from_reqwest(error: reqwest::Error) -> Self {
        match certificate_error(&error) {
            Some(error) => Self::Untrusted(error),
            None => Self::Unreachable(error.without_url()),
        }
    }
}

/// The refusal of a certificate, wherever it stands among the causes.
fn certificate_error(error: &(dyn StdError + 'static)) -> Option<rustls::Error> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        let is_it = matches!(error, rustls::Error::InvalidCertificate(_));
        return is_it.then(|| error.clone());
    }
    // An error of input and output skips what it wraps when it is asked for its cause.
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    let cause = wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static));
    certificate_error(cause.or_else(|| error.source())?)
}
