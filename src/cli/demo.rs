//! `demo`: sets up a new server, and tests it with a simulated phone that activates Safe, backs up,
//! restores and verifies, as the Android app and as the iOS app.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tracing::Level;
use zeroize::Zeroizing;

use super::init::{AUTHORITY_FILE, Installation, print_login, set_secret};
use super::log;
use super::runtime::{self, UsageError};
use super::serve::Signals;
use super::terminal::say;
use crate::account::AccountName;
use crate::backup::{App, Contents, MasterKey, Password, ThreemaId};
use crate::client::{EndToEndTest, Login, OnFailure, Outcome, Phone, ServerUrl, Trust};
use crate::config::{ClientAddresses, Config, Log, LogFormat};
use crate::durable;
use crate::server::{Server, StartError};

/// The preferred port.
const PORT: u16 = 8443;
/// The file that marks a directory created by `demo`.
const MARKER: &str = "demo.txt";
/// The Threema ID of the simulated phone. It is made up.
const IDENTITY: &str = "DEMO1234";
/// The Safe password of the simulated phone.
const PASSWORD: &str = "correct horse battery staple";
/// Contacts in the first backup; the second has one more.
const CONTACTS: u32 = 100;

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Exit after the test instead of continuing to serve
    #[arg(long)]
    once: bool,
    /// The directory for all files of the demo
    #[arg(long, value_name = "FOLDER", default_value = "threema-safe-demo")]
    directory: PathBuf,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        log::start(Log {
            format: LogFormat::Text,
            level: Level::WARN,
            client_addresses: ClientAddresses::None,
        });
        tokio::runtime::Runtime::new()
            .context("start the asynchronous runtime")?
            .block_on(self.run_demo())
    }

    async fn run_demo(self) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::new()?;
        let name: AccountName = "phones".parse()?;
        claim_directory(&self.directory)?;
        let mut config = installation(&self.directory, PORT)?;
        let secret = set_secret(&config, &name)?;
        let server = match Server::bind(&config, runtime::now).await {
            // Another program has bound the port since it was found to be free.
            Err(StartError::Listen { .. }) => {
                config = installation(&self.directory, 0)?;
                Server::bind(&config, runtime::now).await?
            }
            other => other?,
        };
        say(format!("Demo server in {}:", self.directory.display()))?;
        say(
            "  config.json, accounts.json, certs/ (a development certificate), data/ (the backups)",
        )?;

        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let files = config.tls.files().context("the demo has a certificate")?;
        let authority = durable::parent(&files.certificate).join(AUTHORITY_FILE);
        let url = config.public_url.clone().unwrap_or_default();
        say(format!("  Listening on {url}"))?;
        let serving = tokio::spawn(server.run(async { drop(stopped.await) }));
        for (app, phone) in [(App::Android, "an Android phone"), (App::Ios, "an iPhone")] {
            say(format!(
                "\nTest as {phone}, over TLS, with a made-up identity:"
            ))?;
            let login = Login {
                username: name.to_string(),
                password: Zeroizing::new(secret.reveal().into()),
            };
            let trust = Trust::system_and(Some(&authority))?;
            let phone = Phone::new(app, url.parse::<ServerUrl>()?, Some(login), trust)?;
            run_test(app, &phone).await?;
        }
        say("\nAll steps passed: every restored backup was identical, byte for byte.")?;
        if !self.once {
            print_login(&config, &name, Some(&secret))?;
            say(format!(
                "\nA phone can use this server only if it can reach it and trusts {}.\n\
                 Serving until Ctrl-C …",
                authority.display()
            ))?;
            signals.next().await;
        }
        drop(stop);
        if serving.await.is_err() {
            anyhow::bail!("the server panicked");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Refuses a directory that is not empty and was not created by a demo, then marks it.
fn claim_directory(directory: &Path) -> anyhow::Result<()> {
    let marker = directory.join(MARKER);
    let occupied = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !marker.exists() {
        let text = format!(
            "{} is not empty and was not created by demo",
            directory.display()
        );
        return Err(UsageError(text).into());
    }
    durable::create_directory(directory)
        .with_context(|| format!("create {}", directory.display()))?;
    let text = "All files in this directory were created by `threema-safe-server demo`.\n";
    durable::replace(&marker, text.as_bytes())
        .with_context(|| format!("write {}", marker.display()))
}

/// Writes the configuration for this port, and a certificate if there is none. Other files of an
/// earlier demo are kept.
fn installation(directory: &Path, port: u16) -> anyhow::Result<Config> {
    let path = directory.join("config.json");
    let mut installation = Installation {
        public_url: String::new(),
        listen: free_address(port)?,
        admin_listen: Some(free_address(0)?),
        anonymous_restore: true,
    };
    installation.public_url = format!("https://{}/", installation.listen);
    let config = installation.write(&path)?;
    installation.write_certificate(&config)?;
    Ok(config)
}

/// A free port on loopback: `preferred` if it is free.
fn free_address(preferred: u16) -> anyhow::Result<SocketAddr> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|l| l.local_addr());
    bind(preferred)
        .or_else(|_| bind(0))
        .context("find a free port")
}

/// Runs the end-to-end test and prints its steps.
async fn run_test(app: App, phone: &Phone) -> anyhow::Result<()> {
    let identity: ThreemaId = IDENTITY.parse()?;
    let started = Instant::now();
    let key = MasterKey::derive(&Password::from(PASSWORD), &identity);
    let took = started.elapsed();
    say(step(
        1,
        "derive the keys from Threema ID and password (scrypt)",
        took,
    ))?;
    let [first, second] = [CONTACTS, CONTACTS + 1]
        .map(|contacts| Contents::sample(&identity, contacts, app, runtime::now()).to_document());

    let mut number = 1;
    let mut result: anyhow::Result<()> = Ok(());
    let print_step = |outcome: Outcome| {
        if result.is_err() {
            return;
        }
        number += 1;
        let meaning = outcome.step.meaning();
        result = match outcome.result {
            Ok(text) => say(step(number, meaning, outcome.took)).and_then(|()| match &*text {
                "" => Ok(()),
                text => say(format!("     {text}")),
            }),
            Err(failure) => Err(failure).context(meaning),
        };
    };
    let test = EndToEndTest::new(&key, first, second);
    test.run(phone, OnFailure::Stop, print_step).await;
    result
}

fn step(number: u32, meaning: &str, took: Duration) -> String {
    format!("  {number}. {meaning} … ok ({} ms)", took.as_millis())
}
