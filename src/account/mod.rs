//! Who may come in: accounts, their secrets, and the verification of Basic credentials.
//!
//! An account belongs to an installation, not to a person: all phones of an organisation may share one.
//! Knows nothing of HTTP beyond the value of one header, and nothing of backups.

mod authenticator;
mod basic;
mod file;
mod secret;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use authenticator::{Authenticator, HashCounts};
pub use basic::Credentials;
pub use file::{Account, FileError, SyntaxError, load, update};
pub use secret::{GeneratedSecret, Secret, SecretError};

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads, writes and removes backups whose id it knows. Sees an empty list.
    Phone,
    /// The same, and sees the list of all backups.
    Operator,
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "phone" => Ok(Self::Phone),
            "operator" => Ok(Self::Operator),
            _ => Err(UnknownRole),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Phone => "phone",
            Self::Operator => "operator",
        })
    }
}

/// A text that is neither `phone` nor `operator`.
#[derive(Debug, thiserror::Error)]
#[error("a role is phone or operator")]
pub struct UnknownRole;

/// The name of an account: 1 to 128 bytes of UTF-8 without a colon (RFC 7617 ends the name there),
/// without control characters, and without a space at either end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(Arc<str>);

impl AccountName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let good = (1..=128).contains(&text.len())
            && text.trim() == text
            && !text
                .chars()
                .any(|character| character == ':' || character.is_control());
        if good {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName)
        }
    }
}

impl TryFrom<String> for AccountName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<AccountName> for String {
    fn from(name: AccountName) -> Self {
        name.as_str().into()
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A text that cannot be an account's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an account name has 1 to 128 bytes, no colon, no control characters and no space at its ends"
)]
pub struct InvalidName;

/// Somebody who was let in. Exists only where [`Authenticator`] verified credentials, or where the operator
/// allowed everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    name: Option<AccountName>,
    role: Role,
}

impl Caller {
    /// Somebody without an account, on a server whose operator allows that. May do what a phone may.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: None,
            role: Role::Phone,
        }
    }

    /// The verified account; none for anonymous callers.
    #[must_use]
    pub fn name(&self) -> Option<&AccountName> {
        self.name.as_ref()
    }

    /// What the caller may do.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_header_can_carry_are_refused() {
        for good in ["phones", "é", "a b", &"x".repeat(128)] {
            assert_eq!(good.parse::<AccountName>().unwrap().as_str(), good);
        }
        for bad in ["", "a:b", " a", "a ", "a\nb", "a\0", &"x".repeat(129)] {
            assert_eq!(bad.parse::<AccountName>(), Err(InvalidName), "{bad:?}");
        }
    }
}
