//! Figures of a built server: size, start, memory, and what one `GET config` on a fresh connection costs
//! beside the bare TLS handshake.
//!
//! Run by `cargo bench`. Ratios are measured side by side in one run, alternating, because machines are
//! noisy; `--short` takes fewer rounds. CPU time is the server's own, from the kernel's accounts.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints its figures, and stops where anything goes wrong"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Stream,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_threema-safe-server");

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, folder] = arguments.as_slice()
        && role == "handshakes"
    {
        return serve_handshakes(Path::new(folder));
    }
    let rounds = if arguments.iter().any(|argument| argument == "--short") {
        300
    } else {
        3_000
    };
    let folder = tempfile::tempdir().unwrap();
    let credentials = prepare(folder.path());

    let size = std::fs::metadata(PROGRAM).unwrap().len();
    println!("binary                      {:.2} MiB", mebibytes(size));
    let client = client_config(folder.path());
    let mut starts: Vec<_> = (0..9)
        .map(|_| start_to_first_answer(folder.path(), &client, &credentials))
        .collect();
    starts.sort();
    println!(
        "start to first answer       {:.1} ms (median of 9)",
        milliseconds(starts[4].0)
    );
    let mut memory: Vec<_> = starts.iter().map(|start| start.1).collect();
    memory.sort_unstable();
    println!(
        "resident memory at start    {:.2} MiB (median of 9)",
        mebibytes(memory[4])
    );

    let mut server = Serving::start(folder.path());
    let mut bare = Serving::handshakes(folder.path());
    let request = request(&credentials);
    let mut config_cpu = Duration::ZERO;
    let mut handshake_cpu = Duration::ZERO;
    for _ in 0..10 {
        config_cpu += server.cpu_of(|address| {
            for _ in 0..rounds / 10 {
                ask(address, &client, &request);
            }
        });
        handshake_cpu += bare.cpu_of(|address| {
            for _ in 0..rounds / 10 {
                shake(address, &client);
            }
        });
    }
    let each = |total: Duration| total.as_secs_f64() * 1e6 / f64::from(rounds);
    println!(
        "bare rustls handshake       {:.0} µs of server CPU",
        each(handshake_cpu)
    );
    println!(
        "GET config, new connection  {:.0} µs of server CPU",
        each(config_cpu)
    );
    println!(
        "ratio                       {:.2} (at most 2)",
        each(config_cpu) / each(handshake_cpu)
    );
    server.end();
    bare.end();
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Makes an installation; returns the value of the phone account's `Authorization` header.
fn prepare(folder: &Path) -> String {
    let output = Command::new(PROGRAM)
        .args(["init", "--yes", "--listen", "127.0.0.1:0"])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let secret = said
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

fn client_config(folder: &Path) -> Arc<ClientConfig> {
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

fn request(credentials: &str) -> String {
    format!(
        "GET /config HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Threema\r\nAuthorization: {credentials}\r\nConnection: close\r\n\r\n"
    )
}

/// One phone's question on a connection of its own.
fn ask(address: SocketAddr, client: &Arc<ClientConfig>, request: &str) {
    let mut connection = connect(client);
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut stream = Stream::new(&mut connection, &mut socket);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// A handshake, and the end of the connection.
fn shake(address: SocketAddr, client: &Arc<ClientConfig>) {
    let mut connection = connect(client);
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    while connection.is_handshaking() || connection.wants_write() {
        connection.complete_io(&mut socket).unwrap();
    }
    connection.send_close_notify();
    let mut stream = Stream::new(&mut connection, &mut socket);
    stream.flush().unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
}

fn connect(client: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(
        Arc::clone(client),
        ServerName::try_from("localhost").unwrap(),
    )
    .unwrap()
}

/// A process that is measured.
struct Serving {
    child: Child,
    address: SocketAddr,
}

impl Serving {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(PROGRAM);
        // Any free ports: another server may be running on this machine.
        let admin = ("SAFE_ADMIN__LISTEN", "127.0.0.1:0");
        command.arg("serve").envs([admin]).stderr(Stdio::piped());
        let mut child = command.current_dir(folder).spawn().unwrap();
        let address = address_in(child.stderr.take().unwrap());
        Self { child, address }
    }

    fn handshakes(folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("handshakes").arg(folder).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let address = address_in(child.stdout.take().unwrap());
        Self { child, address }
    }

    /// CPU time that the process spends on `work`.
    fn cpu_of(&mut self, work: impl Fn(SocketAddr)) -> Duration {
        let before = self.cpu();
        work(self.address);
        self.cpu() - before
    }

    /// User and system time of all threads so far, in nanoseconds: /proc/PID/schedstat of each thread.
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanoseconds = tasks.map(|task| {
            let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The address in the first line of a process that has one; what it writes later is read and thrown away.
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

/// From starting the process to the first `config` in the client's hands, and the memory then.
fn start_to_first_answer(
    folder: &Path,
    client: &Arc<ClientConfig>,
    credentials: &str,
) -> (Duration, u64) {
    let started = Instant::now();
    let mut server = Serving::start(folder);
    let resident = server.resident();
    ask(server.address, client, &request(credentials));
    let took = started.elapsed();
    server.end();
    (took, resident)
}

/// Shakes hands for as long as somebody comes, with the same certificate and the same settings.
fn serve_handshakes(folder: &Path) {
    let certificates = CertificateDer::pem_file_iter(folder.join("certs/fullchain.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("certs/privkey.pem")).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates.map(Result::unwrap).collect(), key)
        .unwrap();
    config.send_tls13_tickets = 0;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    for socket in listener.incoming() {
        let mut socket = socket.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut rest = Vec::new();
        let mut stream = Stream::new(&mut connection, &mut socket);
        stream.read_to_end(&mut rest).unwrap();
        connection.send_close_notify();
        Stream::new(&mut connection, &mut socket).flush().unwrap();
    }
}
