//! Start and graceful shutdown.

use std::fs;
use std::net::SocketAddr;

use futures_util::stream::{self, StreamExt};
use serde_json::json;
use threema_safe_server::config::Listen;
use threema_safe_server::server::StartError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::wire::{Protocol, Raw, pieces, soon};
use crate::support::{ID, Site, TestServer, backup_path, names, write};

static BACKUP: [u8; 100_000] = [7; 100_000];

/// Begins an upload of [`BACKUP`] and sends half of it; the server is waiting for the rest.
async fn half_an_upload(server: &TestServer) -> Raw {
    let mut raw = server.raw().await;
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        backup_path(),
        server.phones(),
        BACKUP.len()
    );
    raw.write(head).await;
    // Only a server that reads the body asks for it.
    assert_eq!(raw.answer().await.status, 100);
    raw.write(&BACKUP[..50_000]).await;
    raw
}

/// Returns when the address has no listener any more.
async fn refused(address: SocketAddr) {
    soon(async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_under_way_finishes_after_the_stop_and_no_new_client_is_accepted() {
    let server = TestServer::start().await;
    let address = server.address();
    let mut upload = half_an_upload(&server).await;
    let mut idle = server.raw().await;

    let stopping = server.begin_stop();
    refused(address).await;
    idle.assert_ended().await;
    upload.write(&BACKUP[50_000..]).await;

    assert_eq!(upload.answer().await.status, 201);
    upload.assert_ended().await;
    let site = stopping.stopped().await;
    assert!(fs::read(site.backup_file(ID)).unwrap() == BACKUP);
}

#[tokio::test]
async fn an_upload_on_http_2_finishes_after_the_stop() {
    let server = TestServer::start().await;
    let address = server.address();
    let mut phone = server.phone(Protocol::Http2).await;
    let (first, rest) = BACKUP.split_at(65_536);
    let (begun, has_begun) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    // The first piece fills the window: the second is asked for only when the server has read of
    // it.
    let second = async move {
        begun.send(()).unwrap();
        may_go_on.await.unwrap();
        Ok(rest)
    };
    let body = pieces(stream::iter([Ok(first)]).chain(stream::once(second)));
    let length = BACKUP.len().to_string();

    let uploading = tokio::spawn(async move {
        let length = [("content-length", length.as_str())];
        phone.send_body("PUT", &backup_path(), &length, body).await
    });
    soon(has_begun).await.unwrap();
    let stopping = server.begin_stop();
    refused(address).await;
    go_on.send(()).unwrap();

    assert_eq!(soon(uploading).await.unwrap().unwrap().status, 201);
    let site = stopping.stopped().await;
    assert!(fs::read(site.backup_file(ID)).unwrap() == BACKUP);
}

#[tokio::test]
async fn an_upload_that_does_not_end_is_cut_off_and_the_old_backup_stays() {
    let site = Site::new().with(json!({ "limits": { "drainSeconds": 1 } }));
    site.place_backup(ID, b"old", crate::support::now());
    let server = site.start().await;
    server.settled().await;
    let _upload = half_an_upload(&server).await;

    let site = server.stop().await;

    assert_eq!(fs::read(site.backup_file(ID)).unwrap(), b"old");
    assert!(names(&site.data().join("tmp")).is_empty());
}

#[tokio::test]
async fn idle_connections_and_silent_ones_do_not_delay_the_stop() {
    // Longer than the tests' patience: a test that waits for these fails.
    let limits = json!({ "handshakeSeconds": 3600, "headerSeconds": 3600, "drainSeconds": 3600 });
    let server = TestServer::start_with(json!({ "limits": limits })).await;
    let _silent = server.tcp().await;
    let _idle = server.raw().await;
    let mut http_2 = server.phone(Protocol::Http2).await;
    assert_eq!(http_2.ask("GET", "/config", &[]).await.status, 200);

    server.stop().await;
}

#[tokio::test]
async fn a_listener_without_clients_takes_no_connection_slot() {
    let two = json!({ "listen": ["127.0.0.1:0", "127.0.0.1:0"], "limits": { "connections": 1 } });
    let server = TestServer::start_with(two).await;
    for _ in 0..3 {
        let mut phone = server.phone(Protocol::Http1).await;
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn an_upload_for_which_there_is_no_memory_waits_and_is_then_refused_with_503() {
    let limits = json!({ "maxBackupBytes": 100_000, "limits": { "uploadMemoryBytes": 100_000 } });
    let server = TestServer::start_with(limits).await;
    let mut first = half_an_upload(&server).await;
    let mut second = server.phone(Protocol::Http1).await;

    // The server gives up on it after ten seconds, and says when to come again.
    let refused = second.send("PUT", &backup_path(), &[], "new").await;
    refused.assert_refused(503);
    assert_eq!(refused.header("retry-after"), Some("30"));

    first.write(&BACKUP[50_000..]).await;
    assert_eq!(first.answer().await.status, 201);
    let accepted = second.send("PUT", &backup_path(), &[], "new").await;
    assert_eq!(accepted.status, 204);
}

#[tokio::test]
async fn what_an_earlier_server_left_behind_is_swept() {
    let site = Site::new();
    site.place_backup(ID, b"backup", crate::support::now());
    let tmp = site.data().join("tmp");
    fs::create_dir_all(&tmp).unwrap();
    write(&tmp.join(".0123456789abcdef.tmp"), "half an upload");
    let trash = site.data().join("trash");
    fs::create_dir_all(&trash).unwrap();
    // Of a start that was killed while it tried whether the directories can be written.
    write(&site.data().join("backups/.trial.tmp"), "");
    write(&trash.join(".trial.tmp"), "");

    let server = site.start().await;
    server.settled().await;

    assert!(names(&tmp).is_empty());
    assert!(names(&trash).is_empty());
    assert_eq!(names(&server.site().data().join("backups")), [ID]);
}

#[tokio::test]
async fn a_server_that_starts_again_has_the_same_backups() {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "backup").await;
    let before = phone.ask("GET", &backup_path(), &[]).await;

    let server = server.stop().await.start().await;

    let mut phone = server.phone(Protocol::Http1).await;
    let after = phone.ask("GET", &backup_path(), &[]).await;
    assert_eq!((after.status, after.text()), (200, "backup"));
    for header in ["etag", "last-modified"] {
        assert_eq!(after.header(header), before.header(header));
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_until_the_first_has_stopped() {
    let server = TestServer::start().await;

    let Err(StartError::Configuration(problems)) = server.site().bind().await else {
        panic!("two servers on one directory");
    };
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].place, "storage.files.directory");
    assert!(
        problems[0].text.contains("in use by another server"),
        "{}",
        problems[0]
    );

    let site = server.stop().await;
    assert!(site.bind().await.is_ok());
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let server = TestServer::start().await;
    let taken = server.address();
    let other = Site::new().with(json!({ "listen": [taken.to_string()] }));

    let Err(StartError::Listen { key, address, .. }) = other.bind().await else {
        panic!("two servers on one port");
    };

    assert_eq!((key, address), ("listen", Listen::Tcp(taken)));
}

#[tokio::test]
async fn everything_that_the_configuration_names_is_looked_at_at_once() {
    let site = Site::new();
    fs::remove_file(site.folder().join("certs/privkey.pem")).unwrap();
    write(&site.accounts_file(), "{");
    write(&site.data(), "not a directory");

    let Err(StartError::Configuration(problems)) = site.bind().await else {
        panic!("started with nothing");
    };

    let places: Vec<_> = problems
        .iter()
        .map(|problem| problem.place.as_str())
        .collect();
    assert_eq!(places, ["tls", "accountsFile", "storage.files.directory"]);
    assert!(
        problems[0].text.contains("privkey.pem cannot be read"),
        "{}",
        problems[0]
    );
}

#[tokio::test]
async fn certificate_and_key_must_be_a_pair() {
    let (site, other) = (Site::new(), Site::new());
    let key = fs::read(other.folder().join("certs/privkey.pem")).unwrap();
    write(&site.folder().join("certs/privkey.pem"), key);

    let Err(StartError::Configuration(problems)) = site.bind().await else {
        panic!("started with another's key");
    };

    assert!(
        problems[0]
            .text
            .starts_with("the private key cannot be used"),
        "{}",
        problems[0]
    );
}

#[tokio::test]
async fn the_admin_listener_says_that_the_server_is_alive_and_nothing_else() {
    let server = TestServer::start().await;
    for (path, status) in [
        ("/healthz", "200"),
        ("/", "200"),
        ("/config", "404"),
        ("/backups/", "404"),
    ] {
        let mut stream = TcpStream::connect(server.admin_address()).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
    }
}
