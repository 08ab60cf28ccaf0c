//! Embedded server: runs a server inside another program, as an integration test of a client would,
//! with all files in a temporary directory, on a free port, over real TLS.
//!
//! ```sh
//! cargo run --example embed_server
//! ```
//!
//! The steps: certificate, account, configuration, [`Server::bind`], one upload and one download by
//! the library's own client, graceful shutdown.
#![expect(
    clippy::disallowed_methods,
    reason = "the caller of the library supplies the clock"
)]

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use threema_safe_server::account::{self, Account, FileError, Role, Secret};
use threema_safe_server::backup::{
    App, Contents, INFLATE_LIMIT, MasterKey, Nonce, Password, SealedBackup, ThreemaId, open, seal,
};
use threema_safe_server::client::{Login, Phone, Trust};
use threema_safe_server::config::{Config, Listen};
use threema_safe_server::durable;
use threema_safe_server::server::{Server, development_certificate};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// The configuration. Paths are relative to the directory of the configuration file, port 0 is any
/// free port, and every key that is missing has its default.
const CONFIG: &str = r#"{
    "listen": ["127.0.0.1:0"],
    "admin": { "listen": "127.0.0.1:0" },
    "tls": { "certificateFile": "fullchain.pem", "privateKeyFile": "privkey.pem" },
    "accountsFile": "accounts.json",
    "storage": { "files": { "directory": "data" } }
}"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let size = round_trip(directory.path()).await?;
    let line = format!("a backup of {size} bytes was uploaded, downloaded and opened\n");
    std::io::stdout().write_all(line.as_bytes())?;
    Ok(())
}

/// Starts a server in `directory`, uploads a backup, downloads it, compares, and stops the server.
/// Returns the size of the backup.
pub(crate) async fn round_trip(directory: &Path) -> anyhow::Result<usize> {
    // A certificate for `localhost`, and the authority that the client has to trust. `durable`
    // writes files with mode 0600: the server refuses a private key that others can read.
    let made = development_certificate(&["localhost".into()], SystemTime::now())?;
    let authority = directory.join("authority.pem");
    durable::replace(&authority, made.authority_pem.as_bytes())?;
    durable::replace(&directory.join("fullchain.pem"), made.chain_pem.as_bytes())?;
    durable::replace(
        &directory.join("privkey.pem"),
        made.private_key_pem.as_bytes(),
    )?;

    // An account. The file holds a hash of the secret; the secret itself goes to the client.
    let (secret, hash) = Secret::generate()?;
    account::update(&directory.join("accounts.json"), |accounts| {
        accounts.push(Account {
            name: "phones".parse().expect("the name is valid"),
            role: Role::Phone,
            disabled: false,
            secrets: vec![hash],
        });
        Ok::<_, FileError>(())
    })?;

    // `bind` opens everything that the configuration names and reports what cannot be used;
    // `run` serves until its argument completes.
    let config = Config::from_json(CONFIG.as_bytes(), &directory.join("config.json"))?;
    let server = Server::bind(&config, SystemTime::now).await?;
    let address = server
        .addresses()?
        .into_iter()
        .find_map(|listen| match listen {
            Listen::Tcp(address) => Some(address),
            Listen::Unix(_) => None,
        });
    let port = address.context("the server listens on TCP")?.port();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async { drop(stopped.await) }));

    // A client that sends the requests of the Android app.
    let login = Login {
        username: "phones".into(),
        password: Zeroizing::new(secret.reveal().into()),
    };
    let trust = Trust::system_and(Some(&authority))?;
    let url = format!("https://localhost:{port}/").parse()?;
    let phone = Phone::new(App::Android, url, Some(login), trust)?;

    // A backup with 25 made-up contacts, encrypted as an app does it.
    let identity = ThreemaId::random();
    let key = MasterKey::derive(&Password::from("correct horse battery staple"), &identity);
    let contents = Contents::sample(&identity, 25, App::Android, SystemTime::now());
    let document = contents.to_document();
    let sealed = seal(&document, &key.backup_key(), Nonce::random());

    phone.put(key.backup_id(), &sealed).await?;
    let downloaded = phone.get(key.backup_id()).await?;
    ensure!(
        downloaded == *sealed.as_bytes(),
        "the server returned other bytes"
    );
    let opened = open(
        SealedBackup::try_from(downloaded)?,
        &key.backup_key(),
        INFLATE_LIMIT,
    )?;
    ensure!(opened.json() == document.json(), "the document has changed");

    // Graceful shutdown: requests in progress end, then `run` returns.
    drop(stop);
    serving.await?;
    Ok(sealed.as_bytes().len())
}
