//! A server for each test.
//!
//! [`Site`] is what an operator has on disk, [`TestServer`] is a server running on it.

pub(crate) mod frames;
pub(crate) mod operator;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod stores;
pub(crate) mod strace;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use tempfile::TempDir;
use threema_safe_server::account::{self, Account, FileError, Role, Secret};
use threema_safe_server::config::{Config, Listen};
use threema_safe_server::server::{Server, StartError, development_certificate};
use threema_safe_server::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::wire::{Client, Protocol, Raw, basic, soon};

/// A backup's id.
pub(crate) const ID: &str = "066384d3695fbbd9f31a7d533900fd0cd8d1373beb6a28678522d2a49980c9c3";
/// Another backup's id.
pub(crate) const OTHER_ID: &str =
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

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
}

impl Site {
    /// A phone account `phones`, an operator account `operator`, a certificate for `localhost`, and any
    /// free ports.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificates(&folder.path().join("certs"));
        let accounts = folder.path().join("accounts.json");
        let site = Self {
            phones: add_account(&accounts, "phones", Role::Phone),
            operator: add_account(&accounts, "operator", Role::Operator),
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
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, contents);
        set_modified(&path, last_upload);
    }

    pub(crate) async fn bind(&self) -> Result<Server, StartError> {
        let text = fs::read(self.config_file()).unwrap();
        let config = Config::from_json(&text, &self.config_file()).unwrap();
        Server::bind(&config, self.clock).await
    }

    pub(crate) async fn start(self) -> TestServer {
        let server = self.bind().await.unwrap();
        self.run(server)
    }

    /// Starts a server over this store; what it remembers lies in the site's data directory all the same.
    pub(crate) async fn start_over(self, store: impl Store) -> TestServer {
        fs::create_dir_all(self.data().join("tmp")).unwrap();
        let store = Ok::<_, Infallible>(Arc::new(store) as Arc<dyn Store>);
        let text = fs::read(self.config_file()).unwrap();
        let config = Config::from_json(&text, &self.config_file()).unwrap();
        let server = Server::bind_over(&config, store, self.clock).await.unwrap();
        self.run(server)
    }

    fn run(self, server: Server) -> TestServer {
        let address = server.addresses().unwrap().remove(0);
        let Listen::Tcp(address) = address else {
            panic!("tests listen on TCP first");
        };
        let admin = server.admin_address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        TestServer {
            site: self,
            address,
            admin,
            stop,
            running,
        }
    }
}

/// What a phone and an operator's scripts need to know of a running server.
impl TestServer {
    /// The address to type into an app.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/", self.address.port())
    }

    /// The secret of the phone account.
    pub(crate) fn phone_secret(&self) -> &str {
        &self.site.phones
    }

    /// The secret of the operator account.
    pub(crate) fn operator_secret(&self) -> &str {
        &self.site.operator
    }
}

/// A running server, in this process or in one of its own, as clients know it.
pub(crate) trait Listening {
    fn site(&self) -> &Site;

    fn address(&self) -> SocketAddr;

    /// The `Authorization` header of the phone account.
    fn phones(&self) -> String {
        basic(format!("phones:{}", self.site().phones))
    }
}

impl Listening for TestServer {
    fn site(&self) -> &Site {
        &self.site
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A server that runs until the end of its test, or until it is stopped.
pub(crate) struct TestServer {
    site: Site,
    address: SocketAddr,
    admin: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Site::new().start().await
    }

    pub(crate) async fn start_with(changes: Value) -> Self {
        Site::new().with(changes).start().await
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The `Authorization` header of the phone account.
    pub(crate) fn phones(&self) -> String {
        Listening::phones(self)
    }

    /// The `Authorization` header of the operator account.
    pub(crate) fn operator(&self) -> String {
        basic(format!("operator:{}", self.site.operator))
    }

    /// A client with the credentials of the phone account.
    pub(crate) async fn phone(&self, protocol: Protocol) -> Client {
        Client::connect(self, protocol, Some(self.phones())).await
    }

    /// A client with the credentials of the operator account.
    pub(crate) async fn operator_client(&self, protocol: Protocol) -> Client {
        Client::connect(self, protocol, Some(self.operator())).await
    }

    /// A client that sends no credentials but those in the headers of a request.
    pub(crate) async fn stranger(&self, protocol: Protocol) -> Client {
        Client::connect(self, protocol, None).await
    }

    /// A connection for bytes.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(self, &[b"http/1.1"], rustls::ALL_VERSIONS)
            .await
            .unwrap()
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What the admin listener answers, with its header.
    pub(crate) async fn admin(&self, path: &str) -> String {
        ask_admin(self.admin, path).await
    }

    /// How many requests a limit or a quota has refused.
    pub(crate) async fn refused(&self, limit: &str) -> u64 {
        let metrics = self.admin("/metrics").await;
        let name = format!("safe_refused_total{{limit=\"{limit}\"}} ");
        let mut lines = metrics.lines();
        let number = lines.find_map(|line| line.strip_prefix(&name));
        number.unwrap().parse().unwrap()
    }

    /// Waits until the server knows what it stores.
    pub(crate) async fn swept(&self) {
        soon(async {
            while self.admin("/status.json").await.contains("\"sweep\":null") {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until the work that a server begins with is done: from now on nothing changes by itself on disk.
    pub(crate) async fn settled(&self) {
        let state = self.site.data().join("state.json");
        let is_done = || {
            let text = fs::read_to_string(&state).unwrap_or_default();
            ["\"lastSweep\"", "\"scrub\""]
                .iter()
                .all(|work| text.contains(work))
        };
        soon(async {
            while !is_done() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Tells the server to stop, without waiting for it.
    pub(crate) fn begin_stop(self) -> Stopping {
        self.stop.send(()).unwrap();
        Stopping {
            site: self.site,
            running: self.running,
        }
    }

    /// Stops the server, and gives back what it leaves on disk.
    pub(crate) async fn stop(self) -> Site {
        self.begin_stop().stopped().await
    }
}

/// What an admin listener answers, with its header.
pub(crate) async fn ask_admin(admin: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// A server that was told to stop.
pub(crate) struct Stopping {
    site: Site,
    running: JoinHandle<()>,
}

impl Stopping {
    pub(crate) async fn stopped(self) -> Site {
        soon(self.running).await.unwrap();
        self.site
    }
}

/// Everything in a folder, with contents and times: two that are equal mean that nothing was touched.
pub(crate) fn contents(folder: &Path) -> BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let modified = fs::metadata(&folder).unwrap().modified().unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let modified = entry.metadata().unwrap().modified().unwrap();
            let bytes = fs::read(entry.path()).unwrap();
            all.insert(entry.path(), (Some(bytes), modified));
        }
        all.insert(folder, (None, modified));
    }
    all
}

/// As [`contents`], of the files alone: what a command tries at its start leaves a trace in the folders' times.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let all = contents(folder).into_iter();
    all.filter_map(|(path, (bytes, time))| Some((path, bytes?, time)))
        .collect()
}

/// The names in a folder, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Writes a file; in a test nothing crashes in between.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file need not survive a crash"
)]
pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) {
    fs::write(path, contents).unwrap();
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

pub(crate) fn set_modified(path: &Path, time: SystemTime) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

/// The real clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where tests read the clock"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
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

/// Says loudly that something is not tested because a program is missing; with `REQUIRE_ALL_TESTS` in the
/// environment that is a failure.
pub(crate) fn skip_without_program(text: &str) {
    let required = std::env::var_os("REQUIRE_ALL_TESTS").is_some();
    assert!(!required, "REQUIRE_ALL_TESTS is set: {text}");
    skip(text);
}

/// Says loudly that something is not tested. Not by `eprintln`, which a test that passes swallows.
pub(crate) fn skip(text: &str) {
    writeln!(std::io::stderr().lock(), "\n*** SKIPPED: {text} ***\n").unwrap();
}
