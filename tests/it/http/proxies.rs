//! Behind nginx, Apache and HAProxy: a phone is served, and what one client does is counted against it alone.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use serde_json::{Value, json};
use threema_safe_server::config::Config;
use threema_safe_server::server::{Severity, check};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::support::process::ServerProcess;
use crate::support::wire::{Client, Protocol, basic, soon};
use crate::support::{Listening, Site, TestServer, backup_path, skip_without_program};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const THIRD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// A proxy in front of a server, in a process of its own; killed when dropped. Clients take it for the server.
struct Proxy<'a> {
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
    /// Starts a proxy by the configuration that `configure` writes for its port; `None` where it is not installed.
    async fn start(
        server: &'a TestServer,
        program: &str,
        arguments: &[&str],
        configure: impl Fn(u16, &Path) -> String,
    ) -> Option<Self> {
        if !Path::new(program).exists() {
            skip_without_program(&format!(
                "{program} is not installed, so nothing was tested behind it"
            ));
            return None;
        }
        // Somebody may take the port before the proxy does: then it ends, and another one is tried.
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
                return Some(proxy);
            }
        }
        let log = fs::read_to_string(server.site().folder().join("proxy.log"));
        panic!("{program} does not start: {log:?}");
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
    async fn nginx(server: &'a TestServer) -> Option<Self> {
        let arguments = ["-e", "stderr", "-c"];
        Self::start(server, "/usr/sbin/nginx", &arguments, |port, folder| {
            // As root, its workers would be somebody else, to whom the socket is not open.
            let user = if rustix::process::geteuid().is_root() {
                "user root;"
            } else {
                ""
            };
            let host = documented("nginx", port, folder)
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
    async fn apache(server: &'a TestServer) -> Option<Self> {
        let arguments = ["-D", "FOREGROUND", "-f"];
        Self::start(server, "/usr/sbin/apache2", &arguments, |port, folder| {
            let host = documented("apache", port, folder)
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
    async fn haproxy(server: &'a TestServer, header: &str) -> Option<Self> {
        Self::start(
            server,
            "/usr/sbin/haproxy",
            &["-q", "-f"],
            |port, folder| {
                documented("haproxy", port, folder)
                    .replace("127.0.0.1:8443", &server.address().to_string())
                    .replace("send-proxy-v2", header)
            },
        )
        .await
    }

    async fn client(&self, from: Ipv4Addr, protocol: Protocol, authorization: &str) -> Client {
        Client::connect_from(from, self, protocol, Some(authorization.into())).await
    }

    /// Does what a phone does, and makes sure that one client's guesses are nobody else's.
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
    let documentation = include_str!("../../../docs/PROXIES.md");
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

#[tokio::test]
async fn behind_nginx_and_a_unix_socket_clients_are_told_apart() {
    let site = strict(json!({ "tls": "off", "listen": ["127.0.0.1:0", "unix:safe.sock"] }));
    let server = site.start().await;
    let Some(proxy) = Proxy::nginx(&server).await else {
        return;
    };
    proxy.serves_and_tells_clients_apart(Protocol::Http2).await;
}

#[tokio::test]
async fn behind_apache_and_plain_http_clients_are_told_apart() {
    let server = strict(json!({ "tls": "off", "trustedProxies": ["127.0.0.1"] }))
        .start()
        .await;
    let Some(proxy) = Proxy::apache(&server).await else {
        return;
    };
    proxy.serves_and_tells_clients_apart(Protocol::Http1).await;
}

#[tokio::test]
async fn behind_haproxy_tls_goes_through_and_clients_are_told_apart() {
    for (header, protocol) in [
        ("send-proxy", Protocol::Http1),
        ("send-proxy-v2", Protocol::Http2),
    ] {
        let proxies = json!({ "trustedProxies": ["127.0.0.1/32"], "proxyProtocol": true });
        let server = strict(proxies).start().await;
        let Some(proxy) = Proxy::haproxy(&server, header).await else {
            return;
        };
        proxy.serves_and_tells_clients_apart(protocol).await;

        // Whoever is not the proxy needs no such header, and what looks like one is no TLS.
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

/// Waits until the server ends the connection, and makes sure that it said nothing but an alert of TLS.
async fn assert_ended_without_http(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // It may end with an error as well: what was sent was not all read.
    drop(soon(stream.read_to_end(&mut rest)).await);
    assert!(rest.is_empty() || rest.starts_with(&[0x15]), "{rest:?}");
}

#[tokio::test]
async fn what_a_peer_that_is_no_proxy_writes_about_itself_is_just_a_header() {
    let server = strict(json!({ "trustedProxies": ["192.0.2.0/24"] }))
        .start()
        .await;
    let wrong = basic("phones:wrong");
    let mut guesser =
        Client::connect_from(HERE, &server, Protocol::Http1, Some(wrong.clone())).await;
    let mut statuses = Vec::new();
    for claim in ["198.51.100.1", "198.51.100.2", "198.51.100.3"] {
        let forwarded = format!("for={claim}");
        let headers = [("x-forwarded-for", claim), ("forwarded", &forwarded)];
        statuses.push(guesser.ask("GET", "/config", &headers).await.status);
    }
    assert_eq!(statuses, [401, 401, 429]);
    let mut phone = server.phone(Protocol::Http1).await;
    let headers = [("x-forwarded-for", "nonsense")];
    assert_eq!(phone.ask("GET", "/config", &headers).await.status, 200);
}

#[tokio::test]
async fn a_proxy_has_all_connections_and_through_it_each_client_its_own() {
    let site = Site::new().with(json!({
        "trustedProxies": ["127.0.0.1"], "proxyProtocol": true, "limits": { "connectionsPerAddress": 1 },
    }));
    let server = site.start().await;
    let Some(proxy) = Proxy::haproxy(&server, "send-proxy-v2").await else {
        return;
    };
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

#[tokio::test]
async fn a_unix_socket_is_open_to_a_group_and_goes_with_its_server() {
    let site = Site::new().with(json!({ "listen": ["127.0.0.1:0", "unix:safe.sock"] }));
    let socket = site.folder().join("safe.sock");
    // A server that was killed left it.
    drop(UnixListener::bind(&socket).unwrap());
    let server = site.start().await;

    let found = fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    assert!(UnixStream::connect(&socket).await.is_ok());
    let site = server.stop().await;
    assert!(!socket.exists());

    // What is no socket, or has a listener, is not touched.
    fs::write(&socket, "mine").unwrap();
    let refused = site.bind().await.err().unwrap().to_string();
    assert_eq!(
        refused,
        format!("listen: cannot listen on unix:{}", socket.display())
    );
    assert_eq!(fs::read_to_string(&socket).unwrap(), "mine");
    fs::remove_file(&socket).unwrap();
    let taken = UnixListener::bind(&socket).unwrap();
    assert!(site.bind().await.is_err());
    drop(taken);
    drop(site.bind().await.unwrap());
    assert!(!socket.exists());
}

#[tokio::test]
async fn check_looks_at_a_socket_and_says_what_it_does_not_see() {
    let site = Site::new().with(json!({ "tls": "off", "listen": ["unix:safe.sock"] }));
    let found = |site: &Site, place: &str| {
        let config = Config::load(Some(&site.config_file()), []).unwrap();
        let findings = check(&config, SystemTime::now());
        let mut findings = findings
            .into_iter()
            .filter(|finding| finding.place == place);
        let finding = findings.next().unwrap();
        (finding.severity, finding.text)
    };
    let (severity, text) = found(&site, "tls");
    assert!(
        text.contains("a proxy in front has the certificate"),
        "{text}"
    );
    assert_eq!(severity, Severity::Good);
    assert_eq!(found(&site, "listen").0, Severity::Good);

    let socket = site.folder().join("safe.sock");
    let taken = UnixListener::bind(&socket).unwrap();
    assert_eq!(found(&site, "listen").0, Severity::Warning);
    drop(taken);
    assert_eq!(found(&site, "listen").0, Severity::Good);
    let site = site.with(json!({ "listen": ["unix:nowhere/safe.sock"] }));
    let (severity, text) = found(&site, "listen");
    assert!(
        text.ends_with("nowhere is missing or cannot be written to"),
        "{text}"
    );
    assert_eq!(severity, Severity::Error);
}

#[tokio::test]
async fn traffic_from_one_address_alone_is_said_once() {
    let mut server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http1).await;
    for _ in 0..1_100 {
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    }
    let (log, _) = {
        server.log_through(|line| line.contains("requests since the start came from one address"));
        server.stop()
    };
    assert_eq!(log.matches("came from one address").count(), 1);
}

#[tokio::test]
async fn a_trusted_proxy_that_names_nobody_is_said_once() {
    let proxies = json!({ "trustedProxies": ["127.0.0.1"] });
    let mut server = ServerProcess::start(Site::new().with(proxies));
    let mut phone = server.phone(Protocol::Http1).await;
    for _ in 0..1_100 {
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    }
    server.log_through(|line| line.contains("does not say who its clients are"));
    let (log, _) = server.stop();
    assert_eq!(log.matches("requests since the start came from").count(), 1);
}
