//! Certificates that an authority is asked for: pebble, a real ACME server, validates over TLS on the public listener.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use threema_safe_server::config::Config;
use threema_safe_server::server::{self, Severity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::wire::{Protocol, Raw, soon};
use crate::support::{
    Site, TestServer, mode, names, now, set_mode, skip_without_program, write, write_certificates,
};

const ALPN: &[u8] = b"acme-tls/1";
/// As long as the first wait after an authority that was not reached, with all that is added to it.
const MINUTES: u64 = 2 * 60;
const DAY: u64 = 24 * 60 * 60;

/// A clock that a test sets ahead.
macro_rules! clock {
    ($ahead:ident, $clock:ident) => {
        static $ahead: AtomicU64 = AtomicU64::new(0);
        fn $clock() -> SystemTime {
            now() + Duration::from_secs($ahead.load(Ordering::SeqCst))
        }
    };
}

/// A site that asks an authority, which is reached over TLS at this port.
fn site(port: u16) -> Site {
    let site = Site::new();
    write_certificates(&site.folder().join("authority"));
    site.with(json!({ "tls": {
        "certificateFile": null,
        "privateKeyFile": null,
        "acme": {
            "domains": ["localhost"],
            "contact": "operator@safe.example",
            "directoryUrl": format!("https://localhost:{port}/dir"),
            "authorityFile": "authority/ca.pem",
        },
    }}))
}

/// A port that is free now.
async fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap().port()
}

/// A pebble. Stopped when dropped.
struct Authority(Child);

impl Drop for Authority {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn has_pebble() -> bool {
    let found = Command::new("pebble")
        .arg("-help")
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        skip_without_program("pebble is not installed, so no certificate was obtained");
    }
    found
}

impl Authority {
    /// Starts one at `port`, which looks for domains at `port_of_domains`, and has the phones trust what it issues.
    async fn start(server: &TestServer, port: u16, port_of_domains: u16) -> Self {
        let folder = server.site().folder().join("authority");
        let management = free_port().await;
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": folder.join("fullchain.pem"),
            "privateKey": folder.join("privkey.pem"),
            "httpPort": 1,
            "tlsPort": port_of_domains,
        }});
        let file = folder.join("pebble.json");
        write(&file, config.to_string());
        let log = fs::File::create(folder.join("pebble.log")).unwrap();
        let child = Command::new("pebble")
            .arg("-config")
            .arg(&file)
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_VA_ALWAYS_VALID", "0")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut authority = Self(child);
        for port in [port, management] {
            soon(authority.listens(port)).await;
        }
        let root = get(
            &folder.join("ca.pem"),
            &format!("https://localhost:{management}/roots/0"),
        )
        .await;
        write(&server.site().folder().join("certs/ca.pem"), root);
        authority
    }

    async fn listens(&mut self, port: u16) {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            let ended = self.0.try_wait().unwrap();
            assert!(ended.is_none(), "pebble ended: {ended:?}");
            tokio::task::yield_now().await;
        }
    }
}

/// What is at a URL, for who trusts `authority`.
async fn get(authority: &Path, url: &str) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority).unwrap())
        .unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()
        .unwrap();
    let answer = client.get(url).send().await.unwrap();
    answer.bytes().await.unwrap().into()
}

/// How the server says its certificate is.
async fn told(server: &TestServer) -> Value {
    let answer = server.admin("/status.json").await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: Value = serde_json::from_str(body).unwrap();
    status["certificate"].clone()
}

/// Waits until so many orders have ended.
async fn ended(server: &TestServer, issued: u64, failed: u64) -> Value {
    let both = async {
        loop {
            let told = told(server).await;
            let acme = &told["acme"];
            if acme["issued"] == issued && acme["failed"] == failed && acme["isOrdering"] == false {
                return told;
            }
            assert!(
                acme["issued"].as_u64() <= Some(issued) && acme["failed"].as_u64() <= Some(failed),
                "{told}"
            );
            tokio::task::yield_now().await;
        }
    };
    soon(both).await
}

async fn metric(server: &TestServer, name: &str) -> String {
    let metrics = server.admin("/metrics").await;
    let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(other, _)| *other == name);
    found.map_or_else(String::new, |(_, value)| value.to_owned())
}

async fn is_served(server: &TestServer) -> bool {
    let mut phone = server.phone(Protocol::Http2).await;
    phone.ask("GET", "/config", &[]).await.status == 200
}

async fn shakes_hands(server: &TestServer, alpn: &[&[u8]]) -> bool {
    Raw::connect(server, alpn, rustls::ALL_VERSIONS)
        .await
        .is_ok()
}

/// A server that has obtained its certificate, after an order that failed because the authority was not there yet.
async fn obtained(clock: fn() -> SystemTime, ahead: &AtomicU64) -> (TestServer, Authority, u16) {
    let port = free_port().await;
    let server = site(port).clock(clock).start().await;
    ended(&server, 0, 1).await;
    let authority = Authority::start(&server, port, server.address().port()).await;
    ahead.fetch_add(MINUTES, Ordering::SeqCst);
    ended(&server, 1, 1).await;
    assert!(is_served(&server).await);
    (server, authority, port)
}

/// Sets the clock to when the next order is due.
async fn until_next_order(server: &TestServer, clock: fn() -> SystemTime, ahead: &AtomicU64) {
    let next = told(server).await["acme"]["nextOrder"].as_u64().unwrap();
    ahead.fetch_add(next - unix(clock()), Ordering::SeqCst);
}

/// How it stands once the server has looked at its clock.
async fn looked(server: &TestServer) -> Value {
    soon(async {
        loop {
            let told = told(server).await;
            if told["acme"]["nextOrder"] != 0 {
                return told;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Puts a certificate where the server keeps the one that it was issued.
fn place_certificate(site: &Site, domain: &str) {
    let text = fs::read_to_string(site.config_file()).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let from = config["tls"]["acme"]["directoryUrl"].as_str().unwrap();
    let made = server::development_certificate(&[domain.to_owned()], now()).unwrap();
    let (key, chain) = (made.private_key_pem, made.chain_pem);
    let folder = site.folder().join("acme");
    fs::create_dir_all(&folder).unwrap();
    set_mode(&folder, 0o700);
    let file = folder.join("certificate.pem");
    write(&file, format!("From: {from}\nObtained: 1\n\n{key}{chain}"));
    set_mode(&file, 0o600);
    write(&site.folder().join("certs/ca.pem"), made.authority_pem);
}

fn unix(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn account(site: &Site) -> Value {
    let folder = site.folder().join("acme");
    let name = names(&folder)
        .into_iter()
        .find(|name| name.starts_with("account-"))
        .unwrap();
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

#[tokio::test]
async fn a_new_server_obtains_its_certificate_and_phones_are_served_with_it() {
    if !has_pebble() {
        return;
    }
    clock!(AHEAD, ahead);
    let port = free_port().await;
    let server = site(port).clock(ahead).start().await;

    // The authority is not there yet.
    let certificate = ended(&server, 0, 1).await;
    let reason = certificate["acme"]["failure"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the authority cannot be reached: "),
        "{reason}"
    );
    assert!(!shakes_hands(&server, &[b"h2"]).await);
    assert!(!shakes_hands(&server, &[ALPN]).await);
    assert_eq!(
        metric(&server, "safe_certificate_orders_failing").await,
        "1"
    );
    assert_eq!(
        metric(&server, "safe_certificate_end_time_seconds").await,
        "0"
    );
    let _authority = Authority::start(&server, port, server.address().port()).await;
    AHEAD.store(MINUTES, Ordering::SeqCst);
    let certificate = ended(&server, 1, 1).await;

    assert!(is_served(&server).await);
    let time = |name: &str| certificate[name].as_u64().unwrap();
    let (begins, ends) = (time("begins"), time("ends"));
    let renewal = certificate["acme"]["nextOrder"].as_u64().unwrap();
    assert!(
        renewal.abs_diff(begins + (ends - begins) / 3 * 2) < 3,
        "{certificate}"
    );
    assert_eq!(certificate["acme"]["failure"], Value::Null);
    assert_eq!(certificate["problem"], Value::Null);
    for (name, expected) in [
        ("safe_certificate_orders_total{outcome=\"done\"}", 1),
        ("safe_certificate_orders_total{outcome=\"failed\"}", 1),
        ("safe_certificate_orders_failing", 0),
        ("safe_certificate_end_time_seconds", ends),
        ("safe_certificate_next_order_time_seconds", renewal),
    ] {
        assert_eq!(metric(&server, name).await, expected.to_string(), "{name}");
    }
    // Nobody is answered any more who asks for a challenge.
    assert!(!shakes_hands(&server, &[ALPN]).await);

    let folder = server.site().folder().join("acme");
    let files = names(&folder);
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(mode(&folder), 0o700);
    for file in files {
        assert_eq!(mode(&folder.join(&file)), 0o600, "{file}");
    }
    let account = account(server.site());
    assert_eq!(account["contact"], "mailto:operator@safe.example");
    let leaf = CertificateDer::from_pem_file(folder.join("certificate.pem")).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    let Ok(x509_parser::public_key::PublicKey::EC(key)) = leaf.public_key().parsed() else {
        panic!("another kind of key");
    };
    assert_eq!(key.key_size(), 256);
}

#[tokio::test]
async fn a_certificate_is_renewed_under_phones_and_the_old_one_stays_while_the_authority_is_away() {
    if !has_pebble() {
        return;
    }
    clock!(AHEAD, ahead);
    let (server, authority, _) = obtained(ahead, &AHEAD).await;
    let server = Arc::new(server);
    let file = server.site().folder().join("acme/certificate.pem");
    let first = fs::read(&file).unwrap();
    let mut old = server.phone(Protocol::Http1).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let phones = tokio::spawn({
        let (server, is_over) = (Arc::clone(&server), Arc::clone(&is_over));
        async move {
            let mut served = 0;
            while !is_over.load(Ordering::SeqCst) {
                assert!(is_served(&server).await);
                served += 1;
            }
            served
        }
    });

    until_next_order(&server, ahead, &AHEAD).await;
    let renewed = ended(&server, 2, 1).await;

    is_over.store(true, Ordering::SeqCst);
    assert!(soon(phones).await.unwrap() > 0);
    assert_eq!(old.ask("GET", "/config", &[]).await.status, 200);
    assert!(is_served(&server).await);
    let second = fs::read(&file).unwrap();
    assert!(first != second);
    assert_eq!(renewed["acme"]["failure"], Value::Null);

    drop(authority);
    until_next_order(&server, ahead, &AHEAD).await;
    let certificate = ended(&server, 2, 2).await;

    let failure = &certificate["acme"]["failure"];
    let reason = failure["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("the authority cannot be reached: "),
        "{reason}"
    );
    assert_eq!(failure["times"], 1);
    assert_eq!(certificate["ends"], renewed["ends"]);
    assert!(is_served(&server).await);
    assert_eq!(
        metric(&server, "safe_certificate_orders_failing").await,
        "1"
    );
    assert!(fs::read(&file).unwrap() == second);

    // The next run has what this one had, and asks nobody: by the real clock, nothing is due.
    let server = Arc::into_inner(server).unwrap();
    let account_before = account(server.site());
    let site = server.stop().await;
    AHEAD.store(0, Ordering::SeqCst);
    let server = site.start().await;
    let certificate = looked(&server).await;
    assert!(is_served(&server).await);
    let acme = &certificate["acme"];
    assert_eq!((&acme["issued"], &acme["failed"]), (&json!(0), &json!(0)));
    assert_eq!(acme["isOrdering"], false);
    assert!(acme["nextOrder"].as_u64().unwrap() > unix(now()) + DAY);
    assert_eq!(acme["failure"]["times"], 1, "also of an earlier run");
    assert!(fs::read(&file).unwrap() == second);
    assert_eq!(account(server.site()), account_before);
}

#[tokio::test]
async fn an_authority_that_has_forgotten_the_account_hears_of_the_same_key_again() {
    if !has_pebble() {
        return;
    }
    clock!(AHEAD, ahead);
    let (server, authority, port) = obtained(ahead, &AHEAD).await;
    let before = account(server.site());
    drop(authority);

    let authority = Authority::start(&server, port, server.address().port()).await;
    until_next_order(&server, ahead, &AHEAD).await;
    ended(&server, 2, 1).await;

    // The new authority has another root.
    assert!(is_served(&server).await);
    let after = account(server.site());
    assert_eq!(before["key"], after["key"]);
    assert_eq!(after["contact"], "mailto:operator@safe.example");
    drop(authority);
}

#[tokio::test]
async fn a_domain_that_does_not_lead_here_is_told() {
    if !has_pebble() {
        return;
    }
    clock!(AHEAD, ahead);
    let port = free_port().await;
    let server = site(port).clock(ahead).start().await;
    ended(&server, 0, 1).await;
    let nobody = free_port().await;
    let _authority = Authority::start(&server, port, nobody).await;
    AHEAD.store(MINUTES, Ordering::SeqCst);

    let certificate = ended(&server, 0, 2).await;

    let failure = &certificate["acme"]["failure"];
    let reason = failure["reason"].as_str().unwrap();
    let expected = "the authority cannot see that localhost leads here, on port 443: ";
    assert!(reason.starts_with(expected), "{reason}");
    assert!(reason.len() > expected.len());
    assert_eq!(failure["times"], 2);
    // Twice as long as the first wait, at the least.
    let wait =
        certificate["acme"]["nextOrder"].as_u64().unwrap() - failure["last"].as_u64().unwrap();
    assert!((10 * 60..=10 * 60 * 5 / 4).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_certificate_of_an_earlier_run_is_in_force_at_once_and_only_authorities_get_another() {
    let site = site(free_port().await);
    place_certificate(&site, "localhost");
    let server = site.start().await;

    assert!(is_served(&server).await);
    let acme = looked(&server).await["acme"].clone();
    assert!(
        acme["nextOrder"].as_u64().unwrap() > unix(now()) + 200 * DAY,
        "{acme}"
    );
    assert!(!shakes_hands(&server, &[ALPN]).await);
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let raw = Raw::connect(&server, &[ALPN, protocol], rustls::ALL_VERSIONS).await;
        assert_eq!(raw.unwrap().alpn().as_deref(), Some(protocol));
    }
    // Whoever speaks that protocol alone beside one that nobody knows has a connection that ends.
    let raw = Raw::connect(&server, &[b"x", ALPN], rustls::ALL_VERSIONS).await;
    let mut raw = raw.unwrap();
    assert_eq!(raw.alpn().as_deref(), Some(ALPN));
    let request = "GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n";
    drop(raw.try_write(request).await);
    raw.assert_ended().await;
}

#[tokio::test]
async fn an_authority_that_wants_to_be_left_alone_is_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = site(listener.local_addr().unwrap().port());
    let folder = site.folder().join("authority");
    let key = server::load_tls(&threema_safe_server::config::TlsFiles {
        certificate: folder.join("fullchain.pem"),
        private_key: folder.join("privkey.pem"),
    });
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.unwrap())));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let authority = tokio::spawn(async move {
        let mut asked = 0;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            asked += 1;
            assert_eq!(asked, 1, "it is asked again");
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            let answer = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 172800\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });

    let server = site.start().await;
    let acme = ended(&server, 0, 1).await["acme"].clone();

    let last = acme["failure"]["last"].as_u64().unwrap();
    assert_eq!(acme["nextOrder"], last + 2 * DAY, "{acme}");
    // Also by the next run.
    let server = server.stop().await.start().await;
    let acme = looked(&server).await["acme"].clone();
    assert_eq!(acme["nextOrder"], last + 2 * DAY, "{acme}");
    assert!(!authority.is_finished());
    authority.abort();
}

#[tokio::test]
async fn check_looks_at_what_an_authority_is_to_be_asked_for() {
    let site = site(free_port().await).with(json!({ "publicUrl": "https://localhost/" }));
    let found = |site: &Site| {
        let text = fs::read(site.config_file()).unwrap();
        let config = Config::from_json(&text, &site.config_file()).unwrap();
        let about = server::check(&config, now()).into_iter();
        let lines = about.filter(|finding| finding.place.starts_with("tls"));
        lines
            .map(|finding| {
                (
                    finding.severity,
                    format!("{}: {}", finding.place, finding.text),
                )
            })
            .collect::<Vec<_>>()
    };
    let has = |found: &[(Severity, String)], severity, start: &str| {
        let is_it = |(its, text): &(Severity, String)| *its == severity && text.starts_with(start);
        assert!(found.iter().any(is_it), "{start} is not in {found:#?}");
    };

    let fine = found(&site);
    has(
        &fine,
        Severity::Good,
        "tls.acme.domains: the host of publicUrl is among",
    );
    has(&fine, Severity::Good, "tls.acme.authorityFile: is trusted");
    has(&fine, Severity::Good, "tls.acme.directory: can be written");
    has(
        &fine,
        Severity::Warning,
        "tls.acme: there is no certificate yet",
    );
    assert!(
        fine.iter()
            .all(|(severity, _)| *severity != Severity::Error)
    );

    place_certificate(&site, "other.example");
    let other = found(&site);
    has(
        &other,
        Severity::Warning,
        "tls.acme: the certificate that is there is for other",
    );
    has(
        &other,
        Severity::Good,
        "tls: certificate and private key are a pair",
    );
    place_certificate(&site, "localhost");
    set_mode(&site.folder().join("acme/certificate.pem"), 0o644);
    has(&found(&site), Severity::Error, "tls.acme.directory: ");
    set_mode(&site.folder().join("acme/certificate.pem"), 0o600);
    set_mode(&site.folder().join("acme"), 0o755);
    let open = found(&site);
    has(&open, Severity::Warning, "tls.acme.directory: ");
    assert!(!format!("{open:?}").contains("is for other"), "{open:#?}");

    write(&site.folder().join("authority/ca.pem"), "nothing");
    let site = site.with(json!({ "publicUrl": "https://other.example/" }));
    let bad = found(&site);
    has(
        &bad,
        Severity::Error,
        "tls.acme.domains: the host of publicUrl is not among",
    );
    has(&bad, Severity::Error, "tls.acme.authorityFile: ");
    let Err(server::StartError::Configuration(problems)) = site.bind().await else {
        panic!("it starts");
    };
    assert_eq!(problems[0].place, "tls.acme");
}
