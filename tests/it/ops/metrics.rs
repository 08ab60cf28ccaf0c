//! Metrics of real connections and requests.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

use crate::support::process::ServerProcess;
use crate::support::stores::{Fault, FaultyStore, MemoryStore, Operation};
use crate::support::wire::{Protocol, soon, whole};
use crate::support::{Site, TestServer, backup_path, now};

impl TestServer {
    /// The value of one series; `None` where there is no such series.
    async fn metric(&self, series: &str) -> Option<f64> {
        let all = self.admin("/metrics").await;
        let series = format!("{series} ");
        let value = all.lines().find_map(|line| line.strip_prefix(&series));
        value.map(|value| value.parse().unwrap())
    }

    /// Waits until a series has a value: some of what is counted happens after the client has its
    /// answer.
    async fn comes_to(&self, series: &str, expected: f64) {
        soon(async {
            while self.metric(series).await != Some(expected) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn requests(route: &str, method: &str, class: &str) -> String {
    format!("safe_requests_total{{route=\"{route}\",method=\"{method}\",class=\"{class}\"}}")
}

#[tokio::test]
async fn each_request_is_counted_by_route_method_and_class() {
    let server = TestServer::start().await;
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        let mut stranger = server.stranger(protocol).await;
        phone.send("GET", "/config", &[], "").await;
        phone.send("PUT", &backup_path(), &[], "backup").await;
        phone.send("GET", &backup_path(), &[], "").await;
        phone.send("DELETE", &backup_path(), &[], "").await;
        phone.send("GET", &backup_path(), &[], "").await;
        stranger.send("PUT", &backup_path(), &[], "backup").await;
        phone.send("REPORT", "/elsewhere", &[], "").await;
    }

    for (route, method, class) in [
        ("config", "GET", "2xx"),
        ("backup", "PUT", "2xx"),
        ("backup", "GET", "2xx"),
        ("backup", "DELETE", "2xx"),
        ("backup", "GET", "4xx"),
        ("backup", "PUT", "401"),
        ("unknown", "other", "4xx"),
    ] {
        server.comes_to(&requests(route, method, class), 2.0).await;
    }
    let count = "safe_request_duration_seconds_count{route=\"backup\",method=\"PUT\"}";
    assert_eq!(server.metric(count).await, Some(2.0));
    server.comes_to("safe_requests_in_flight", 0.0).await;
}

#[tokio::test]
async fn connections_handshakes_and_bytes_are_counted() {
    let server = TestServer::start().await;
    let before = server.metric("safe_connections_accepted_total").await;
    let mut phones = Vec::new();
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        let backup = vec![7; 100_000];
        phone.send("PUT", &backup_path(), &[], backup).await;
        phone.send("GET", &backup_path(), &[], "").await;
        phones.push(phone);
    }

    assert_eq!(before, Some(0.0));
    assert_eq!(server.metric("safe_connections").await, Some(2.0));
    for way in ["received", "sent"] {
        let bytes = server.metric(&format!("safe_{way}_bytes_total")).await;
        let bytes = bytes.unwrap();
        assert!((200_000.0..210_000.0).contains(&bytes), "{way} {bytes}");
    }
    let handshakes = "safe_handshake_duration_seconds_count";
    assert_eq!(server.metric(handshakes).await, Some(2.0));
    drop(phones);
    server.comes_to("safe_connections", 0.0).await;
    let accepted = server.metric("safe_connections_accepted_total").await;
    assert_eq!(accepted, Some(2.0));
}

#[tokio::test]
async fn handshakes_that_fail_are_counted_by_kind() {
    let server = TestServer::start_with(json!({ "limits": { "handshakeSeconds": 1 } })).await;
    let failed = |kind: &str| format!("safe_handshakes_failed_total{{kind=\"{kind}\"}}");

    // A client that trusts no authority.
    let trusting = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(RootCertStore::empty())
    .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(trusting));
    let refused = connector.connect(name, server.tcp().await).await;
    assert!(refused.is_err());
    // A client of another protocol, and one that closes the connection.
    let mut plain = server.tcp().await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    drop(server.tcp().await);
    let _silent = server.tcp().await;

    for kind in ["unknown_authority", "not_tls", "disconnected", "timeout"] {
        server.comes_to(&failed(kind), 1.0).await;
    }
    assert_eq!(server.metric(&failed("other")).await, Some(0.0));
    assert_eq!(server.refused("handshake").await, 1);
}

#[tokio::test]
async fn what_cannot_be_read_as_a_request_has_a_line_and_is_counted() {
    let site = Site::new().with(json!({ "log": { "clientAddresses": "truncated" } }));
    let mut server = ServerProcess::start(site);
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    for (bytes, status) in [("Nonsense\r\n\r\n", 400), (&long, 431)] {
        let mut raw = server.raw(b"http/1.1").await;
        // The rest of a body that is too long is not read.
        drop(raw.try_write(bytes).await);

        let line = server.log_through(|line| line.contains("request")).pop();

        let line = line.unwrap();
        let expected = format!("malformed request client=127.0.0.0/24 status={status}");
        assert!(line.ends_with(&expected), "{line}");
    }
}

#[tokio::test]
async fn what_the_storage_does_not_do_is_counted_by_what_it_was() {
    let store = FaultyStore::over(MemoryStore::default());
    let server = Site::new().start_over(store.clone()).await;
    server.settled().await;
    let mut phone = server.phone(Protocol::Http2).await;
    phone.send("PUT", &backup_path(), &[], "backup").await;

    for (method, body, fails, fault, operation) in [
        ("PUT", "new", Operation::Put, Fault::Full, "store"),
        ("GET", "", Operation::Get, Fault::Io, "read"),
        ("HEAD", "", Operation::Stat, Fault::Io, "stat"),
        ("DELETE", "", Operation::Remove, Fault::Io, "remove"),
    ] {
        store.fail_from(1, fails, fault);
        phone.send(method, &backup_path(), &[], body).await;
        store.heal();

        let series = format!("safe_storage_errors_total{{operation=\"{operation}\"}}");
        server.comes_to(&series, 1.0).await;
        server
            .comes_to(&requests("backup", method, "5xx"), 1.0)
            .await;
    }
    store.fail_from(1, Operation::List, Fault::Io);
    let mut operator = server.operator_client(Protocol::Http2).await;
    let listing = operator.send_body("PROPFIND", "/backups/", &[("depth", "1")], whole(""));
    assert!(listing.await.is_err());
    server
        .comes_to("safe_storage_errors_total{operation=\"list\"}", 1.0)
        .await;
}

#[tokio::test]
async fn a_sweep_counts_backups_by_age_and_size_and_those_that_were_renewed_or_expire() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let site = Site::new().with(json!({ "maxBackupBytes": 4096 }));
    for (number, (days, bytes)) in [(0, 100), (1, 3_300), (3, 4_000), (160, 5_000), (175, 100)]
        .into_iter()
        .enumerate()
    {
        let id = format!("{number:064x}");
        site.place_backup(&id, &vec![7; bytes], now() - DAY * days - DAY / 2);
    }
    let server = site.start().await;
    server.swept().await;

    for (series, expected) in [
        ("safe_backups{younger_than_days=\"1\"}", 1.0),
        ("safe_backups{younger_than_days=\"7\"}", 1.0),
        ("safe_backups{younger_than_days=\"180\"}", 2.0),
        ("safe_backups_renewed{within_days=\"1\"}", 1.0),
        ("safe_backups_renewed{within_days=\"7\"}", 3.0),
        ("safe_backups_by_size{up_to_percent=\"10\"}", 2.0),
        ("safe_backups_by_size{up_to_percent=\"90\"}", 1.0),
        ("safe_backups_by_size{up_to_percent=\"100\"}", 1.0),
        ("safe_backups_by_size{up_to_percent=\"+Inf\"}", 1.0),
        ("safe_backups_expiring{within_days=\"14\"}", 1.0),
        ("safe_backups_expiring{within_days=\"30\"}", 2.0),
        ("safe_stored_bytes{kind=\"backups\"}", 12_500.0),
    ] {
        assert_eq!(server.metric(series).await, Some(expected), "{series}");
    }
}
