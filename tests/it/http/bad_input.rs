//! Invalid names and headers: they are refused, nothing on disk changes, and answers tell nothing.

use crate::support::wire::{Protocol, basic};
use crate::support::{ID, OTHER_ID, TestServer, backup_path, contents, write};

/// Paths that are not a backup's, though some file system or decoder might take them for one.
fn illegal_paths() -> Vec<String> {
    let upper = ID.to_uppercase();
    let (_, rest) = ID.split_at(1);
    let mut paths: Vec<String> = [
        "/backups/..",
        "/backups/../config",
        "/backups/../../accounts.json",
        "/backups/../../../../../../etc/passwd",
        "/backups/%2e%2e/config",
        "/backups/..%2f..%2faccounts.json",
        "/backups/%2e%2e%2f%2e%2e%2faccounts.json",
        "/backups/..%5c..%5caccounts.json",
        "/backups/..;/config",
        "/accounts.json",
        "/config.json",
        "/data/backups/",
        "/trash/",
        "/tmp/",
        "/tmp/x",
        "/state.json",
        "/.well-known/acme-challenge/x",
        "/backups/.",
        "/backups/%00",
        "/backups/x",
        "//",
        "/config/",
        "/CONFIG",
        "/conf%69g",
    ]
    .map(Into::into)
    .into();
    paths.extend([
        format!("/backups/{upper}"),
        format!("/backups/{rest}"),
        format!("/backups/{ID}0"),
        format!("/backups/{ID}%0a"),
        format!("/backups/{ID}%0d%0a"),
        format!("/backups/{ID}%00"),
        format!("/backups/{ID}%20"),
        format!("/backups/{ID}/"),
        format!("/backups/{ID}/."),
        format!("/backups/{ID}.4000000000"),
        format!("/backups/{ID};x"),
        format!("/backups/%30{rest}"),
        format!("/backups/0%36{}", rest.get(1..).unwrap()),
        format!("/backups/g{rest}"),
        format!("/backups%2f{ID}"),
        format!("/backups/%2f{ID}"),
        format!("//backups/{ID}"),
        format!("/backups//{ID}"),
        format!("/./backups/{ID}"),
        format!("/backups/./{ID}"),
        format!("/backups/../backups/{ID}"),
        format!("/backups/{OTHER_ID}/../{ID}"),
        format!("/Backups/{ID}"),
        format!("/trash/{ID}.4000000000"),
        format!("/{ID}"),
    ]);
    paths
}

#[tokio::test]
async fn an_invalid_name_is_not_found_and_nothing_is_touched() {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "mine").await;
    write(
        &server.site().data().join(format!("trash/{ID}.4000000000")),
        "removed",
    );
    server.settled().await;
    let before = contents(server.site().folder());
    for protocol in Protocol::BOTH {
        let mut clients = [
            server.phone(protocol).await,
            server.operator_client(protocol).await,
        ];
        for client in &mut clients {
            for path in illegal_paths() {
                for method in [
                    "GET", "PUT", "DELETE", "PROPFIND", "MKCOL", "MOVE", "COPY", "PATCH",
                ] {
                    let headers = [("depth", "1"), ("destination", "/backups/x")];
                    let answer = client.send(method, &path, &headers, "evil").await;
                    assert_eq!(answer.status, 404, "{method} {path}");
                    answer.assert_refused(404);
                }
            }
        }
    }
    assert!(before == contents(server.site().folder()));
}

#[tokio::test]
async fn bytes_that_no_path_may_contain_touch_nothing() {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "mine").await;
    server.settled().await;
    let before = contents(server.site().folder());
    for end in ["\n", "\0", "\t", "\r", "\x7f", " x", "\u{e9}"] {
        let mut raw = server.raw().await;
        raw.write(format!(
            "DELETE /backups/{ID}{end} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n",
            server.phones()
        ))
        .await;

        let answer = raw.answer().await;

        assert!([400, 404].contains(&answer.status), "{end:?}: {answer:?}");
    }
    assert!(before == contents(server.site().folder()));
}

#[tokio::test]
async fn nothing_of_a_refused_request_is_echoed() {
    const MARK: &str = "zzmarkzz";
    let server = TestServer::start().await;
    let path = format!("/backups/{MARK}");
    let stranger = basic(format!("{MARK}:{MARK}"));
    for protocol in Protocol::BOTH {
        let mut client = server.stranger(protocol).await;
        for authorization in [stranger.clone(), server.phones(), server.operator()] {
            for method in ["GET", "PUT", "DELETE", "PROPFIND", "OPTIONS", MARK] {
                for path in [&path as &str, "/config", "/backups/", &backup_path()] {
                    let headers = [
                        ("authorization", authorization.as_str()),
                        ("depth", MARK),
                        ("destination", MARK),
                        ("content-type", MARK),
                        ("content-range", MARK),
                        ("if-match", MARK),
                        ("origin", MARK),
                        (MARK, MARK),
                    ];
                    let answer = client.send(method, path, &headers, MARK).await;
                    let told = format!("{:?}{:?}", answer.headers, answer.body).to_lowercase();
                    assert!(!told.contains(MARK), "{method} {path}: {answer:?}");
                    assert!(!told.contains(ID), "{method} {path}: {answer:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_header_without_end_is_refused_and_the_server_goes_on() {
    let server = TestServer::start().await;
    let path = "/config";
    for length in [20_000, 400_000] {
        let mut raw = server.raw().await;
        let endless = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Long: {}",
            "x".repeat(length)
        );

        // The server may close before it has all of it, and the answer is then lost on the way.
        let written = raw.try_write(endless).await;
        let answer = raw.answer_before_end().await;

        match answer {
            Some(answer) => assert_eq!(answer.status, 431),
            None => assert!(written.is_err() || length > 100_000, "{length}"),
        }
    }
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(phone.ask("GET", path, &[]).await.status, 200);
}
