//! `demo`: a server from nothing, a phone that activates, backs up, restores and verifies, each as the
//! Android and as the iOS app does it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use tracing::Level;
use zeroize::Zeroizing;

use super::UsageError;
use super::init::{AUTHORITY_FILE, Installation, print_login, set_secret};
use super::log;
use super::serve::Signals;
use super::terminal::say;
use crate::account::AccountName;
use crate::backup::{
    BackupId, Document, INFLATE_LIMIT, MasterKey, Nonce, Password, SealedBackup, ThreemaId, open,
    seal,
};
use crate::client::{Error as ClientError, Login, Phone, Profile, ServerUrl, Trust};
use crate::config::{Config, Log, LogFormat};
use crate::durable;
use crate::server::{Server, StartError};

/// The port that is taken if it is free.
const PORT: u16 = 8443;
/// The file that tells a demo's folder from others.
const MARKER: &str = "demo.txt";
/// Who the phone is. Made up: no such identity is in use by this program.
const IDENTITY: &str = "DEMO1234";
/// The password that the made-up person chose.
const PASSWORD: &str = "correct horse battery staple";

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Stop after the phone instead of serving on
    #[arg(long)]
    once: bool,
    /// The folder for everything that is made
    #[arg(long, value_name = "FOLDER", default_value = "threema-safe-demo")]
    directory: PathBuf,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        log::start(Log {
            format: LogFormat::Text,
            level: Level::WARN,
        });
        tokio::runtime::Runtime::new()
            .context("start the asynchronous runtime")?
            .block_on(self.play())
    }

    async fn play(self) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::new()?;
        let name: AccountName = "phones".parse()?;
        claim_folder(&self.directory)?;
        let mut config = installation(&self.directory, PORT)?;
        let shown = set_secret(&config, &name)?;
        let server = match Server::bind(&config, super::now).await {
            // Somebody took the port since it was found to be free.
            Err(StartError::Listen { .. }) => {
                config = installation(&self.directory, 0)?;
                Server::bind(&config, super::now).await?
            }
            other => other?,
        };
        say(format!(
            "A server in the folder {}:",
            self.directory.display()
        ))?;
        say(
            "  config.json, accounts.json, certs/ (a development certificate), data/ (the backups)",
        )?;

        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let authority = durable::parent(&config.tls.certificate).join(AUTHORITY_FILE);
        let url = config.public_url.clone().unwrap_or_default();
        say(format!("  It listens on {url}"))?;
        let serving = tokio::spawn(server.run(async { drop(stopped.await) }));
        for (profile, app) in [
            (Profile::Android, "an Android phone"),
            (Profile::Ios, "an iPhone"),
        ] {
            say(format!("\nNow {app}, over TLS, with a made-up identity:"))?;
            let login = Login {
                username: name.to_string(),
                password: Zeroizing::new(shown.reveal().into()),
            };
            let trust = Trust::system_and(Some(&authority))?;
            let phone = Phone::new(profile, url.parse::<ServerUrl>()?, Some(login), trust)?;
            live(&phone).await?;
        }
        say("\nEverything worked: what was backed up came back, byte for byte.")?;
        if !self.once {
            print_login(&config, &name, Some(&shown))?;
            say(format!(
                "\nA phone accepts this server only if it can reach it and trusts {}.\n\
                 Serving until Ctrl-C …",
                authority.display()
            ))?;
            signals.next().await;
        }
        drop(stop);
        serving.await.context("stop the server")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes sure that the folder is empty or a demo's: nothing of anybody else is changed.
fn claim_folder(directory: &Path) -> anyhow::Result<()> {
    let marker = directory.join(MARKER);
    let occupied = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !marker.exists() {
        let text = format!(
            "{} is not empty and was not made by demo",
            directory.display()
        );
        return Err(UsageError(text).into());
    }
    durable::create_directory(directory)
        .with_context(|| format!("make the folder {}", directory.display()))?;
    let text = "Everything in this folder was made by `threema-safe-server demo`.\n";
    durable::replace(&marker, text.as_bytes()).context("write into the folder")
}

/// The installation in the folder; a new one if there is none. What an earlier demo left stays.
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

/// A free port on loopback, the wanted one if it can be had.
fn free_address(wanted: u16) -> anyhow::Result<SocketAddr> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|l| l.local_addr());
    bind(wanted)
        .or_else(|_| bind(0))
        .context("find a free port")
}

/// The life of a backup, step by step.
async fn live(phone: &Phone) -> anyhow::Result<()> {
    let mut steps = Steps(0);
    let identity: ThreemaId = IDENTITY.parse()?;
    let key = steps.take(
        "derive the keys from Threema ID and password (scrypt)",
        async { Ok(MasterKey::derive(&Password::from(PASSWORD), &identity)) },
    );
    let key = key.await?;
    let id = key.backup_id();
    let document = Document::sample(&identity, 100);

    let config = steps.take("activate: ask the server for its config", async {
        Ok(phone.config().await?)
    });
    let config = config.await?;
    say(format!(
        "     up to {} bytes, kept for {} days",
        config.max_backup_bytes, config.retention_days
    ))?;
    let backup = seal(&document, &key.backup_key(), Nonce::random());
    steps
        .take("back up: 100 contacts, encrypted, uploaded", async {
            Ok(phone.put(id, &backup).await?)
        })
        .await?;
    say(format!("     {} bytes", backup.as_bytes().len()))?;
    let again = seal(&document, &key.backup_key(), Nonce::random());
    steps
        .take("back up again, replacing the first", async {
            Ok(phone.put(id, &again).await?)
        })
        .await?;
    steps
        .take(
            "restore: download, decrypt, compare",
            restore(phone, id, &key, &document),
        )
        .await?;
    steps
        .take("turn Safe off: delete the backup", async {
            Ok(phone.delete(id).await?)
        })
        .await?;
    steps
        .take("look again: it is gone", async {
            let gone = matches!(phone.get(id).await, Err(ClientError::NotFound));
            ensure!(
                gone,
                "the server still has the backup, or does not say that it is gone"
            );
            Ok(())
        })
        .await
}

async fn restore(
    phone: &Phone,
    id: BackupId,
    key: &MasterKey,
    expected: &Document,
) -> anyhow::Result<()> {
    let sealed = SealedBackup::try_from(phone.get(id).await?)?;
    let document = open(sealed, &key.backup_key(), INFLATE_LIMIT)?;
    ensure!(
        document.json() == expected.json(),
        "what came back is not what was backed up"
    );
    Ok(())
}

/// Counts and prints steps.
struct Steps(u32);

impl Steps {
    async fn take<T>(
        &mut self,
        text: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        self.0 += 1;
        let started = Instant::now();
        let result = work.await.with_context(|| text.to_owned())?;
        say(format!(
            "  {}. {text} … ok ({} ms)",
            self.0,
            started.elapsed().as_millis()
        ))?;
        Ok(result)
    }
}
