//! Supervision: sockets that systemd hands over, and notifications of `sd_notify`.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::commands::PROGRAM;
use crate::support::process::{LoggingProcess, ServerProcess, serve};
use crate::support::wire::{Client, FAIL_SAFE, Protocol, soon};
use crate::support::{Listening, Site, make_fifo};

/// Hands over its standard input as the first socket, as sd_listen_fds(3) describes it, and becomes
/// the server.
const HAND_OVER: &str = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";

fn start_on(socket: impl Into<OwnedFd>, name: &str, site: Site) -> ServerProcess {
    let names = format!("LISTEN_FDNAMES={name}");
    let words = [
        "/usr/bin/env",
        &names,
        "/bin/sh",
        "-c",
        HAND_OVER,
        "sh",
        PROGRAM,
    ];
    ServerProcess::start_by(&words, Stdio::from(socket.into()), site)
}

struct At<'a> {
    address: SocketAddr,
    site: &'a Site,
}

impl Listening for At<'_> {
    fn site(&self) -> &Site {
        self.site
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

#[tokio::test]
async fn a_server_replaces_another_and_no_client_is_refused() {
    let sockets = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).unwrap());
    for socket in sockets {
        let address = socket.local_addr().unwrap();
        let mut server = start_on(socket.try_clone().unwrap(), "", Site::new());
        assert_eq!(server.address(), address);
        let phones = server.phones();
        let folder = server.site().folder().to_owned();
        let is_over = Arc::new(AtomicBool::new(false));
        // The site moves from one server to the next; its authority is all that a client needs of
        // it.
        let authority = Site::new();
        fs::copy(
            folder.join("certs/ca.pem"),
            authority.folder().join("certs/ca.pem"),
        )
        .unwrap();
        let client = tokio::spawn({
            let is_over = Arc::clone(&is_over);
            async move {
                let at = At {
                    address,
                    site: &authority,
                };
                let mut served = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let login = Some(phones.clone());
                    let mut phone = Client::connect(&at, Protocol::Http1, login).await;
                    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
                    served += 1;
                }
                served
            }
        });
        for _ in 0..2 {
            let before = server;
            let (log, site) = tokio::task::spawn_blocking(move || before.stop())
                .await
                .unwrap();
            assert!(log.contains("graceful shutdown started"), "{log}");
            let again = socket.try_clone().unwrap();
            server = tokio::task::spawn_blocking(move || start_on(again, "", site))
                .await
                .unwrap();
        }
        is_over.store(true, Ordering::Relaxed);

        let served: u32 = soon(client).await.unwrap();

        assert!(served > 0);
        assert_eq!(
            server
                .phone(Protocol::Http2)
                .await
                .ask("GET", "/config", &[])
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn a_unix_socket_and_that_of_the_admin_listener_can_be_handed_over() {
    let site = Site::new().with(json!({ "tls": "off" }));
    let path = site.folder().join("given.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let server = start_on(socket, "", site);
    let authorization = server.phones();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let request = format!(
        "GET /config HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let (_, site) = server.stop();
    assert!(path.exists(), "it belongs to the process that made it");

    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = admin.local_addr().unwrap();
    let server = start_on(admin, "admin", site);
    assert_eq!(server.admin_address(), address);
}

#[tokio::test]
async fn the_supervisor_is_told_how_the_server_is() {
    let site = Site::new();
    let path = site.folder().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(FAIL_SAFE)).unwrap();
    let told = {
        let supervisor = supervisor.try_clone().unwrap();
        move || {
            let mut bytes = [0; 4_096];
            let length = supervisor.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
        }
    };
    let notify = format!("NOTIFY_SOCKET={}", path.display());
    let words = ["/usr/bin/env", &notify, "WATCHDOG_USEC=20000"];
    let server = ServerProcess::start_under(&words, site);

    assert_eq!(told(), "READY=1");
    for _ in 0..5 {
        assert_eq!(told(), "WATCHDOG=1");
    }
    let next = || {
        let mut lines = std::iter::from_fn(|| Some(told()));
        lines.find(|line| line != "WATCHDOG=1").unwrap()
    };
    server.signal(Signal::HUP);
    let reloading = next();
    let (first, time) = reloading.split_once('\n').unwrap();
    assert_eq!(first, "RELOADING=1");
    assert!(time.starts_with("MONOTONIC_USEC="), "{time}");
    assert_eq!(next(), "READY=1");
    server.stop();
    assert_eq!(next(), "STOPPING=1");
}

#[test]
fn a_unix_socket_that_is_open_to_all_users_is_refused() {
    let site = Site::new();
    let path = site.folder().join("given.sock");
    let socket = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let words = ["/bin/sh", "-c", HAND_OVER, "sh", PROGRAM];
    let mut command = serve(&words, &site);
    let process = LoggingProcess::spawn(command.stdin(Stdio::from(OwnedFd::from(socket))));

    // A server that is not refused goes on, and the wait for its end fails.
    let (code, said) = process.ended();

    assert_eq!(code, Some(1), "{said:#?}");
    assert!(
        said.iter().any(|line| line.contains("set SocketMode=0660")),
        "{said:#?}"
    );
}

#[tokio::test]
async fn a_private_key_that_systemd_hands_over_is_used() {
    let site = Site::new();
    let credentials = site.folder().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let key = credentials.join("privkey.pem");
    fs::rename(site.folder().join("certs/privkey.pem"), &key).unwrap();
    // As systemd.exec(5) describes what LoadCredential= makes.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o500)).unwrap();
    let unit = include_str!("../../../docs/systemd/threema-safe-server.service");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("# Environment="));
    let variable = line.unwrap().replace("%d", credentials.to_str().unwrap());
    let server = ServerProcess::start_under(&["/usr/bin/env", &variable], site);
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
}

#[test]
fn a_server_that_is_told_to_read_again_while_it_starts_goes_on() {
    let site = Site::new();
    let accounts = site.accounts_file();
    let text = fs::read(&accounts).unwrap();
    fs::remove_file(&accounts).unwrap();
    make_fifo(&accounts);
    let mut process = LoggingProcess::spawn(&mut serve(&[PROGRAM], &site));
    // Opened when the server opens it to read: in the middle of its start.
    let mut pipe = fs::OpenOptions::new().write(true).open(&accounts).unwrap();
    process.signal(Signal::HUP);
    // In the pipe's place, for the reload.
    let beside = accounts.with_extension("new");
    fs::write(&beside, &text).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(beside, &accounts).unwrap();
    pipe.write_all(&text).unwrap();
    drop(pipe);

    process.listening();
}

#[tokio::test]
async fn as_many_files_as_may_be_are_open_and_too_few_are_said() {
    let words = ["/bin/sh", "-c", "ulimit -Sn 300; exec \"$@\"", "sh"];
    let server = ServerProcess::start_under(&words, Site::new());
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let figures: Vec<_> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(figures[0], figures[1], "{files}");
    drop(server);

    let words = ["/bin/sh", "-c", "ulimit -n 600; exec \"$@\"", "sh"];
    let server = ServerProcess::start_under(&words, Site::new());
    let (log, _) = server.stop();
    let warned = |line: &str| line.contains("WARN") && line.contains("open file limit too low");
    assert!(log.lines().any(warned), "{log}");
}

#[tokio::test]
async fn a_supervisor_that_does_not_listen_does_not_block_the_server() {
    let site = Site::new();
    let path = site.folder().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    let notify = format!("NOTIFY_SOCKET={}", path.display());
    let words = ["/usr/bin/env", &notify, "WATCHDOG_USEC=2000"];
    let mut server = ServerProcess::start_under(&words, site);
    // So much that nothing more goes in.
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"full", &path).is_ok() {}

    server.signal(Signal::HUP);
    server.log_through(|line| line.contains("configuration reloaded"));
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    server.stop();
    drop(supervisor);
}
