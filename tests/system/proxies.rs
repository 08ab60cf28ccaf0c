//! nginx, Apache and HAProxy in front of a server: a phone is served, and what one client does is
//! counted against it alone.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::needs::path_of;
use crate::support::wire::{Client, Protocol, basic, soon};
use crate::support::{Listening, Site, TestServer, backup_path};

tests! {
    behind_nginx_and_a_unix_socket_clients_are_told_apart: tokio [NGINX];
    behind_apache_and_plain_http_clients_are_told_apart: tokio [APACHE];
    behind_haproxy_tls_goes_through_and_clients_are_told_apart: tokio [HAPROXY];
    a_proxy_has_all_connections_and_through_it_each_client_its_own: tokio [HAPROXY];
}

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const THIRD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// A proxy in front of a server, in a process of its own; killed when dropped. Clients take it for
/// the server.
pub(crate) struct Proxy<'a> {
    child: Child,
    address: SocketAddr,
    server: &'a TestServer,
}

impl Listening for Proxy<'_> {
    fn site(&self) -> &Site {
        self.server.site()
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl<'a> Proxy<'a> {
    /// The server behind it.
    pub(crate) fn server(&self) -> &'a TestServer {
        self.server
    }

    /// Starts a proxy by the configuration that `configure` writes for its port.
    pub(crate) async fn start(
        server: &'a TestServer,
        program: &str,
        arguments: &[&str],
        configure: impl Fn(u16, &Path) -> String,
    ) -> Self {
        let program = &path_of(program).unwrap();
        // Another process may take the port before the proxy does: then it ends, and another port
        // is tried.
        for _ in 0..5 {
            let port = TcpListener::bind((HERE, 0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let folder = server.site().folder();
            let file = folder.join("proxy.conf");
            fs::write(&file, configure(port, folder)).unwrap();
            let log = fs::File::create(folder.join("proxy.log")).unwrap();
            let child = Command::new(program)
                .args(arguments)
                .arg(&file)
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            let address = (HERE, port).into();
            let mut proxy = Self {
                child,
                address,
                server,
            };
            if soon(proxy.listens()).await {
                return proxy;
            }
        }
        let log = fs::read_to_string(server.site().folder().join("proxy.log"));
        panic!("{} does not start: {log:?}", program.display());
    }

    /// Waits until it does or has ended.
    async fn listens(&mut self) -> bool {
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(self.address).await.is_ok() {
                return true;
            }
            tokio::task::yield_now().await;
        }
    }

    /// nginx as the documentation has it.
    pub(crate) async fn nginx(server: &'a TestServer) -> Self {
        Self::nginx_with(server, |host| host).await
    }

    /// nginx with a changed configuration of its host.
    pub(crate) async fn nginx_with(
        server: &'a TestServer,
        change: impl Fn(String) -> String,
    ) -> Self {
        let arguments = ["-e", "stderr", "-c"];
        Self::start(server, "nginx", &arguments, |port, folder| {
            // Started as root, its workers would be of another user, for which the socket is not
            // open.
            let user = if rustix::process::geteuid().is_root() {
                "user root;"
            } else {
                ""
            };
            let host = change(documented("nginx", port, folder))
                .replace("/run/threema-safe-server", folder.to_str().unwrap());
            let folder = folder.display();
            format!(
                "{user} daemon off; pid {folder}/nginx.pid; worker_processes 1;
                events {{ }}
                http {{
                    access_log off;
                    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
                    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
                    {host}
                }}"
            )
        })
        .await
    }

    /// Apache as the documentation has it.
    pub(crate) async fn apache(server: &'a TestServer) -> Self {
        Self::apache_with(server, |host| host).await
    }

    /// Apache with a changed configuration of its host.
    pub(crate) async fn apache_with(
        server: &'a TestServer,
        change: impl Fn(String) -> String,
    ) -> Self {
        let arguments = ["-D", "FOREGROUND", "-f"];
        Self::start(server, "apache2", &arguments, |port, folder| {
            let host = change(documented("apache", port, folder))
                .replace("127.0.0.1:8080", &server.address().to_string());
            let folder = folder.display();
            let modules: String = [
                "mpm_event",
                "authz_core",
                "headers",
                "proxy",
                "proxy_http",
                "socache_shmcb",
                "ssl",
            ]
            .map(|name| {
                format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
            })
            .concat();
            format!(
                "{modules}
                ServerRoot {folder}
                PidFile {folder}/apache.pid
                DefaultRuntimeDir {folder}
                ErrorLog {folder}/proxy.log
                Listen 127.0.0.1:{port}
                {host}"
            )
        })
        .await
    }

    /// HAProxy as the documentation has it, with this version of the PROXY protocol.
    pub(crate) async fn haproxy(server: &'a TestServer, header: &str) -> Self {
        Self::start(server, "haproxy", &["-q", "-f"], |port, folder| {
            documented("haproxy", port, folder)
                .replace("127.0.0.1:8443", &server.address().to_string())
                .replace("send-proxy-v2", header)
        })
        .await
    }

    async fn client(&self, from: Ipv4Addr, protocol: Protocol, authorization: &str) -> Client {
        Client::connect_from(from, self, protocol, Some(authorization.into())).await
    }

    /// Does what a phone does, and makes sure that one client's guesses are not charged to another.
    async fn serves_and_tells_clients_apart(&self, protocol: Protocol) {
        let mut phone = self.client(HERE, protocol, &self.phones()).await;
        let backup = vec![0x5a; 300_000];
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
        assert_eq!(
            phone
                .send("PUT", &backup_path(), &[], backup.clone())
                .await
                .status,
            201
        );
        let restored = phone.ask("GET", &backup_path(), &[]).await;
        assert_eq!((restored.status, restored.body.to_vec()), (200, backup));
        assert_eq!(phone.ask("DELETE", &backup_path(), &[]).await.status, 204);
        assert_eq!(phone.ask("GET", &backup_path(), &[]).await.status, 404);

        let wrong = basic("phones:wrong");
        for from in [ELSEWHERE, THIRD] {
            let mut guesser = self.client(from, protocol, &wrong).await;
            let mut statuses = Vec::new();
            for claim in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
                // What a client writes there itself is not what the proxy says.
                let headers = [("x-forwarded-for", claim)];
                statuses.push(guesser.ask("GET", "/config", &headers).await.status);
            }
            assert_eq!(statuses, [401, 401, 429], "{from}");
        }
        let mut other = self.client(HERE, protocol, &wrong).await;
        assert_eq!(other.ask("GET", "/config", &[]).await.status, 401);
    }
}

impl Drop for Proxy<'_> {
    fn drop(&mut self) {
        // SIGTERM, so that the processes of its own that it has started end too.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        drop(self.child.wait());
    }
}

/// What the documentation says of this proxy, for a port and the certificate of a test.
fn documented(proxy: &str, port: u16, folder: &Path) -> String {
    let documentation = include_str!("../../docs/PROXIES.md");
    let fence = format!("```{proxy}\n");
    let (_, block) = documentation.split_once(&fence).unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let certificates = folder.join("certs");
    block
        .replace("/etc/ssl/safe", certificates.to_str().unwrap())
        .replace("*:443", &format!("127.0.0.1:{port}"))
        .replace("bind :443", &format!("bind 127.0.0.1:{port}"))
        .replace("listen 443", &format!("listen 127.0.0.1:{port}"))
}

/// Two wrong passwords an hour from one address.
fn strict(more: Value) -> Site {
    let limits = json!({ "limits": {
        "wrongPasswordsPerAddressAndHour": 2,
        "wrongPasswordDelaySeconds": 0,
    } });
    Site::new().with(limits).with(more)
}

async fn behind_nginx_and_a_unix_socket_clients_are_told_apart() {
    let site = strict(json!({ "tls": "off", "listen": ["127.0.0.1:0", "unix:safe.sock"] }));
    let server = site.start().await;
    let proxy = Proxy::nginx(&server).await;
    proxy.serves_and_tells_clients_apart(Protocol::Http2).await;
}

async fn behind_apache_and_plain_http_clients_are_told_apart() {
    let server = strict(json!({ "tls": "off", "trustedProxies": ["127.0.0.1"] }))
        .start()
        .await;
    let proxy = Proxy::apache(&server).await;
    proxy.serves_and_tells_clients_apart(Protocol::Http1).await;
}

async fn behind_haproxy_tls_goes_through_and_clients_are_told_apart() {
    for (header, protocol) in [
        ("send-proxy", Protocol::Http1),
        ("send-proxy-v2", Protocol::Http2),
    ] {
        let proxies = json!({ "trustedProxies": ["127.0.0.1/32"], "proxyProtocol": true });
        let server = strict(proxies).start().await;
        let proxy = Proxy::haproxy(&server, header).await;
        proxy.serves_and_tells_clients_apart(protocol).await;

        // A client that is no proxy needs no such header, and what looks like one is no TLS.
        let mut direct =
            Client::connect_from(ELSEWHERE, &server, protocol, Some(server.phones())).await;
        assert_eq!(direct.ask("GET", "/config", &[]).await.status, 200);
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((ELSEWHERE, 0).into()).unwrap();
        let mut stream = socket.connect(server.address()).await.unwrap();
        stream
            .write_all(b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n")
            .await
            .unwrap();
        assert_ended_without_http(&mut stream).await;
        // And the proxy is not heard without it.
        let mut stream = server.tcp().await;
        stream
            .write_all(b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        assert_ended_without_http(&mut stream).await;
    }
}

/// Waits until the server ends the connection, and makes sure that it said nothing but an alert of
/// TLS.
async fn assert_ended_without_http(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // It may end with an error as well: what was sent was not all read.
    drop(soon(stream.read_to_end(&mut rest)).await);
    assert!(rest.is_empty() || rest.starts_with(&[0x15]), "{rest:?}");
}

async fn a_proxy_has_all_connections_and_through_it_each_client_its_own() {
    let site = Site::new().with(json!({
        "trustedProxies": ["127.0.0.1"], "proxyProtocol": true, "limits": { "connectionsPerAddress": 1 },
    }));
    let server = site.start().await;
    let proxy = Proxy::haproxy(&server, "send-proxy-v2").await;
    let phones = server.phones();
    let mut clients = Vec::new();
    for from in [HERE, ELSEWHERE, THIRD] {
        let mut client = proxy.client(from, Protocol::Http1, &phones).await;
        assert_eq!(client.ask("GET", "/config", &[]).await.status, 200);
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.ask("GET", "/config", &[]).await.status, 200);
    }
    assert_eq!(server.refused("connections_per_address").await, 0);

    let mut second = proxy.client(THIRD, Protocol::Http1, &phones).await;
    assert_eq!(second.ask("GET", "/config", &[]).await.status, 200);

    assert_eq!(server.refused("connections_per_address").await, 1);
    for client in &mut clients[..2] {
        assert_eq!(client.ask("GET", "/config", &[]).await.status, 200);
    }
}
