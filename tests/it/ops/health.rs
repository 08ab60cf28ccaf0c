//! Health, as `/readyz`, `status --check`, the metrics and the page show it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::commands::{finish, status as command, status_command};
use crate::support::stores::{Fault, FaultyStore, MemoryStore, Operation};
use crate::support::wire::{Protocol, soon};
use crate::support::{Site, TestServer, backup_path, now};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What one part of the admin listener answers: its status and its body.
async fn ask(server: &TestServer, path: &str) -> (u16, String) {
    let answer = server.admin(path).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.get(9..12).unwrap().parse().unwrap(), body.to_owned())
}

/// How the server is in all places: ready or not, Nagios' code and line, and the lines of the
/// metrics.
async fn looks(server: &TestServer) -> (u16, Option<i32>, String, String) {
    let (ready, why) = ask(server, "/readyz").await;
    // The server answers on this very thread, so that the command runs on another.
    let command = status_command(server.site(), server.admin_address(), &["--check"]);
    let checked = tokio::task::spawn_blocking(move || finish(command, b""));
    let checked = checked.await.unwrap();
    let metrics = ask(server, "/metrics").await.1;
    let is_ready = metrics.lines().any(|line| line == "safe_ready 1");
    assert_eq!(is_ready, ready == 200, "{metrics}");
    assert_eq!(checked.out.lines().count(), 1, "{checked:?}");
    if ready == 503 {
        let first = why.lines().next().unwrap();
        assert!(
            checked.out.contains(first),
            "{checked:?} does not say {why}"
        );
        let (_, page) = ask(server, "/").await;
        assert!(page.contains("Critical: action required"), "{page}");
        // As it is written in HTML.
        assert!(
            page.contains(&first.replace('\'', "&#39;")) || page.contains(first),
            "{page}"
        );
    }
    (ready, checked.code, checked.out, metrics)
}

#[tokio::test]
async fn a_server_that_is_well_says_so() {
    let site = Site::new().with(json!({ "quotas": { "minFreeBytes": 0 } }));
    let memory = MemoryStore::default();
    let server = site.start_over(memory).await;
    server.swept().await;

    let (ready, code, line, metrics) = looks(&server).await;

    assert_eq!((ready, code), (200, Some(0)), "{line}");
    assert!(
        line.starts_with("SAFE OK - 0 backups, 0 of them renewed within a day | backups=0 "),
        "{line}"
    );
    assert!(line.contains(" certificate_left="), "{line}");
    assert!(metrics.contains("safe_storage_writable 1\n"));
    assert_eq!(ask(&server, "/readyz").await.1, "ready\n");
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_seen_everywhere() {
    fn two_years_later() -> SystemTime {
        now() + DAY * 730
    }
    let server = Site::new()
        .clock(two_years_later)
        .start_over(MemoryStore::default())
        .await;
    server.swept().await;

    let (ready, code, line, metrics) = looks(&server).await;

    assert_eq!((ready, code), (503, Some(2)));
    assert!(
        line.starts_with(
            "SAFE CRITICAL - the certificate has expired, so clients reject it; renew it"
        ),
        "{line}"
    );
    let ends = metrics
        .lines()
        .find_map(|line| line.strip_prefix("safe_certificate_end_time_seconds "));
    let ends: u64 = ends.unwrap().parse().unwrap();
    assert!(SystemTime::UNIX_EPOCH + Duration::from_secs(ends) < two_years_later());
}

#[tokio::test]
async fn files_of_a_certificate_that_cannot_be_used_are_seen_everywhere() {
    let server = Site::new().start_over(MemoryStore::default()).await;
    server.swept().await;
    std::fs::write(
        server.site().folder().join("certs/fullchain.pem"),
        "no certificate",
    )
    .unwrap();

    let (ready, code, line, metrics) = looks(&server).await;

    assert_eq!((ready, code), (503, Some(2)));
    assert!(
        line.starts_with("SAFE CRITICAL - the certificate's files cannot be used"),
        "{line}"
    );
    assert!(metrics.contains("safe_certificate_files_unusable 1\n"));
    // Phones are served with the one before.
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
}

#[tokio::test]
async fn a_storage_that_cannot_be_written_is_seen_everywhere_until_it_can() {
    for fault in Fault::BOTH {
        let store = FaultyStore::over(MemoryStore::default());
        let server = Site::new().start_over(store.clone()).await;
        server.swept().await;
        store.fail_from(1, Operation::TryWrite, fault);

        let (ready, code, line, metrics) = looks(&server).await;

        assert_eq!((ready, code), (503, Some(2)));
        assert!(
            line.starts_with("SAFE CRITICAL - the storage is not writable"),
            "{line}"
        );
        assert!(metrics.contains("safe_storage_writable 0\n"));
        store.heal();
        let (ready, code, _, metrics) = looks(&server).await;
        assert_eq!((ready, code), (200, Some(0)));
        assert!(metrics.contains("safe_storage_writable 1\n"));
    }
}

/// Lets hours pass for timers; the clock stays as it is.
async fn hours_later(hours: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(hours * 3_600)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_sweep_that_has_not_gone_through_for_hours_is_seen_everywhere() {
    let store = FaultyStore::over(MemoryStore::default());
    store.fail_from(1, Operation::List, Fault::Io);
    let server = Site::new().start_over(store).await;
    server.swept().await;
    let status = ask(&server, "/status.json").await.1;
    assert!(status.contains("the last sweep was aborted"), "{status}");
    assert_eq!(ask(&server, "/readyz").await.0, 200);

    hours_later(3).await;

    let (ready, code, line, metrics) = looks(&server).await;
    assert_eq!((ready, code), (503, Some(2)));
    assert!(
        line.starts_with("SAFE CRITICAL - no sweep has completed for 3 hours"),
        "{line}"
    );
    assert!(metrics.contains("safe_sweep_last_time_seconds 0\n"));
}

#[tokio::test]
async fn a_clock_that_jumps_makes_no_sweep_stale() {
    static HOURS: AtomicU64 = AtomicU64::new(0);
    fn clock() -> SystemTime {
        now() + Duration::from_secs(HOURS.load(Ordering::Relaxed) * 3_600)
    }
    let server = Site::new()
        .clock(clock)
        .start_over(MemoryStore::default())
        .await;
    server.swept().await;
    HOURS.store(5, Ordering::Relaxed);
    assert_eq!(ask(&server, "/readyz").await.0, 200);
}

#[tokio::test]
async fn accounts_that_no_client_can_use_are_seen_everywhere() {
    let server = Site::new().start_over(MemoryStore::default()).await;
    server.swept().await;
    let accounts = server.site().accounts_file();
    std::fs::write(&accounts, "{").unwrap();

    let (ready, code, line, _) = looks(&server).await;
    assert_eq!((ready, code), (200, Some(1)));
    assert!(line.contains("the accounts file cannot be used"), "{line}");

    std::fs::write(&accounts, r#"{ "accounts": [] }"#).unwrap();
    let (ready, code, line, _) = looks(&server).await;
    assert_eq!((ready, code), (503, Some(2)), "{line}");
    assert!(
        line.contains("the accounts file contains no accounts"),
        "{line}"
    );
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_seen() {
    let quota = json!({ "quotas": { "maxBackups": 1 } });
    let server = Site::new()
        .with(quota)
        .start_over(MemoryStore::default())
        .await;
    server.swept().await;
    assert_eq!(looks(&server).await.1, Some(0));
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(
        phone
            .send("PUT", &backup_path(), &[], "backup")
            .await
            .status,
        201
    );

    let (ready, code, line, _) = looks(&server).await;

    assert_eq!((ready, code), (200, Some(1)));
    assert!(line.contains("quotas.maxBackups is used up"), "{line}");
}

#[tokio::test]
async fn a_server_that_stops_is_not_ready() {
    let server = TestServer::start().await;
    server.swept().await;
    let mut phone = server.raw().await;
    let head = format!(
        "PUT /backups/{:064} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Length: 6\r\n\r\nbac",
        1,
        server.phones()
    );
    phone.write(head.as_bytes()).await;
    while !ask(&server, "/readyz").await.1.starts_with("ready") {}
    let admin = server.admin_address();

    let stopping = server.begin_stop();
    let why = loop {
        let answer = crate::support::ask_admin(admin, "/readyz").await;
        if answer.starts_with("HTTP/1.1 503") {
            break answer;
        }
    };

    assert!(
        why.ends_with("\r\n\r\nthe server is shutting down\n"),
        "{why}"
    );
    phone.write(b"kup").await;
    assert_eq!(phone.answer().await.status, 201);
    stopping.stopped().await;
}

#[test]
fn a_server_that_does_not_answer_is_critical() {
    let site = Site::new();
    let free_address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let checked = command(&site, free_address, &["--check"]);
    assert_eq!(checked.code, Some(2));
    assert!(
        checked
            .out
            .starts_with("SAFE CRITICAL - cannot reach the server at "),
        "{checked:?}"
    );
    assert_eq!(checked.out.lines().count(), 1);
}

#[tokio::test]
async fn a_connection_of_the_admin_listener_does_not_last_for_ever() {
    let server = TestServer::start().await;
    let mut stream = TcpStream::connect(server.admin_address()).await.unwrap();
    let mut answers = 0;
    // Never idle for so long that it would be closed for that.
    for _ in 0..7 {
        let request = b"GET /healthz HTTP/1.1\r\nHost: admin\r\n\r\n";
        if stream.write_all(request).await.is_err() {
            break;
        }
        let mut answer = [0; 1_024];
        match soon(stream.read(&mut answer)).await {
            Ok(length) if length > 0 => answers += 1,
            _ => break,
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(11)).await;
        tokio::time::resume();
    }
    assert!((4..7).contains(&answers), "{answers} answers");
    assert_eq!(ask(&server, "/healthz").await.0, 200);
}
