//! Site of a server: configuration, accounts, certificates and data directory, as an operator has
//! them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use tempfile::TempDir;
use threema_safe_server::account::{self, Account, FileError, Role, Secret};
use threema_safe_server::config::Config;
use threema_safe_server::server::{Server, StartError, development_certificate};
use threema_safe_server::state::{State, StateFile};
use threema_safe_server::store::{Opened, Store};

use super::files::{create_private, now, set_mode, set_modified, write};
use super::server::TestServer;

/// A backup's id.
pub(crate) const ID: &str = "066384d3695fbbd9f31a7d533900fd0cd8d1373beb6a28678522d2a49980c9c3";
/// Another backup's id.
pub(crate) const OTHER_ID: &str =
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

/// One of many backup ids.
pub(crate) fn digits(number: usize) -> String {
    format!("{number:064x}")
}

/// The path of the backup [`ID`].
pub(crate) fn backup_path() -> String {
    format!("/backups/{ID}")
}

/// What an operator has on disk: certificates, accounts, the configuration, the data directory.
pub(crate) struct Site {
    folder: TempDir,
    config: Value,
    clock: fn() -> SystemTime,
    phones: String,
    operator: String,
    maintainer: String,
}

impl Site {
    /// An account of each role, `phones`, `operator` and `maintainer`, a certificate for
    /// `localhost`, and any free ports.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificates(&folder.path().join("certs"));
        let accounts = folder.path().join("accounts.json");
        let site = Self {
            phones: add_account(&accounts, "phones", Role::Phone),
            operator: add_account(&accounts, "operator", Role::Operator),
            maintainer: add_account(&accounts, "maintainer", Role::Maintainer),
            config: json!({
                "listen": ["127.0.0.1:0"],
                "tls": { "certificateFile": "certs/fullchain.pem", "privateKeyFile": "certs/privkey.pem" },
                "accountsFile": "accounts.json",
                "storage": { "files": { "directory": "data" } },
                "admin": { "listen": "127.0.0.1:0" },
            }),
            clock: now,
            folder,
        };
        site.with(json!({}))
    }

    /// Changes keys of the configuration; objects are merged, everything else is replaced.
    pub(crate) fn with(mut self, changes: Value) -> Self {
        merge(&mut self.config, changes);
        write(&self.config_file(), self.config.to_string());
        self
    }

    /// The server's clock; the real one where none is set.
    pub(crate) fn clock(mut self, clock: fn() -> SystemTime) -> Self {
        self.clock = clock;
        self
    }

    /// The secret of the phone account.
    pub(crate) fn phone_secret(&self) -> &str {
        &self.phones
    }

    /// The secret of the operator account.
    pub(crate) fn operator_secret(&self) -> &str {
        &self.operator
    }

    /// The secret of the maintainer account.
    pub(crate) fn maintainer_secret(&self) -> &str {
        &self.maintainer
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder().join("config.json")
    }

    pub(crate) fn accounts_file(&self) -> PathBuf {
        self.folder().join("accounts.json")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// The file in which a backup lies.
    pub(crate) fn backup_file(&self, id: &str) -> PathBuf {
        self.data().join("backups").join(id)
    }

    /// Puts a file where a backup would be, as if it had been uploaded long ago.
    pub(crate) fn place_backup(&self, id: &str, contents: &[u8], last_upload: SystemTime) {
        let path = self.backup_file(id);
        create_private(path.parent().unwrap());
        write(&path, contents);
        set_modified(&path, last_upload);
    }

    /// Remembers this time, as if a server had swept then for the last time.
    pub(crate) fn swept_at(&self, time: SystemTime) {
        fs::create_dir_all(self.data().join("tmp")).unwrap();
        let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let state = StateFile::in_directory(&self.data());
        let change = |state: &mut State| state.highest_time = Some(time.as_secs());
        state.update(change).unwrap();
    }

    fn parsed(&self) -> Config {
        let text = fs::read(self.config_file()).unwrap();
        Config::from_json(&text, &self.config_file()).unwrap()
    }

    pub(crate) async fn bind(&self) -> Result<Server, StartError> {
        Server::bind(&self.parsed(), self.clock).await
    }

    pub(crate) async fn start(self) -> TestServer {
        let server = self.bind().await.unwrap();
        TestServer::run(self, server)
    }

    /// Starts a server over this store; what it remembers lies in the site's data directory all the
    /// same.
    pub(crate) async fn start_over(self, store: impl Store) -> TestServer {
        create_private(&self.data().join("tmp"));
        let state = StateFile::in_directory(&self.data());
        let opened = Opened {
            store: Arc::new(store),
            state: Arc::new(state),
        };
        self.start_opened(opened).await
    }

    /// Starts a server over a storage that is open already.
    pub(crate) async fn start_opened(self, opened: Opened) -> TestServer {
        let server = Server::bind_over(&self.parsed(), opened, self.clock).await;
        TestServer::run(self, server.unwrap())
    }
}

/// Adds an account with a generated secret, and returns the secret.
pub(crate) fn add_account(file: &Path, name: &str, role: Role) -> String {
    let (text, secret) = Secret::generate().unwrap();
    add_account_with(file, name, role, secret);
    text.reveal().to_owned()
}

pub(crate) fn add_account_with(file: &Path, name: &str, role: Role, secret: Secret) {
    account::update(file, |accounts| {
        accounts.push(Account {
            name: name.parse().unwrap(),
            role,
            disabled: false,
            secrets: vec![secret],
        });
        Ok::<_, FileError>(())
    })
    .unwrap();
}

/// Writes `ca.pem`, and a chain and key for `localhost` that it signed.
pub(crate) fn write_certificates(folder: &Path) {
    let names = ["localhost".into(), "127.0.0.1".into()];
    let made = development_certificate(&names, now()).unwrap();
    fs::create_dir_all(folder).unwrap();
    write(&folder.join("ca.pem"), made.authority_pem);
    write(&folder.join("fullchain.pem"), made.chain_pem);
    let key = folder.join("privkey.pem");
    write(&key, made.private_key_pem);
    set_mode(&key, 0o600);
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, changes) => *into = changes,
    }
}
