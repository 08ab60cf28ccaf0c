//! Why there is no certificate, in words for whoever runs the server.

use std::io;
use std::path::PathBuf;

use crate::durable;
use crate::private_file::Exposure;

/// Bytes of what an authority says that are passed on.
const LONGEST_DETAIL: usize = 400;
/// What an authority calls a refusal because too much was asked.
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
/// What it calls an account that it does not know, or not any more.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why an order brought no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The authority does not answer, or nothing that is an answer.
    #[error("the authority cannot be reached: {0}")]
    Unreachable(String),
    /// The authority answers with a problem.
    #[error("the authority refuses: {0}")]
    Refused(String),
    /// The authority says that it was asked too much.
    #[error("the authority was asked too often: {0}")]
    RateLimited(String),
    /// The authority does not know the account.
    #[error("the authority does not know the account")]
    NoAccount,
    /// The authority did not see the answer to its challenge.
    #[error("the authority cannot see that {domain} leads here, on port 443: {detail}")]
    NotValidated { domain: String, detail: String },
    /// The authority cannot validate over TLS.
    #[error("the authority does not offer the challenge tls-alpn-01 for {0}")]
    NoChallenge(String),
    /// It takes too long.
    #[error("the authority has not finished in time")]
    Slow,
    /// What came cannot be used.
    #[error("the authority sent {0}, which cannot be used")]
    Unusable(&'static str),
    /// A certificate or a request for one cannot be made.
    #[error("a request for a certificate cannot be made")]
    Certificate(#[source] rcgen::Error),
    /// The file with authorities to trust cannot be used.
    #[error("{}: holds no certificate in PEM form that could be trusted", .0.display())]
    Authority(PathBuf),
    /// Nothing says whom to believe that it is the authority.
    #[error(
        "this system trusts nobody: install its certificates (ca-certificates), or set tls.acme.authorityFile"
    )]
    NoRoots,
    /// A file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} is not what this server writes there; move it away, and a new one is made", .0.display())]
    Damaged(PathBuf),
    /// Others can read or change a file with secrets.
    #[error("{}: {exposure}", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Who may do what.
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
    /// Whether asking again soon asks the authority for nothing.
    pub(super) fn is_cheap(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// Whether the authority wants to be left alone for long.
    pub(super) fn is_rate_limit(&self) -> bool {
        matches!(self, Self::RateLimited(_))
    }

    /// What an authority's problem says.
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
        use instant_acme::Error as Its;
        match error {
            Its::Api(problem) => Self::refused(&problem),
            Its::Timeout(_) => Self::Slow,
            Its::Other(other) => match other.downcast::<crate::server::acme::http::Failed>() {
                Ok(failed) => Self::Unreachable(plain(&failed.to_string())),
                Err(_) => Self::Unusable("something else than was expected"),
            },
            Its::Json(_) => Self::Unusable("something else than ACME"),
            Its::KeyRejected | Its::Crypto => Self::Unusable("a key"),
            Its::Unsupported(_) => Self::Unusable("a directory without what is needed"),
            Its::Str(_) | Its::Http(_) | Its::InvalidUri(_) => {
                Self::Unusable("an incomplete answer")
            }
            _ => Self::Unusable("something unknown"),
        }
    }
}

/// What a problem says, with those of single domains.
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
            .unwrap_or_else(|| "it does not say why".to_owned());
    }
    plain(&text)
}

/// A bounded line that changes nothing on a terminal.
fn plain(text: &str) -> String {
    let shown: String = text
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    let end = shown.floor_char_boundary(LONGEST_DETAIL);
    shown.split_at(end).0.trim().to_owned()
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
        assert!(text.starts_with("a [31m b") && text.len() <= LONGEST_DETAIL);
        let silent = Error::refused(&problem("urn:x", ""));
        assert_eq!(silent.to_string(), "the authority refuses: urn:x");
    }

    #[test]
    fn limits_and_unknown_accounts_are_told_from_other_refusals() {
        let limited = Error::refused(&problem(RATE_LIMITED, "too many certificates"));
        assert!(limited.is_rate_limit() && !limited.is_cheap());
        assert!(matches!(
            Error::refused(&problem(NO_ACCOUNT, "")),
            Error::NoAccount
        ));
    }
}
