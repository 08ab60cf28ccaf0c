//! `account add / list / remove`: changes the accounts file, which a running server reloads at
//! once.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Subcommand;
use serde_json::json;

use super::argument::RedactedErrors;
use super::audit::Audit;
use super::runtime::{UsageError, exit_code};
use super::secret;
use super::terminal::say;
use crate::account::{self, Account as Entry, AccountName, Role, Secret};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Account {
    /// Add an account; without --secret-file a password is generated and printed once
    Add {
        /// The account's name, without a colon
        #[arg(value_parser = RedactedErrors(AccountName::from_str))]
        name: AccountName,
        /// phone: read and write backups by id; operator: list and read all backups; maintainer:
        /// operator that may also write
        #[arg(long, default_value_t = Role::Phone)]
        role: Role,
        /// A file with the password to use (- is standard input) instead of a generated one
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the accounts, without their secrets
    List {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Remove an account; no backup is removed
    Remove {
        /// The account's name
        #[arg(value_parser = RedactedErrors(AccountName::from_str))]
        name: AccountName,
    },
}

impl Account {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let path = &config.accounts_file;
        let mut succeeded = true;
        match self {
            Self::Add {
                name,
                role,
                secret_file,
                json,
            } => {
                let (generated, secret) = match secret_file {
                    Some(file) => {
                        let password = secret::from_file(&file, "account's password")?;
                        (None, Secret::of_password(&password)?)
                    }
                    None => {
                        let (generated, secret) = Secret::generate()?;
                        (Some(generated), secret)
                    }
                };
                let entry = Entry {
                    name: name.clone(),
                    role,
                    disabled: false,
                    secrets: vec![secret],
                };
                let audit = Audit::begin(config, "account add")?
                    .with("account", name.as_str())
                    .with("role", role.to_string());
                account::update(path, |accounts| {
                    if accounts.iter().any(|account| account.name == name) {
                        let text = format!("account \"{name}\" already exists");
                        return Err(anyhow::Error::from(UsageError(text)));
                    }
                    accounts.push(entry);
                    Ok(())
                })?;
                succeeded = audit.done();
                let password = generated.as_ref().map(account::GeneratedSecret::reveal);
                if json {
                    say(json!({ "name": name, "role": role, "password": password }))?;
                } else {
                    say(format!("user name  {name}"))?;
                    if let Some(password) = password {
                        say(format!("password   {password}"))?;
                        say("The password is not stored and cannot be shown again.")?;
                    }
                }
            }
            Self::List { json } => {
                let accounts = account::load(path)?;
                if json {
                    let list: Vec<_> = accounts
                        .iter()
                        .map(|account| {
                            json!({
                                "name": account.name,
                                "role": account.role,
                                "disabled": account.disabled,
                                "secrets": account.secrets.len(),
                            })
                        })
                        .collect();
                    say(json!(list))?;
                } else {
                    let roles = accounts.iter().map(|account| account.role.to_string());
                    let width = roles.map(|role| role.len()).max().unwrap_or(0).max(8);
                    for account in accounts {
                        let disabled = if account.disabled { "  disabled" } else { "" };
                        say(format!(
                            "{:width$}  {}{disabled}",
                            account.role.to_string(),
                            account.name
                        ))?;
                    }
                }
            }
            Self::Remove { name } => {
                let audit = Audit::begin(config, "account remove")?.with("account", name.as_str());
                account::update(path, |accounts| {
                    let before = accounts.len();
                    accounts.retain(|account| account.name != name);
                    if accounts.len() == before {
                        let text = format!("account \"{name}\" does not exist");
                        return Err(anyhow::Error::from(UsageError(text)));
                    }
                    Ok(())
                })?;
                succeeded = audit.done();
                say(format!("removed {name}"))?;
            }
        }
        Ok(exit_code(succeeded))
    }
}
