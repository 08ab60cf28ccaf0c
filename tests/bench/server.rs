//! Benchmark of the server binary: size, start-up time, memory, and the CPU time of one `GET
//! config` on a new connection compared with a bare TLS handshake.
//!
//! Run by `cargo bench`. Both sides of a ratio alternate in one run, because machines are noisy;
//! `--short` runs fewer rounds. CPU time is the server's own, from `/proc`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints its figures and panics on any error"
)]

mod serving;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig, ServerConnection, Stream};

use crate::serving::{
    PROGRAM, ServerProcess, client_config, connect, cpu, get_config, memory, prepare, request,
};

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
    let mut resident: Vec<_> = starts.iter().map(|start| start.1).collect();
    resident.sort_unstable();
    println!(
        "resident memory at start    {:.2} MiB (median of 9)",
        mebibytes(resident[4])
    );

    let server = ServerProcess::start(folder.path());
    let bare = start_handshakes(folder.path());
    let request = request(&credentials);
    let mut config_cpu = Duration::ZERO;
    let mut handshake_cpu = Duration::ZERO;
    for _ in 0..10 {
        config_cpu += cpu_of(&server, |address| {
            for _ in 0..rounds / 10 {
                get_config(address, &client, &request);
            }
        });
        handshake_cpu += cpu_of(&bare, |address| {
            for _ in 0..rounds / 10 {
                handshake(address, &client);
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
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The CPU time that the process spends on `work`.
fn cpu_of(process: &ServerProcess, work: impl Fn(SocketAddr)) -> Duration {
    let before = cpu(&process.proc_directory());
    work(process.address);
    cpu(&process.proc_directory()) - before
}

/// Makes a TLS connection and closes it.
fn handshake(address: SocketAddr, client: &Arc<ClientConfig>) {
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

/// The time from the start of the process to the first response to `GET config`, and the resident
/// memory before that request, in bytes.
fn start_to_first_answer(
    folder: &Path,
    client: &Arc<ClientConfig>,
    credentials: &str,
) -> (Duration, u64) {
    let started = Instant::now();
    let server = ServerProcess::start(folder);
    let resident = memory(&server.proc_directory(), "VmRSS");
    get_config(server.address, client, &request(credentials));
    (started.elapsed(), resident)
}

fn start_handshakes(folder: &Path) -> ServerProcess {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("handshakes").arg(folder).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let output = child.stdout.take().unwrap();
    ServerProcess::at(child, output)
}

/// Serves bare TLS handshakes without end, with the server's certificate and settings.
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
