//! Server in the process of its test.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;
use threema_safe_server::config::Listen;
use threema_safe_server::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::site::Site;
use super::wire::{Client, Protocol, Raw, basic, soon};

/// What a phone and an operator's scripts need to know of a running server.
impl TestServer {
    /// The address to type into an app.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/", self.address.port())
    }

    /// The secret of the phone account.
    pub(crate) fn phone_secret(&self) -> &str {
        self.site.phone_secret()
    }

    /// The secret of the operator account.
    pub(crate) fn operator_secret(&self) -> &str {
        self.site.operator_secret()
    }
}

/// A running server, in this process or in one of its own, as clients know it.
pub(crate) trait Listening {
    fn site(&self) -> &Site;

    fn address(&self) -> SocketAddr;

    /// The `Authorization` header of the phone account.
    fn phones(&self) -> String {
        basic(format!("phones:{}", self.site().phone_secret()))
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
    /// Runs a server that is bound, on this site.
    pub(super) fn run(site: Site, server: Server) -> Self {
        let address = server.addresses().unwrap().remove(0);
        let Listen::Tcp(address) = address else {
            panic!("tests listen on TCP first");
        };
        let admin = server.admin_address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            site,
            address,
            admin,
            stop,
            running,
        }
    }

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
        basic(format!("operator:{}", self.site.operator_secret()))
    }

    /// The `Authorization` header of the maintainer account.
    pub(crate) fn maintainer(&self) -> String {
        basic(format!("maintainer:{}", self.site.maintainer_secret()))
    }

    /// A client with the credentials of the phone account.
    pub(crate) async fn phone(&self, protocol: Protocol) -> Client {
        Client::connect(self, protocol, Some(self.phones())).await
    }

    /// A client with the credentials of the operator account.
    pub(crate) async fn operator_client(&self, protocol: Protocol) -> Client {
        Client::connect(self, protocol, Some(self.operator())).await
    }

    /// A client with the credentials of the maintainer account.
    pub(crate) async fn maintainer_client(&self, protocol: Protocol) -> Client {
        Client::connect(self, protocol, Some(self.maintainer())).await
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

    /// Waits until the work that a server begins with is done: from now on nothing changes by
    /// itself on disk.
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

/// What an admin listener answers, with its header.
pub(crate) async fn ask_admin(admin: SocketAddr, path: &str) -> String {
    ask_admin_with(admin, path, "").await
}

/// As [`ask_admin`], with more lines in the header of the request.
pub(crate) async fn ask_admin_with(admin: SocketAddr, path: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\n{more}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}
