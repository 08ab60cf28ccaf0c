//! ACME errors, with messages for the operator.

use std::io;
use std::path::PathBuf;

use crate::durable;
use crate::private_file::Exposure;

/// Length to which a text from an authority is truncated, in bytes.
const MAX_DETAIL_BYTES: usize = 400;
/// Problem type of a rate limit (RFC 8555 §6.6).
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
/// Problem type of an unknown account (RFC 8555 §6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why a request to the authority got no ACME response.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoResponse(pub(super) String);

/// Why an order did not end with a certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The authority does not respond, or not with ACME.
    #[error("the authority cannot be reached: {0}")]
    Unreachable(String),
    /// The authority responds with a problem document (RFC 7807).
    #[error("the authority refuses: {0}")]
    Refused(String),
    /// The authority's rate limit is reached.
    #[error("the authority's rate limit is reached: {0}")]
    RateLimited(String),
    /// The authority does not know the account.
    #[error("the authority does not know the account")]
    NoAccount,
    /// The authority could not validate a domain.
    #[error(
        "the authority cannot validate {domain}, which must reach this server on port 443: {detail}"
    )]
    NotValidated {
        /// The domain.
        domain: String,
        /// The authority's reason.
        detail: String,
    },
    /// The authority does not offer tls-alpn-01 for this domain.
    #[error("the authority does not offer the challenge tls-alpn-01 for {0}")]
    NoChallenge(String),
    /// The order takes too long.
    #[error("the authority has not finished in time")]
    Timeout,
    /// The authority's response cannot be used; the text names what it sent.
    #[error("the authority sent {0}, which cannot be used")]
    Unusable(&'static str),
    /// A certificate or a certificate request cannot be created.
    #[error("the certificate request cannot be created")]
    Certificate(#[source] rcgen::Error),
    /// The file of trusted root certificates contains none.
    #[error("{} holds no certificate in PEM form that can be trusted", .0.display())]
    Authority(PathBuf),
    /// There are no trusted roots.
    #[error(
        "this system has no trusted root certificates: install ca-certificates, or set tls.acme.authorityFile"
    )]
    NoRoots,
    /// A file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file cannot be parsed.
    #[error("{} is damaged: move it away, and the server creates a new one", .0.display())]
    Damaged(PathBuf),
    /// A file with secrets can be read or changed by others than its owner.
    #[error("{}: {exposure}", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// The permissions that are too wide.
        exposure: Exposure,
    },
    /// A file cannot be written.
    #[error("{} cannot be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The step that failed.
        #[source]
        source: durable::Error,
    },
}

impl Error {
    /// True if the authority was not reached: the order counted against none of its limits, so the
    /// retry may come soon.
    pub(super) fn is_unreached(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// True if the authority's rate limit is reached.
    pub(super) fn is_rate_limit(&self) -> bool {
        matches!(self, Self::RateLimited(_))
    }

    /// Converts a problem document (RFC 7807) to an error.
    pub(super) fn refused(problem: &instant_acme::Problem) -> Self {
        match problem.r#type.as_deref() {
            Some(RATE_LIMITED) => Self::RateLimited(detail(problem)),
            Some(NO_ACCOUNT) => Self::NoAccount,
            _ => Self::Refused(detail(problem)),
        }
    }
}

impl From<instant_acme::Error> for Error {
    fn from(error: instant_acme::Error) -> Self {
        use instant_acme::Error as Acme;
        match error {
            Acme::Api(problem) => Self::refused(&problem),
            Acme::Timeout(_) => Self::Timeout,
            Acme::Other(other) => match other.downcast::<NoResponse>() {
                Ok(failed) => Self::Unreachable(plain(&failed.to_string())),
                Err(_) => Self::Unusable("an unexpected answer"),
            },
            Acme::Json(_) => Self::Unusable("an answer that is not ACME"),
            Acme::KeyRejected | Acme::Crypto => Self::Unusable("a key"),
            Acme::Unsupported(_) => Self::Unusable("a directory that lacks a required entry"),
            Acme::Str(_) | Acme::Http(_) | Acme::InvalidUri(_) => {
                Self::Unusable("an incomplete answer")
            }
            _ => Self::Unusable("an unknown answer"),
        }
    }
}

/// The detail of a problem and of its subproblems, which are about single domains (RFC 8555
/// §6.7.1); the problem's type if there is no detail.
pub(super) fn detail(problem: &instant_acme::Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_default();
    for part in &problem.subproblems {
        let detail = part.detail.as_deref().unwrap_or_default();
        text = format!("{text}; {detail}");
    }
    if text.is_empty() {
        text = problem
            .r#type
            .clone()
            .unwrap_or_else(|| "no reason given".to_owned());
    }
    plain(&text)
}

/// The text on one line of at most [`MAX_DETAIL_BYTES`], without control characters, for terminals
/// and logs.
fn plain(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    let end = line.floor_char_boundary(MAX_DETAIL_BYTES);
    line.split_at(end).0.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, detail: &str) -> instant_acme::Problem {
        let text = serde_json::json!({ "type": kind, "detail": detail }).to_string();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_problem_is_formatted_on_one_line_of_limited_length() {
        let long = "a\u{1b}[31m\nb".to_owned() + &"ü".repeat(1_000);
        let Error::Refused(text) = Error::refused(&problem("x", &long)) else {
            panic!("another error");
        };
        assert!(text.starts_with("a [31m b") && text.len() <= MAX_DETAIL_BYTES);
        let silent = Error::refused(&problem("urn:x", ""));
        assert_eq!(silent.to_string(), "the authority refuses: urn:x");
    }

    #[test]
    fn rate_limits_and_unknown_accounts_are_distinguished_from_other_refusals() {
        let limited = Error::refused(&problem(RATE_LIMITED, "too many certificates"));
        assert!(limited.is_rate_limit() && !limited.is_unreached());
        assert!(matches!(
            Error::refused(&problem(NO_ACCOUNT, "")),
            Error::NoAccount
        ));
    }
}
