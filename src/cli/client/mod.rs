//! `client …`: commands for the backup format and for the requests of a phone.

mod access;
mod check;
mod input;
mod output;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::json;

use super::argument::RedactedErrors;
use super::runtime::{UsageError, block_on};
use super::secret;
use super::terminal::{say, warn};
use crate::backup::{self, App, Document, MasterKey, Nonce, Password, SealedBackup, ThreemaId};
use crate::client::{Phone, ServerUrl};

use self::access::Access;
use self::check::Check;
use self::input::{Input, read_bytes};
use self::output::{Output, check_target, write_file};

/// Environment variable with the password of the backup.
const PASSWORD: &str = "SAFE_CLIENT_PASSWORD";

#[derive(Debug, Subcommand)]
pub(super) enum Client {
    /// Derive the backup id from a Threema ID and a password
    Derive {
        #[command(flatten)]
        identity: Identity,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Encrypt a document and write it to a file
    Seal {
        #[command(flatten)]
        identity: Identity,
        #[command(flatten)]
        input: Input,
        /// The app that would write the sample: android or ios [default: android]
        #[arg(long = "as", value_name = "APP")]
        app: Option<App>,
        /// The file to write; an existing regular file is replaced
        #[arg(long, value_name = "BLOB")]
        out: PathBuf,
    },
    /// Decrypt a backup file
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
        #[command(flatten)]
        input: Input,
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
    /// Delete a backup, as the apps do when Safe is turned off
    Delete {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        identity: Identity,
    },
    /// Run an end-to-end test with a made-up backup, as both apps: config, put, get, compare,
    /// overwrite, get again, delete, gone
    Check(Check),
    /// Print the server's config, which the apps request before every backup
    Config {
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Debug, Args)]
pub(super) struct Identity {
    /// The Threema ID (converted to upper case, as in the apps)
    #[arg(long, value_name = "ID", value_parser = RedactedErrors(threema_id))]
    id: ThreemaId,
    /// A file with the password of the backup (- is standard input); one newline at its end is
    /// ignored. Without a file, the password is read from SAFE_CLIENT_PASSWORD or a prompt
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// A server, and the app to emulate.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// The server's address, as typed into the app
    #[arg(long, value_name = "URL", value_parser = RedactedErrors(ServerUrl::from_str))]
    server: ServerUrl,
    #[command(flatten)]
    access: Access,
    /// The app to emulate: android or ios
    #[arg(long = "as", value_name = "APP", default_value = "android")]
    app: App,
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
                input,
                app,
                out,
            } => {
                let files = [identity.file(), input.file()];
                one_standard_input(files)?;
                check_target(&out, &files)?;
                if app.is_some() && input.file().is_some() {
                    let text = "--as applies to --sample only; a document is sealed as it is";
                    return Err(UsageError(text.into()).into());
                }
                let document = input.document(&identity.id, app.unwrap_or(App::Android))?;
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
                let files = [identity.file(), Some(&*blob)];
                one_standard_input(files)?;
                output.check_target(&files)?;
                let blob = Bytes::from(std::mem::take(&mut *read_bytes(&blob)?));
                output.deliver(&identity.id, &identity.master_key()?, blob, None)?;
            }
            Self::Put {
                server,
                identity,
                input,
            } => {
                one_standard_input([identity.file(), server.file(), input.file()])?;
                let document = input.document(&identity.id, server.app)?;
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
                let files = [identity.file(), server.file()];
                one_standard_input(files)?;
                output.check_target(&files)?;
                let phone = server.phone()?;
                let key = identity.master_key()?;
                let (blob, config) = block_on(async {
                    let blob = phone.get(key.backup_id()).await?;
                    // The Android app requests the config after a restore, too.
                    Ok((blob, phone.config().await.ok()))
                })?;
                let limit = config.map(|config| config.max_backup_bytes);
                output.deliver(&identity.id, &key, blob, limit)?;
            }
            Self::Delete { server, identity } => {
                one_standard_input([identity.file(), server.file()])?;
                let phone = server.phone()?;
                let key = identity.master_key()?;
                block_on(async { Ok(phone.delete(key.backup_id()).await?) })?;
                say("deleted")?;
            }
            Self::Check(check) => return check.run(),
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
        let password = secret::read(self.file(), PASSWORD, "backup's password")?;
        Ok(self.master_key_from(&password))
    }

    fn master_key_from(&self, password: &str) -> MasterKey {
        let password = Password::from(password);
        for concern in password.concerns() {
            warn(&format!("warning: the backup's password: {concern}"));
        }
        MasterKey::derive(&password, &self.id)
    }

    fn seal(&self, document: &Document) -> anyhow::Result<(MasterKey, SealedBackup)> {
        let password = secret::read_new(self.file(), PASSWORD, "backup's password")?;
        let key = self.master_key_from(&password);
        let sealed = backup::seal(document, &key.backup_key(), Nonce::random());
        Ok((key, sealed))
    }

    fn file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }
}

impl Server {
    fn phone(&self) -> anyhow::Result<Phone> {
        let secret = self.access.secret()?;
        self.access.phone(self.app, &self.server, secret.as_ref())
    }

    fn file(&self) -> Option<&Path> {
        self.access.secret_file.as_deref()
    }
}

fn threema_id(text: &str) -> Result<ThreemaId, backup::ParseIdError> {
    text.to_ascii_uppercase().parse()
}

/// Checks that at most one of the files is standard input, which can be read only once.
fn one_standard_input<const N: usize>(files: [Option<&Path>; N]) -> anyhow::Result<()> {
    let standard_input = Some(Path::new("-"));
    if files.iter().filter(|file| **file == standard_input).count() > 1 {
        let text = "- is standard input and can be used only once";
        return Err(UsageError(text.into()).into());
    }
    Ok(())
}
