//! First account of a server without accounts: its name from `SAFE_FIRST_ACCOUNT`, its password
//! from the file in `SAFE_FIRST_SECRET_FILE`, so that a container needs no manual command before it
//! serves.
//!
//! Invariant: if there is any account, nothing is read and nothing is changed. Accounts added by a
//! command, and changed passwords, survive every start.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::audit::Audit;
use super::runtime::UsageError;
use super::secret;
use crate::account::{self, Account, AccountName, FileError, Role, Secret};
use crate::config::Config;

const NAME: &str = "SAFE_FIRST_ACCOUNT";
const SECRET_FILE: &str = "SAFE_FIRST_SECRET_FILE";

/// The account requested by the environment.
struct FirstAccount {
    name: AccountName,
    secret_file: PathBuf,
}

/// Adds the account requested by the environment, if there are no accounts.
pub(super) fn add_if_none(config: &Config) -> anyhow::Result<()> {
    let Some(first) = FirstAccount::of(std::env::var_os(NAME), std::env::var_os(SECRET_FILE))?
    else {
        return Ok(());
    };
    let path = &config.accounts_file;
    if !has_no_accounts(path) {
        return Ok(());
    }
    let password = secret::from_file(&first.secret_file, "first account's password")?;
    let entry = Account {
        name: first.name.clone(),
        role: Role::Phone,
        disabled: false,
        secrets: vec![Secret::of_password(&password)?],
    };
    let audit = Audit::begin(config, "first account")?
        .with("account", first.name.as_str())
        .with("role", Role::Phone.to_string());
    let is_added = account::update(path, |accounts| {
        // An operator may have added one in the meantime.
        let is_first = accounts.is_empty();
        if is_first {
            accounts.push(entry);
        }
        Ok::<_, FileError>(is_first)
    })?;
    if is_added {
        // If the audit entry fails, the account exists all the same and phones need the server; the
        // failure was reported on standard error.
        let _ = audit.done();
        tracing::info!("first account added");
    } else {
        let _ = audit.refused();
    }
    Ok(())
}

/// True if the file is missing or contains no accounts. False if it cannot be read: the server
/// reports the error.
fn has_no_accounts(path: &Path) -> bool {
    match account::load(path) {
        Ok(accounts) => accounts.is_empty(),
        Err(FileError::Read { source, .. }) => source.kind() == ErrorKind::NotFound,
        Err(_) => false,
    }
}

impl FirstAccount {
    /// Requires both variables or neither: one alone is a mistake that would otherwise show only
    /// when phones are refused.
    fn of(name: Option<OsString>, secret_file: Option<OsString>) -> anyhow::Result<Option<Self>> {
        let (name, secret_file) = match (name, secret_file) {
            (None, None) => return Ok(None),
            (Some(name), Some(file)) => (name, file),
            (Some(_), None) => return Err(missing_variable(NAME, SECRET_FILE)),
            (None, Some(_)) => return Err(missing_variable(SECRET_FILE, NAME)),
        };
        if secret_file.is_empty() {
            return Err(UsageError(format!("{SECRET_FILE} is empty")).into());
        }
        // The error does not repeat the value: it may be the password.
        let name = name.to_str().unwrap_or_default().parse();
        let name = name.map_err(|error| UsageError(format!("{NAME}: {error}")))?;
        Ok(Some(Self {
            name,
            secret_file: secret_file.into(),
        }))
    }
}

fn missing_variable(set: &str, missing: &str) -> anyhow::Error {
    UsageError(format!(
        "{set} is set but {missing} is not: set both or neither"
    ))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: Option<&str>, file: Option<&str>) -> Result<Option<String>, String> {
        let first = FirstAccount::of(name.map(Into::into), file.map(Into::into));
        first
            .map(|first| first.map(|first| first.name.to_string()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn both_variables_are_needed_or_neither() {
        assert_eq!(of(None, None), Ok(None));
        assert_eq!(
            of(Some("phones"), Some("secret")),
            Ok(Some("phones".into()))
        );
        assert_eq!(
            of(Some("phones"), None).unwrap_err(),
            "SAFE_FIRST_ACCOUNT is set but SAFE_FIRST_SECRET_FILE is not: set both or neither"
        );
        assert_eq!(
            of(None, Some("secret")).unwrap_err(),
            "SAFE_FIRST_SECRET_FILE is set but SAFE_FIRST_ACCOUNT is not: set both or neither"
        );
    }

    #[test]
    fn a_bad_value_is_an_error_that_does_not_repeat_it() {
        for name in ["", "phones:hunter2"] {
            let error = of(Some(name), Some("secret")).unwrap_err();
            assert!(
                error.starts_with("SAFE_FIRST_ACCOUNT: account name must have"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(
            of(Some("phones"), Some("")).unwrap_err(),
            "SAFE_FIRST_SECRET_FILE is empty"
        );
    }

    #[test]
    fn an_invalid_file_does_not_count_as_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("accounts.json");
        for (text, expected) in [(r#"{"accounts": []}"#, true), ("{", false), ("", false)] {
            crate::durable::replace(&path, text.as_bytes()).unwrap();
            assert_eq!(has_no_accounts(&path), expected, "{text}");
        }
        assert!(has_no_accounts(&directory.path().join("absent")));
        assert!(!has_no_accounts(directory.path()));
    }
}
