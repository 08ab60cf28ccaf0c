//! Automatic certificates from a real ACME server: pebble validates over TLS on the public
//! listener.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::acme::{
    ALPN, ended, free_port, is_served, looked, shakes_hands, site, told, unix,
};
use crate::support::wire::{Protocol, soon};
use crate::support::{Site, TestServer, mode, names, now, write};

tests! {
    a_new_server_obtains_its_certificate_and_phones_are_served_with_it: tokio [PEBBLE];
    a_certificate_is_renewed_under_phones_and_the_old_one_stays_while_the_authority_is_away: tokio [PEBBLE];
    an_authority_that_has_forgotten_the_account_hears_of_the_same_key_again: tokio [PEBBLE];
    a_domain_that_does_not_resolve_to_this_server_is_reported: tokio [PEBBLE];
}

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

/// A pebble. Stopped when dropped.
struct Authority(Child);

impl Drop for Authority {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Authority {
    /// Starts one at `port`, which looks for domains at `port_of_domains`, and has the phones trust
    /// what it issues.
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

/// What is at a URL, for a client that trusts `authority`.
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

async fn metric(server: &TestServer, name: &str) -> String {
    let metrics = server.admin("/metrics").await;
    let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(other, _)| *other == name);
    found.map_or_else(String::new, |(_, value)| value.to_owned())
}

/// A server that has obtained its certificate, after an order that failed because the authority was
/// not there yet.
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

fn account(site: &Site) -> Value {
    let folder = site.folder().join("acme");
    let name = names(&folder)
        .into_iter()
        .find(|name| name.starts_with("account-"))
        .unwrap();
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

async fn a_new_server_obtains_its_certificate_and_phones_are_served_with_it() {
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
    // Challenges are not answered any more.
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

async fn a_certificate_is_renewed_under_phones_and_the_old_one_stays_while_the_authority_is_away() {
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

    // The next run has what this one had, and places no order: by the real clock, nothing is due.
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

async fn an_authority_that_has_forgotten_the_account_hears_of_the_same_key_again() {
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

async fn a_domain_that_does_not_resolve_to_this_server_is_reported() {
    clock!(AHEAD, ahead);
    let port = free_port().await;
    let server = site(port).clock(ahead).start().await;
    ended(&server, 0, 1).await;
    let unused = free_port().await;
    let _authority = Authority::start(&server, port, unused).await;
    AHEAD.store(MINUTES, Ordering::SeqCst);

    let certificate = ended(&server, 0, 2).await;

    let failure = &certificate["acme"]["failure"];
    let reason = failure["reason"].as_str().unwrap();
    let expected =
        "the authority cannot validate localhost, which must reach this server on port 443: ";
    assert!(reason.starts_with(expected), "{reason}");
    assert!(reason.len() > expected.len());
    assert_eq!(failure["times"], 2);
    // Twice as long as the first wait, at the least.
    let wait =
        certificate["acme"]["nextOrder"].as_u64().unwrap() - failure["last"].as_u64().unwrap();
    assert!((10 * 60..=10 * 60 * 5 / 4).contains(&wait), "{wait}");
}
