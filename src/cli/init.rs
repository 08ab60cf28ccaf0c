//! `init`: creates configuration, account and development certificate of a new server.

use std::io::{self, BufRead, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::argument::RedactedErrors;
use super::audit::Audit;
use super::runtime::{self, UsageError, exit_code};
use super::terminal::{say, warn};
use crate::account::{self, Account, AccountName, GeneratedSecret, Role, Secret};
use crate::client::ServerUrl;
use crate::config::{Config, DEFAULT_FILE};
use crate::durable;
use crate::server::development_certificate;

/// Every key with its default: the template of a new configuration.
const EXAMPLE: &str = include_str!("../../config.example.json");

/// File name of the development CA's certificate, in the directory of the server's certificate.
pub(super) const AUTHORITY_FILE: &str = "development-ca.pem";

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The URL at which phones will reach the server, such as https://safe.example.org/
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// IP address and port to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443")]
    listen: SocketAddr,
    /// Name of the account that phones will use
    #[arg(long, value_name = "NAME", value_parser = RedactedErrors(AccountName::from_str))]
    account: Option<AccountName>,
    /// Allow restoring a backup without credentials, by its id (recommended: iOS 7.2 to 7.2.2
    /// cannot restore otherwise)
    #[arg(long, value_name = "true|false")]
    anonymous_restore: Option<bool>,
    /// Do not prompt; use defaults for missing options
    #[arg(long)]
    yes: bool,
}

/// The settings of a new installation.
pub(super) struct Installation {
    pub(super) public_url: String,
    pub(super) listen: SocketAddr,
    pub(super) admin_listen: Option<SocketAddr>,
    pub(super) anonymous_restore: bool,
}

impl Init {
    pub(super) fn run(self, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
        let path = file.unwrap_or_else(|| DEFAULT_FILE.into());
        if path.exists() {
            let text = format!(
                "{} already exists; init does not overwrite it",
                path.display()
            );
            return Err(UsageError(text).into());
        }
        let ask = !self.yes && io::stdin().is_terminal();
        let default_url = format!("https://localhost:{}/", self.listen.port());
        let public_url = match self.public_url {
            Some(url) => url,
            None if ask => question("URL at which phones will reach this server?", &default_url)?,
            None => default_url,
        };
        let parsed: Result<ServerUrl, _> = public_url.parse();
        parsed.map_err(|error| UsageError(format!("--public-url: {error}")))?;
        let account = match self.account {
            Some(name) => name,
            None if ask => question("Name of the account for phones?", "phones")?.parse()?,
            None => "phones".parse()?,
        };
        let anonymous_restore = match self.anonymous_restore {
            Some(answer) => answer,
            None if ask => {
                warn(
                    "Allow restoring a backup by its id, without user name and password?\n\
                     iOS 7.2 to 7.2.2 sends the wrong password when restoring, so it cannot restore \
                     otherwise.\nThe id is 256 bits derived from Threema ID and Safe password: \
                     it cannot be guessed,\nand the backup is encrypted with a key derived from the same password.",
                );
                question("Recommended: yes", "yes")?
                    .to_ascii_lowercase()
                    .starts_with('y')
            }
            None => true,
        };
        let installation = Installation {
            public_url,
            listen: self.listen,
            admin_listen: None,
            anonymous_restore,
        };
        let (config, text) = installation.config(&path)?;
        let audit = Audit::begin(&config, "init")?;
        write_config(&path, &text)?;
        say(format!("wrote {}", path.display()))?;
        if let Some(certificate) = installation.write_certificate(&config)? {
            say(format!(
                "wrote a development certificate, for tests only (phones need one from a trusted CA): {}",
                certificate.display()
            ))?;
        }
        let accounts = account::load(&config.accounts_file).unwrap_or_default();
        let (generated, added) = if accounts.iter().any(|existing| existing.name == account) {
            (None, None)
        } else {
            (Some(set_secret(&config, &account)?), Some(account.as_str()))
        };
        let is_audited = audit.with("account", added).done();
        print_login(&config, &account, generated.as_ref())?;
        let flag = if path == Path::new(DEFAULT_FILE) {
            String::new()
        } else {
            format!("--config {} ", path.display())
        };
        say(format!(
            "\nNext: threema-safe-server {flag}check, then threema-safe-server {flag}serve"
        ))?;
        Ok(exit_code(is_audited))
    }
}

impl Installation {
    /// Writes the configuration.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<Config> {
        let (config, text) = self.config(path)?;
        write_config(path, &text)?;
        Ok(config)
    }

    /// The configuration and its JSON text: the example with the values of this installation.
    fn config(&self, path: &Path) -> anyhow::Result<(Config, String)> {
        let mut config: Value =
            serde_json::from_str(EXAMPLE).context("parse the example configuration")?;
        let url = &self.public_url;
        let slash = if url.ends_with('/') { "" } else { "/" };
        let mut set = |pointer: &str, value: Value| {
            if let Some(target) = config.pointer_mut(pointer) {
                *target = value;
            }
        };
        set("/publicUrl", json!(format!("{url}{slash}")));
        // No proxy has to replace the path, and listings are right on both sides of one.
        let parsed: reqwest::Url = url.parse().context("parse the public URL")?;
        set("/basePath", json!(parsed.path()));
        set("/listen", json!([self.listen.to_string()]));
        set("/anonymousRestore", json!(self.anonymous_restore));
        if let Some(admin) = self.admin_listen {
            set("/admin/listen", json!(admin.to_string()));
        }
        let text = serde_json::to_string_pretty(&config).context("write JSON")? + "\n";
        let config = Config::from_json(text.as_bytes(), path)?;
        Ok((config, text))
    }

    /// Writes a development certificate unless certificate or key exist; returns its path if it
    /// did.
    pub(super) fn write_certificate(&self, config: &Config) -> anyhow::Result<Option<PathBuf>> {
        let files = config.tls.files();
        let files =
            files.filter(|files| !files.certificate.exists() && !files.private_key.exists());
        let Some(files) = files else {
            return Ok(None);
        };
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
        let url: reqwest::Url = self.public_url.parse().context("parse the public URL")?;
        if let Some(host) = url.host_str() {
            let host = host.trim_matches(['[', ']']).to_owned();
            if !names.contains(&host) {
                names.insert(0, host);
            }
        }
        let made =
            development_certificate(&names, runtime::now()).context("create a certificate")?;
        let directory = durable::parent(&files.certificate);
        for (path, pem) in [
            (directory.join(AUTHORITY_FILE), &made.authority_pem),
            (files.private_key.clone(), &made.private_key_pem),
            (files.certificate.clone(), &made.chain_pem),
        ] {
            durable::create_directory(durable::parent(&path))
                .and_then(|()| durable::replace(&path, pem.as_bytes()))
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(Some(files.certificate.clone()))
    }
}

fn write_config(path: &Path, text: &str) -> anyhow::Result<()> {
    durable::create_directory(durable::parent(path))?;
    durable::replace(path, text.as_bytes()).with_context(|| format!("write {}", path.display()))
}

/// Replaces the account `name` by a phone account with a new secret, or adds it.
pub(super) fn set_secret(config: &Config, name: &AccountName) -> anyhow::Result<GeneratedSecret> {
    let (generated, secret) = Secret::generate()?;
    account::update(&config.accounts_file, |accounts| {
        accounts.retain(|account| account.name != *name);
        let secrets = vec![secret];
        accounts.push(Account {
            name: name.clone(),
            role: Role::Phone,
            disabled: false,
            secrets,
        });
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(generated)
}

/// Prints the values for the app and for MDM.
pub(super) fn print_login(
    config: &Config,
    name: &AccountName,
    generated: Option<&GeneratedSecret>,
) -> anyhow::Result<()> {
    let url = config.public_url.as_deref().unwrap_or_default();
    let password = generated.map_or(
        "(unchanged: the account already exists)",
        GeneratedSecret::reveal,
    );
    say("\nEnter in the app (Threema Safe, expert options):")?;
    say(format!("  Server     {url}"))?;
    say(format!("  User name  {name}"))?;
    say(format!("  Password   {password}"))?;
    say("\nOr set with MDM:")?;
    say("  th_safe_enable           true")?;
    say(format!("  th_safe_server_url       {url}"))?;
    say(format!("  th_safe_server_username  {name}"))?;
    say(format!("  th_safe_server_password  {password}"))?;
    if generated.is_some() {
        say("\nThe password is not stored and cannot be shown again.")?;
    }
    Ok(())
}

fn question(text: &str, default: &str) -> anyhow::Result<String> {
    warn(&format!("{text} [{default}]"));
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("read the answer")?;
    let answer = line.trim();
    Ok(if answer.is_empty() {
        default.into()
    } else {
        answer.into()
    })
}
