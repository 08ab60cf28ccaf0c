//! Accounts file: a JSON object with the key `accounts`, a list of [`Account`]s. It is always read,
//! validated and replaced as a whole.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::secret::SecretError;
use super::{AccountName, Role, Secret};
use crate::durable;
use crate::private_file::Exposure;

/// One account, as stored in the accounts file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Account {
    /// Its name, unique in the file.
    pub name: AccountName,
    /// Its permissions.
    pub role: Role,
    /// True if the account is disabled: it is refused exactly like an unknown one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// One secret, or two during a rotation.
    pub secrets: Vec<Secret>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    accounts: Vec<Account>,
}

/// An error in reading, validating or writing the accounts file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("accounts file {}: cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file is not valid JSON, or not an accounts file.
    #[error("accounts file {}: not valid", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The error and its position.
        #[source]
        source: SyntaxError,
    },
    /// The file's permissions are too open: users other than its owner and group can read it, or
    /// users other than its owner can change it.
    #[error("accounts file {}: {exposure}", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// The permissions that are too open.
        exposure: Exposure,
    },
    /// An account's name is used twice, or an account has no secret or more than two.
    #[error("accounts file {}: account \"{name}\" {problem}", .path.display())]
    Account {
        /// The file.
        path: PathBuf,
        /// The account's name.
        name: AccountName,
        /// The problem, as the end of a sentence about the account.
        problem: &'static str,
    },
    /// The file cannot be written.
    #[error("accounts file {}: cannot be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The step that failed.
        #[source]
        source: durable::Error,
    },
}

/// A syntax error and its position. It quotes no value, because a password in the wrong place must
/// not get into the log.
#[derive(Debug, thiserror::Error)]
#[error("{text} at line {line} column {column}")]
pub struct SyntaxError {
    text: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1.
    column: usize,
}

impl From<serde_json::Error> for SyntaxError {
    fn from(error: serde_json::Error) -> Self {
        let message = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        let message = message.strip_suffix(&position).unwrap_or(&message);
        // These messages quote keys only. All other messages about data may quote a value.
        let harmless = ["unknown field", "missing field", "duplicate field"];
        let text = if !error.is_data() || harmless.iter().any(|start| message.starts_with(start)) {
            message.to_owned()
        } else if message.starts_with("unknown variant") {
            super::UnknownRole.to_string()
        } else {
            let own = [
                super::InvalidName.to_string(),
                SecretError::Unknown.to_string(),
            ];
            let wrong_type = || "a value has the wrong type".to_owned();
            own.into_iter()
                .find(|own| own == message)
                .unwrap_or_else(wrong_type)
        };
        Self {
            text,
            line: error.line(),
            column: error.column(),
        }
    }
}

/// Refuses a file that other users can read or change. A missing file passes.
///
/// # Errors
/// When the permissions are too open.
pub(super) fn check_permissions(path: &Path) -> Result<(), FileError> {
    match Exposure::of(path) {
        Ok(Some(exposure)) => Err(FileError::Exposed {
            path: path.to_owned(),
            exposure,
        }),
        _ => Ok(()),
    }
}

/// Reads and validates the accounts file.
///
/// # Errors
/// When it is missing, unreadable, or not valid.
pub fn load(path: &Path) -> Result<Vec<Account>, FileError> {
    let text = std::fs::read(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    let contents: Contents = serde_json::from_slice(&text).map_err(|error| FileError::Syntax {
        path: path.to_owned(),
        source: error.into(),
    })?;
    check(path, &contents.accounts)?;
    Ok(contents.accounts)
}

/// Reads the file (a missing file counts as empty), applies `change`, and replaces the file
/// durably. A lock serialises concurrent updates, also those of several processes.
///
/// # Errors
/// When the file cannot be read or written, the changed accounts are not valid, or `change` returns
/// an error. The file is then unchanged.
pub fn update<T, E: From<FileError>>(
    path: &Path,
    change: impl FnOnce(&mut Vec<Account>) -> Result<T, E>,
) -> Result<T, E> {
    let write = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let directory = durable::parent(path);
    durable::create_directory(directory).map_err(write)?;
    let _lock = durable::lock_directory(directory).map_err(write)?;

    let mut accounts = match load(path) {
        Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Vec::new()
        }
        other => other?,
    };
    let result = change(&mut accounts)?;
    check(path, &accounts)?;
    let mut text =
        serde_json::to_vec_pretty(&Contents { accounts }).map_err(|error| FileError::Syntax {
            path: path.to_owned(),
            source: error.into(),
        })?;
    text.push(b'\n');
    durable::replace(path, &text).map_err(write)?;
    Ok(result)
}

fn check(path: &Path, accounts: &[Account]) -> Result<(), FileError> {
    let problem = |account: &Account, problem| FileError::Account {
        path: path.to_owned(),
        name: account.name.clone(),
        problem,
    };
    for (position, account) in accounts.iter().enumerate() {
        if accounts
            .iter()
            .take(position)
            .any(|other| other.name == account.name)
        {
            return Err(problem(account, "is listed twice"));
        }
        if account.secrets.is_empty() {
            return Err(problem(account, "has no secret"));
        }
        if account.secrets.len() > 2 {
            return Err(problem(account, "has more than two secrets"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Account {
        let secrets = vec![Secret::generate().unwrap().1];
        Account {
            name: name.parse().unwrap(),
            role: Role::Phone,
            disabled: false,
            secrets,
        }
    }

    #[test]
    fn accounts_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etc/accounts.json");

        for name in ["phones", "backup"] {
            update(&path, |accounts| {
                accounts.push(account(name));
                Ok::<_, FileError>(())
            })
            .unwrap();
        }

        let names: Vec<_> = load(&path)
            .unwrap()
            .iter()
            .map(|a| a.name.to_string())
            .collect();
        assert_eq!(names, ["phones", "backup"]);
    }

    #[test]
    fn an_invalid_change_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("accounts.json");
        let add = |accounts: &mut Vec<Account>| {
            accounts.push(account("phones"));
            Ok::<_, FileError>(())
        };
        update(&path, add).unwrap();

        let error = update(&path, add).unwrap_err();

        assert!(
            error
                .to_string()
                .ends_with("account \"phones\" is listed twice"),
            "{error}"
        );
        assert_eq!(load(&path).unwrap().len(), 1);
    }

    #[test]
    fn an_unknown_key_or_role_is_an_error_with_its_position() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("accounts.json");
        for bad in [
            r#"{"accounts": [], "acounts": []}"#,
            r#"{"accounts": [{"name": "a", "role": "root", "secrets": []}]}"#,
            r#"{"accounts": [{"name": "a:b", "role": "phone", "secrets": []}]}"#,
            r#"{"accounts": [{"name": "a", "role": "phone", "secrets": ["plain"]}]}"#,
        ] {
            durable::replace(&path, bad.as_bytes()).unwrap();
            let Err(FileError::Syntax { source, .. }) = load(&path) else {
                panic!("{bad}")
            };
            assert_eq!(source.line, 1, "{source}");
        }
    }

    #[test]
    fn an_error_does_not_quote_a_password_in_the_wrong_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("accounts.json");
        for (bad, expected) in [
            (
                r#"{"accounts": [{"name": "a", "role": "hunter2", "secrets": []}]}"#,
                "role must be \"phone\", \"operator\" or \"maintainer\" at line 1",
            ),
            (
                r#"{"accounts": [{"name": "a", "role": "phone", "secrets": "hunter2"}]}"#,
                "a value has the wrong type at line 1",
            ),
            (
                r#"{"accounts": [{"name": "a", "role": "phone", "secrets": ["hunter2"]}]}"#,
                "secret must be \"sha256:\" and 64",
            ),
            (r#"{"accounts": "hunter2"}"#, "a value has the wrong type"),
            (
                r#"{"accounts": [{"name": "a:hunter2", "role": "phone", "secrets": []}]}"#,
                "account name must have 1 to 128 bytes",
            ),
            (r#""hunter2""#, "a value has the wrong type at line 1"),
            (r#"{"accounts": [], "x": 1}"#, "unknown field `x`"),
            (r#"{"accounts": [hunter2]}"#, "expected value at line 1"),
            ("{}", "missing field `accounts` at line 1"),
        ] {
            durable::replace(&path, bad.as_bytes()).unwrap();
            let Err(FileError::Syntax { source, .. }) = load(&path) else {
                panic!("{bad}")
            };
            let text = source.to_string();
            assert!(text.starts_with(expected), "{bad}: {text}");
            assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
        }
    }
}
