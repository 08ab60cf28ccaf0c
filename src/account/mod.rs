//! Accounts, their secrets, and the verification of HTTP Basic credentials.
//!
//! An account belongs to an installation, not to a person: all phones of an organisation may share
//! one. Of HTTP, the module handles only the value of the `Authorization` header; it does not
//! depend on the modules for backups.

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

/// The permissions of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads, writes and removes backups by id. Its listing of backups is empty.
    Phone,
    /// Lists and reads all backups, and changes nothing.
    Operator,
    /// As `Operator`, and writes and removes backups.
    Maintainer,
}

impl Role {
    /// Whether it lists all backups.
    #[must_use]
    pub fn may_list(self) -> bool {
        match self {
            Self::Phone => false,
            Self::Operator | Self::Maintainer => true,
        }
    }

    /// Whether it writes and removes backups.
    #[must_use]
    pub fn may_write(self) -> bool {
        match self {
            Self::Operator => false,
            Self::Phone | Self::Maintainer => true,
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "phone" => Ok(Self::Phone),
            "operator" => Ok(Self::Operator),
            "maintainer" => Ok(Self::Maintainer),
            _ => Err(UnknownRole),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Phone => "phone",
            Self::Operator => "operator",
            Self::Maintainer => "maintainer",
        })
    }
}

/// The error of a role that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("role must be \"phone\", \"operator\" or \"maintainer\"")]
pub struct UnknownRole;

/// The name of an account: 1 to 128 bytes of UTF-8 without a colon (which ends the name in RFC
/// 7617), without control characters, and without white space at either end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(Arc<str>);

impl AccountName {
    /// The name as a string.
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

/// The error of a string that is not a valid account name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "account name must have 1 to 128 bytes, no colon, no control characters and no space at its ends"
)]
pub struct InvalidName;

/// An authenticated caller. A value is proof that an [`Authenticator`] has verified credentials, or
/// that the operator of the server allows anonymous access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    name: Option<AccountName>,
    role: Role,
}

impl Caller {
    /// The caller without an account, for a server that allows anonymous access. It has the role
    /// `phone`.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: None,
            role: Role::Phone,
        }
    }

    /// The name of the verified account; `None` for an anonymous caller.
    #[must_use]
    pub fn name(&self) -> Option<&AccountName> {
        self.name.as_ref()
    }

    /// The caller's permissions.
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
