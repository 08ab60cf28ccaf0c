//! Authentication: requests with credentials, without, and where the configuration asks for none.

use std::fs;

use serde_json::json;
use threema_safe_server::account::{FileError, Role, Secret, update};
use threema_safe_server::server::StartError;

use crate::http::requests::CONFIG;
use crate::support::wire::{Protocol, basic, soon};
use crate::support::{
    ID, OTHER_ID, Site, TestServer, add_account, add_account_with, backup_path, write,
};

#[tokio::test]
async fn without_credentials_every_method_and_path_is_unauthorized() {
    let server = TestServer::start().await;
    let backup = backup_path();
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup, &[], "mine").await;
    let methods = [
        "GET",
        "HEAD",
        "PUT",
        "DELETE",
        "OPTIONS",
        "PROPFIND",
        "PROPPATCH",
        "MKCOL",
        "COPY",
        "MOVE",
        "LOCK",
        "UNLOCK",
        "POST",
        "PATCH",
        "TRACE",
        "REPORT",
        "WHATEVER",
    ];
    let absent = format!("/backups/{OTHER_ID}");
    let paths = [
        "/",
        "/config",
        "/backups",
        "/backups/",
        &backup,
        &absent,
        "/nothing",
        "/backups/nothing",
        "/../accounts.json",
    ];
    for protocol in Protocol::BOTH {
        // One connection carries them all: an iPhone asks first without, then with credentials.
        let mut stranger = server.stranger(protocol).await;
        for method in methods {
            for path in paths {
                if path == "/" && ["GET", "HEAD"].contains(&method) {
                    continue;
                }
                let answer = stranger.ask(method, path, &[]).await;
                if method == "HEAD" {
                    assert_eq!(answer.status, 401, "{path}");
                } else {
                    answer.assert_refused(401);
                }
            }
        }
        let authorization = server.phones();
        let read = stranger
            .ask("GET", &backup, &[("authorization", &authorization)])
            .await;
        assert_eq!((read.status, read.text()), (200, "mine"));
    }
}

#[tokio::test]
async fn an_upload_without_credentials_is_read_to_its_end_and_the_connection_stays() {
    let server = TestServer::start().await;
    let mut raw = server.raw().await;
    let body = vec![b'x'; 524_288];
    let head = |authorization: &str| {
        format!(
            "PUT {} HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Length: {}\r\n\r\n",
            backup_path(),
            body.len()
        )
    };

    raw.write(head("")).await;
    raw.write(&body).await;
    raw.answer().await.assert_refused(401);
    raw.write(head(&format!("Authorization: {}\r\n", server.phones())))
        .await;
    raw.write(&body).await;

    assert_eq!(raw.answer().await.status, 201);
    assert_eq!(fs::read(server.site().backup_file(ID)).unwrap(), body);
    let mut stranger = server.stranger(Protocol::Http2).await;
    for authorization in [basic("phones:wrong"), server.phones()] {
        let wrong = authorization != server.phones();
        let headers = [("authorization", authorization.as_str())];
        let answer = stranger
            .send("PUT", &backup_path(), &headers, body.clone())
            .await;
        assert_eq!(answer.status, if wrong { 401 } else { 204 });
    }
}

#[tokio::test]
async fn wrong_credentials_are_refused_alike() {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "mine").await;
    let (_, secret) = decode(&server.phones());
    let wrong = [
        basic("phones:wrong"),
        basic("phones:"),
        basic(format!("Phones:{secret}")),
        basic(format!("operator:{secret}")),
        basic(format!("nobody:{secret}")),
        basic(format!("phones:{secret} ")),
        basic(":"),
        basic("no colon"),
        "Basic".into(),
        "Basic !!!".into(),
        format!("Bearer {secret}"),
        String::new(),
    ];
    for protocol in Protocol::BOTH {
        let mut stranger = server.stranger(protocol).await;
        for authorization in &wrong {
            for (method, path) in [
                ("GET", "/config"),
                ("GET", &backup_path()),
                ("PUT", &backup_path()),
            ] {
                let headers = [("authorization", authorization.as_str())];
                let answer = stranger.send(method, path, &headers, "").await;
                answer.assert_refused(401);
                assert_eq!(answer.text(), "user name and password required\n");
            }
        }
    }
}

#[tokio::test]
async fn credentials_are_read_as_utf_8_and_as_iso_8859_1() {
    let site = Site::new();
    let secret = Secret::of_password("pässwört").unwrap();
    add_account_with(&site.accounts_file(), "jörg", Role::Phone, secret);
    let server = site.start().await;
    for protocol in Protocol::BOTH {
        let mut stranger = server.stranger(protocol).await;
        let utf_8 = "jörg:pässwört".as_bytes();
        let latin_1 = b"j\xf6rg:p\xe4ssw\xf6rt";
        for (credentials, status) in [(utf_8, 200), (latin_1, 200), (b"j?rg:p?ssw?rt", 401)] {
            let authorization = basic(credentials);
            let headers = [("authorization", authorization.as_str())];
            let answer = stranger.ask("GET", "/config", &headers).await;
            assert_eq!(answer.status, status, "{credentials:?}");
        }
    }
}

#[tokio::test]
async fn an_account_that_is_added_works_at_once_and_one_that_is_removed_not_for_long() {
    let server = TestServer::start().await;
    let mut stranger = server.stranger(Protocol::Http1).await;
    let accounts = server.site().accounts_file();
    let secret = add_account(&accounts, "new", Role::Phone);
    let authorization = basic(format!("new:{secret}"));
    let headers = [("authorization", authorization.as_str())];

    assert_eq!(stranger.ask("GET", "/config", &headers).await.status, 200);
    update(&accounts, |accounts| {
        accounts.retain(|account| account.name.as_str() != "new");
        Ok::<_, FileError>(())
    })
    .unwrap();

    // It works on until the file is checked, within a second.
    soon(async { while stranger.ask("GET", "/config", &headers).await.status == 200 {} }).await;
    stranger
        .ask("GET", "/config", &headers)
        .await
        .assert_refused(401);
}

#[tokio::test]
async fn anonymous_restore_opens_nothing_but_reading_a_backup() {
    let server = TestServer::start_with(json!({ "anonymousRestore": true })).await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "mine").await;
    for protocol in Protocol::BOTH {
        let mut stranger = server.stranger(protocol).await;

        let get = stranger.ask("GET", &backup_path(), &[]).await;
        let head = stranger.ask("HEAD", &backup_path(), &[]).await;

        assert_eq!((get.status, get.text()), (200, "mine"));
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("4"))
        );
        let absent = format!("/backups/{OTHER_ID}");
        // A 401 would make iOS 7.2 send the password of the backup.
        for method in ["GET", "HEAD"] {
            assert_eq!(stranger.ask(method, &absent, &[]).await.status, 404);
        }
        for (method, path) in [
            ("GET", "/config"),
            ("GET", "/backups/"),
            ("GET", "/nothing"),
            ("PUT", &backup_path() as &str),
            ("PUT", &absent),
            ("DELETE", &backup_path()),
            ("OPTIONS", &backup_path()),
            ("PROPFIND", &backup_path()),
            ("PROPFIND", "/backups/"),
        ] {
            let answer = stranger.send(method, path, &[("depth", "0")], "").await;
            answer.assert_refused(401);
        }
        // Credentials that are shown are verified.
        let wrong = basic("phones:wrong");
        let headers = [("authorization", wrong.as_str())];
        stranger
            .ask("GET", &backup_path(), &headers)
            .await
            .assert_refused(401);
    }
    assert_eq!(fs::read(server.site().backup_file(ID)).unwrap(), b"mine");
}

#[tokio::test]
async fn with_access_for_all_no_accounts_are_needed() {
    let site = Site::new().with(json!({ "allowAnonymous": true }));
    fs::remove_file(site.accounts_file()).unwrap();
    let server = site.start().await;
    for protocol in Protocol::BOTH {
        let mut stranger = server.stranger(protocol).await;

        let config = stranger.ask("GET", "/config", &[]).await;
        let put = stranger.send("PUT", &backup_path(), &[], "x").await;
        let listing = stranger
            .ask("PROPFIND", "/backups/", &[("depth", "1")])
            .await;
        let anything = basic("who:cares");
        let headers = [("authorization", anything.as_str())];
        let with = stranger.ask("GET", &backup_path(), &headers).await;
        let removed = stranger.ask("DELETE", &backup_path(), &[]).await;

        assert_eq!(config.text(), CONFIG);
        assert_eq!((put.status, with.status, removed.status), (201, 200, 204));
        assert_eq!(listing.hrefs(), ["/backups/"]);
        stranger
            .ask("GET", "/nothing", &[])
            .await
            .assert_refused(404);
    }
}

#[tokio::test]
async fn with_access_for_all_the_first_account_has_its_password_verified_at_once() {
    let site = Site::new().with(json!({ "allowAnonymous": true }));
    fs::remove_file(site.accounts_file()).unwrap();
    let server = site.start().await;
    let mut stranger = server.stranger(Protocol::Http1).await;
    let wrong = basic("phones:wrong");
    let headers = [("authorization", wrong.as_str())];
    assert_eq!(stranger.ask("GET", "/config", &headers).await.status, 200);

    add_account(&server.site().accounts_file(), "phones", Role::Phone);

    stranger
        .ask("GET", "/config", &headers)
        .await
        .assert_refused(401);
}

#[tokio::test]
async fn with_access_for_all_an_operator_still_needs_credentials_to_list() {
    let server = TestServer::start_with(json!({ "allowAnonymous": true })).await;
    let mut stranger = server.stranger(Protocol::Http1).await;
    let mut operator = server.operator_client(Protocol::Http1).await;
    stranger.send("PUT", &backup_path(), &[], "x").await;

    let anonymous = stranger
        .ask("PROPFIND", "/backups/", &[("depth", "1")])
        .await;
    let named = operator
        .ask("PROPFIND", "/backups/", &[("depth", "1")])
        .await;
    let wrong = basic("operator:wrong");
    let headers = [("depth", "1"), ("authorization", wrong.as_str())];
    let mistyped = stranger.ask("PROPFIND", "/backups/", &headers).await;

    assert_eq!(anonymous.hrefs(), ["/backups/"]);
    assert_eq!(named.hrefs(), ["/backups/", &backup_path()]);
    mistyped.assert_refused(401);
}

#[tokio::test]
async fn a_server_without_accounts_does_not_start() {
    let site = Site::new();
    for accounts in [Some(r#"{"accounts": []}"#), None] {
        match accounts {
            Some(text) => write(&site.accounts_file(), text),
            None => fs::remove_file(site.accounts_file()).unwrap(),
        }

        let Err(StartError::Configuration(problems)) = site.bind().await else {
            panic!("it started with {accounts:?}");
        };

        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].place, "accountsFile");
    }
}

/// Name and secret of a Basic header.
fn decode(authorization: &str) -> (String, String) {
    use base64::Engine;
    let encoded = authorization.strip_prefix("Basic ").unwrap();
    let decoded = base64::prelude::BASE64_STANDARD.decode(encoded).unwrap();
    let text = String::from_utf8(decoded).unwrap();
    let (name, secret) = text.split_once(':').unwrap();
    (name.into(), secret.into())
}
