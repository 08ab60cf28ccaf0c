//! ACME errors, in words for the operator.

use std::io;
use std::path::PathBuf;

use crate::durable;
use crate::private_file::Exposure;

/// Longest text from an authority that is passed on, in bytes.
const MAX_DETAIL_BYTES: usize = 400;
/// Problem type of a rate limit.
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
/// Problem type of an unknown account.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why the authority did not answer a request.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoResponse(pub(super) String);

/// Why an order did not end with a certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The authority does not answer, or not with ACME.
    #[error("the authority cannot be reached: {0}")]
    Unreachable(String),
    /// The authority answers with a problem.
    #[error("the authority refuses: {0}")]
    Refused(String),
    /// The authority's rate limit is reached.
    #[error("the authority's rate limit is reached: {0}")]
    RateLimited(String),
    /// The authority does not know the account.
    #[error("the authority does not know the account")]
    NoAccount,
    /// The authority did not see the answer to its challenge.
    #[error(
        "the authority cannot validate {domain}, which must lead to this server on port 443: {detail}"
    )]
    NotValidated { domain: String, detail: String },
    /// The authority cannot validate over TLS.
    #[error("the authority does not offer the challenge tls-alpn-01 for {0}")]
    NoChallenge(String),
    /// The order takes too long.
    #[error("the authority has not finished in time")]
    Timeout,
    /// The authority's answer cannot be used.
    #[error("the authority sent {0}, which cannot be used")]
    Unusable(&'static str),
    /// A certificate or a certificate request cannot be created.
    #[error("the certificate request cannot be created")]
    Certificate(#[source] rcgen::Error),
    /// The file with authorities to trust cannot be used.
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
        /// The rights that others have.
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
    /// Whether the order cost the authority nothing, so that the next one may come soon.
    pub(super) fn is_unreached(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// Whether the authority's rate limit is reached.
    pub(super) fn is_rate_limit(&self) -> bool {
        matches!(self, Self::RateLimited(_))
    }

    /// An authority's problem (RFC 7807) as an error.
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

/// A problem's detail, with those of single domains.
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

/// The text as one bounded line without control characters, for terminals and logs.
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
    fn a_problem_is_one_bounded_line() {
        let long = "a\u{1b}[31m\nb".to_owned() + &"ü".repeat(1_000);
        let Error::Refused(text) = Error::refused(&problem("x", &long)) else {
            panic!("another error");
        };
        assert!(text.starts_with("a [31m b") && text.len() <= MAX_DETAIL_BYTES);
        let silent = Error::refused(&problem("urn:x", ""));
        assert_eq!(silent.to_string(), "the authority refuses: urn:x");
    }

    #[test]
    fn limits_and_unknown_accounts_are_told_from_other_refusals() {
        let limited = Error::refused(&problem(RATE_LIMITED, "too many certificates"));
        assert!(limited.is_rate_limit() && !limited.is_unreached());
        assert!(matches!(
            Error::refused(&problem(NO_ACCOUNT, "")),
            Error::NoAccount
        ));
    }
}
