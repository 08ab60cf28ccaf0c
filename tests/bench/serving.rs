//! Shared code of the benchmarks: the server as a process, and a client that requests `config`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

/// The server's binary.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_threema-safe-server");

/// Creates an installation; returns the value of the phone account's `Authorization` header.
pub(crate) fn prepare(folder: &Path) -> String {
    let output = Command::new(PROGRAM)
        .args(["init", "--yes", "--listen", "127.0.0.1:0"])
        .current_dir(folder)
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let secret = stdout
        .lines()
        .find_map(|line| line.trim().strip_prefix("Password   "))
        .unwrap();
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace("127.0.0.1:9180", "127.0.0.1:0");
    threema_safe_server::durable::replace(&path, text.as_bytes()).unwrap();
    use base64::Engine;
    format!(
        "Basic {}",
        base64::prelude::BASE64_STANDARD.encode(format!("phones:{secret}"))
    )
}

/// TLS configuration that trusts the development CA, without session resumption.
pub(crate) fn client_config(folder: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(folder.join("certs/development-ca.pem")).unwrap();
    roots.add(authority).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// A `GET config` request that closes the connection.
pub(crate) fn request(credentials: &str) -> String {
    format!(
        "GET /config HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Threema\r\nAuthorization: {credentials}\r\nConnection: close\r\n\r\n"
    )
}

/// Sends `GET config` on a new connection, and reads the response.
pub(crate) fn get_config(address: SocketAddr, client: &Arc<ClientConfig>, request: &str) {
    let mut connection = connect(client);
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut stream = Stream::new(&mut connection, &mut socket);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// The TLS state of a new connection.
pub(crate) fn connect(client: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(
        Arc::clone(client),
        ServerName::try_from("localhost").unwrap(),
    )
    .unwrap()
}

/// A server process; killed when dropped.
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl ServerProcess {
    /// Starts the server in `folder`, and waits until it listens.
    pub(crate) fn start(folder: &Path) -> Self {
        let mut command = Command::new(PROGRAM);
        // Any free port: another server may be running on this machine.
        let admin = ("SAFE_ADMIN__LISTEN", "127.0.0.1:0");
        command.arg("serve").envs([admin]).stderr(Stdio::piped());
        let mut child = command.current_dir(folder).spawn().unwrap();
        let output = child.stderr.take().unwrap();
        Self::at(child, output)
    }

    /// A process that prints its address to `output`.
    pub(crate) fn at(child: Child, output: impl Read + Send + 'static) -> Self {
        let address = address_in(output);
        Self { child, address }
    }

    /// The directory of the process in `/proc`.
    pub(crate) fn proc_directory(&self) -> String {
        format!("/proc/{}", self.child.id())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// User and system time of all threads of a process so far, from its directory in `/proc`.
pub(crate) fn cpu(proc_directory: &str) -> Duration {
    let tasks = std::fs::read_dir(format!("{proc_directory}/task")).unwrap();
    let nanoseconds = tasks.map(|task| {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// A field of `status` in bytes, which the kernel gives in KiB.
pub(crate) fn memory(proc_directory: &str, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("{proc_directory}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap();
    let kibibytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap() * 1024
}

/// The address in the first line of output that contains one; all later output is discarded.
fn address_in(output: impl Read + Send + 'static) -> SocketAddr {
    let mut output = BufReader::new(output);
    let mut line = String::new();
    while !line.contains("127.0.0.1:") || line.starts_with("error") {
        let before = std::mem::take(&mut line);
        let length = output.read_line(&mut line).unwrap();
        assert_ne!(length, 0, "the process ended: {before}");
    }
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    let (_, rest) = line
        .split_once("127.0.0.1:")
        .unwrap_or_else(|| panic!("{line}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    SocketAddr::from(([127, 0, 0, 1], digits.parse().unwrap()))
}
