//! Proxies in front of the server: forwarded addresses, Unix sockets, and what the log says of
//! them.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::time::SystemTime;

use serde_json::{Value, json};
use threema_safe_server::config::Config;
use threema_safe_server::server::{Severity, check};
use tokio::net::UnixStream;

use crate::support::Site;
use crate::support::process::ServerProcess;
use crate::support::wire::{Client, Protocol, basic};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Two wrong passwords an hour from one address.
fn strict(more: Value) -> Site {
    let limits = json!({ "limits": {
        "wrongPasswordsPerAddressAndHour": 2,
        "wrongPasswordDelaySeconds": 0,
    } });
    Site::new().with(limits).with(more)
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
        let mut findings = findings.into_iter().filter(|finding| finding.key == place);
        let finding = findings.next().unwrap();
        (finding.alert.severity, finding.alert.text)
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
        text.ends_with("nowhere is missing or not writable"),
        "{text}"
    );
    assert_eq!(severity, Severity::Critical);
}

#[tokio::test]
async fn traffic_from_one_address_alone_is_said_once() {
    let mut server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http1).await;
    for _ in 0..1_100 {
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    }
    let (log, _) = {
        server.log_through(|line| line.contains("all requests from one address"));
        server.stop()
    };
    assert_eq!(log.matches("all requests from one address").count(), 1);
}

#[tokio::test]
async fn a_trusted_proxy_that_names_no_client_is_logged_once() {
    let proxies = json!({ "trustedProxies": ["127.0.0.1"] });
    let mut server = ServerProcess::start(Site::new().with(proxies));
    let mut phone = server.phone(Protocol::Http1).await;
    for _ in 0..1_100 {
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    }
    server.log_through(|line| line.contains("trusted proxy sends no client addresses"));
    let (log, _) = server.stop();
    assert_eq!(log.matches("requests=1000").count(), 1);
}
