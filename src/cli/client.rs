//! `client …`: the format and the four requests by hand.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::terminal::{say, write};
use super::{UsageError, block_on, secret};
use crate::backup::{
    self, Document, INFLATE_LIMIT, MasterKey, Nonce, Password, SealedBackup, ThreemaId,
};
use crate::client::{Login, Phone, Profile, ServerUrl, Trust};
use crate::durable;

/// Environment variable that may hold the password of the backup.
const PASSWORD: &str = "SAFE_CLIENT_PASSWORD";
/// Environment variable that may hold the password of the account on the server.
const SECRET: &str = "SAFE_CLIENT_SECRET";

#[derive(Debug, Subcommand)]
pub(super) enum Client {
    /// Print the backup id of a Threema ID and a password
    Derive {
        #[command(flatten)]
        identity: Identity,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Encrypt a document into a file
    Seal {
        #[command(flatten)]
        identity: Identity,
        /// The backup's JSON (- is standard input)
        document: PathBuf,
        /// The file to write
        #[arg(long, value_name = "BLOB")]
        out: PathBuf,
    },
    /// Decrypt a file
    Open {
        #[command(flatten)]
        identity: Identity,
        /// The encrypted backup (- is standard input)
        blob: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Encrypt a document and upload it, as an app does
    Put {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        identity: Identity,
        /// The backup's JSON (- is standard input)
        document: PathBuf,
    },
    /// Download a backup and decrypt it
    Get {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        identity: Identity,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a backup, as turning Safe off does
    Delete {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        identity: Identity,
    },
    /// Print what the server tells the apps before every backup
    Config {
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Debug, Args)]
pub(super) struct Identity {
    /// The Threema ID (small letters are made capitals, as in the apps)
    #[arg(long, value_name = "ID", value_parser = threema_id)]
    id: ThreemaId,
    /// A file with the password of the backup (- is standard input); without it, SAFE_CLIENT_PASSWORD
    /// or a prompt
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Server {
    /// The server's address, as typed into the app
    #[arg(long, value_name = "URL")]
    server: ServerUrl,
    /// User name on the server
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// A file with the password on the server (- is standard input); without it, SAFE_CLIENT_SECRET or
    /// a prompt
    #[arg(long, value_name = "FILE", requires = "username")]
    secret_file: Option<PathBuf>,
    /// An authority to trust besides the system's, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Behave as this app: android or ios
    #[arg(long = "as", value_name = "APP", default_value = "android")]
    profile: Profile,
}

#[derive(Debug, Args)]
pub(super) struct Output {
    /// Print the document. It contains the private key
    #[arg(long)]
    json: bool,
    /// Write the document to a file of mode 0600
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Client {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Derive { identity, json } => {
                let id = identity.master_key()?.backup_id().to_hex();
                let json = json.then(|| json!({ "backupId": id }).to_string());
                say(json.unwrap_or(id))?;
            }
            Self::Seal {
                identity,
                document,
                out,
            } => {
                let document = read_document(&document)?;
                let sealed = identity.seal(&document)?.1;
                write_file(&out, sealed.as_bytes())?;
                say(format!(
                    "sealed {} bytes into {}",
                    sealed.as_bytes().len(),
                    out.display()
                ))?;
            }
            Self::Open {
                identity,
                blob,
                output,
            } => {
                let blob = read_bytes(&blob)?;
                output.give(&open(&identity.master_key()?, blob.to_vec().into())?)?;
            }
            Self::Put {
                server,
                identity,
                document,
            } => {
                let document = read_document(&document)?;
                let phone = server.phone()?;
                let (key, sealed) = identity.seal(&document)?;
                block_on(async { Ok(phone.put(key.backup_id(), &sealed).await?) })?;
                say(format!("uploaded {} bytes", sealed.as_bytes().len()))?;
            }
            Self::Get {
                server,
                identity,
                output,
            } => {
                let phone = server.phone()?;
                let key = identity.master_key()?;
                let blob = block_on(async { Ok(phone.get(key.backup_id()).await?) })?;
                output.give(&open(&key, blob)?)?;
            }
            Self::Delete { server, identity } => {
                let phone = server.phone()?;
                let key = identity.master_key()?;
                block_on(async { Ok(phone.delete(key.backup_id()).await?) })?;
                say("deleted")?;
            }
            Self::Config { server } => {
                let phone = server.phone()?;
                let config = block_on(async { Ok(phone.config().await?) })?;
                say(serde_json::to_string(&config)?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Identity {
    fn master_key(&self) -> anyhow::Result<MasterKey> {
        let password = secret::read(self.password_file.as_deref(), PASSWORD, "backup's password")?;
        Ok(MasterKey::derive(
            &Password::from(password.as_str()),
            &self.id,
        ))
    }

    fn seal(&self, document: &Document) -> anyhow::Result<(MasterKey, SealedBackup)> {
        let key = self.master_key()?;
        let sealed = backup::seal(document, &key.backup_key(), Nonce::random());
        Ok((key, sealed))
    }
}

impl Server {
    fn phone(&self) -> anyhow::Result<Phone> {
        let trust = Trust::system_and(self.ca.as_deref())?;
        let login = match &self.username {
            None => None,
            Some(username) => Some(Login {
                username: username.clone(),
                password: secret::read(self.secret_file.as_deref(), SECRET, "server's password")?,
            }),
        };
        Ok(Phone::new(self.profile, self.server.clone(), login, trust)?)
    }
}

impl Output {
    fn give(&self, document: &Document) -> anyhow::Result<()> {
        let json = document.json();
        if let Some(path) = &self.out {
            write_file(path, json)?;
        }
        if self.json {
            write(json)?;
            return say("");
        }
        say(format!(
            "the backup opens: a document of {} bytes",
            json.len()
        ))
    }
}

fn open(key: &MasterKey, blob: Bytes) -> anyhow::Result<Document> {
    Ok(backup::open(
        SealedBackup::try_from(blob)?,
        &key.backup_key(),
        INFLATE_LIMIT,
    )?)
}

fn threema_id(text: &str) -> Result<ThreemaId, backup::ParseIdError> {
    text.to_ascii_uppercase().parse()
}

fn read_document(path: &Path) -> anyhow::Result<Document> {
    let json = read_bytes(path)?;
    let document = Document::from_json(json);
    document.map_err(|error| UsageError(format!("{}: {error}", path.display())).into())
}

fn read_bytes(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.with_context(|| format!("read {}", path.display()))?;
    Ok(bytes)
}

fn write_file(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    durable::replace(path, contents).with_context(|| format!("write {}", path.display()))
}
