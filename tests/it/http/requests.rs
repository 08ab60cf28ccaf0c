//! Requests and their answers, as a table, over HTTP/1.1 and HTTP/2.
//!
//! Over 500 lines: one test for each request and answer of the protocol.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use crate::support::wire::{Protocol, Raw, unfinished, whole};
use crate::support::{ID, OTHER_ID, Site, TestServer, backup_path, names, set_modified, write};

pub(crate) const CONFIG: &str = r#"{"maxBackupBytes":524288,"retentionDays":180}"#;

#[tokio::test]
async fn config_is_exactly_what_the_apps_read() {
    let server = TestServer::start().await;
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;

        let get = phone
            .ask("GET", "/config", &[("accept-encoding", "gzip, br")])
            .await;
        let head = phone.ask("HEAD", "/config", &[]).await;

        for answer in [&get, &head] {
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("content-length"), Some("45"));
            assert_eq!(answer.header("content-encoding"), None);
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
        assert_eq!(get.text(), CONFIG);
        assert_eq!(head.text(), "");
    }
}

#[tokio::test]
async fn config_says_what_is_configured() {
    let server =
        TestServer::start_with(json!({ "maxBackupBytes": 1_048_576, "retentionDays": 30 })).await;
    let mut phone = server.phone(Protocol::Http1).await;

    let answer = phone.ask("GET", "/config", &[]).await;

    assert_eq!(
        answer.text(),
        r#"{"maxBackupBytes":1048576,"retentionDays":30}"#
    );
}

#[tokio::test]
async fn config_goes_out_in_one_tls_record_under_4096_bytes() {
    let server = TestServer::start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut raw = Raw::connect(&server, &[b"http/1.1"], &[version])
            .await
            .unwrap();
        raw.records();

        raw.write(format!(
            "GET /config HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n",
            server.phones()
        ))
        .await;
        let answer = raw.answer().await;

        assert_eq!(answer.text(), CONFIG);
        let records = raw.records();
        assert!(
            matches!(records[..], [(23, length)] if length < 4096),
            "{records:?}"
        );
    }
}

#[tokio::test]
async fn a_backup_is_stored_replaced_read_and_removed() {
    let server = TestServer::start().await;
    let path = backup_path();
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;

        phone.ask("GET", &path, &[]).await.assert_refused(404);
        let created = phone.send("PUT", &path, &[], "first").await;
        let first = phone.ask("GET", &path, &[]).await;
        let replaced = phone.send("PUT", &path, &[], "second!").await;
        let second = phone.ask("GET", &path, &[]).await;
        let head = phone.ask("HEAD", &path, &[]).await;

        assert_eq!((created.status, replaced.status), (201, 204));
        assert!(created.body.is_empty() && replaced.body.is_empty());
        assert_eq!((first.status, first.text()), (200, "first"));
        assert_eq!((second.status, second.text()), (200, "second!"));
        assert_eq!((head.status, head.text()), (200, ""));
        for answer in [&first, &second, &head] {
            assert_eq!(
                answer.header("content-type"),
                Some("application/octet-stream")
            );
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert!(answer.header("last-modified").unwrap().ends_with(" GMT"));
            let etag = answer.header("etag").unwrap();
            assert!(
                etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'),
                "{etag}"
            );
        }
        assert_eq!(second.header("content-length"), Some("7"));
        assert_eq!(head.header("content-length"), Some("7"));
        assert_eq!(head.header("etag"), second.header("etag"));
        assert_ne!(first.header("etag"), second.header("etag"));
        assert_eq!(created.header("etag"), first.header("etag"));
        assert_eq!(replaced.header("etag"), second.header("etag"));
        let file = server.site().backup_file(ID);
        assert_eq!(fs::read(&file).unwrap(), b"second!");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );

        let removed = phone.ask("DELETE", &path, &[]).await;
        assert_eq!((removed.status, removed.text()), (204, ""));
        phone.ask("DELETE", &path, &[]).await.assert_refused(404);
        phone.ask("GET", &path, &[]).await.assert_refused(404);
        let head = phone.ask("HEAD", &path, &[]).await;
        assert_eq!(head.status, 404);
    }
}

#[tokio::test]
async fn what_a_phone_removes_lies_in_the_trash() {
    let server = Site::new()
        .clock(|| UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .start()
        .await;
    let mut phone = server.phone(Protocol::Http1).await;
    for contents in ["one", "two"] {
        phone.send("PUT", &backup_path(), &[], contents).await;
        let removed = phone.ask("DELETE", &backup_path(), &[]).await;
        assert_eq!(removed.status, 204);
    }

    let data = server.site().data();
    assert!(names(&data.join("backups")).is_empty());
    let expected = [
        format!("{ID}.1800000000"),
        // Removed in the same second: nothing in the trash is replaced.
        format!("{ID}.1800000001"),
    ];
    assert_eq!(names(&data.join("trash")), expected);
    for (name, contents) in expected.iter().zip(["one", "two"]) {
        let file = data.join("trash").join(name);
        assert_eq!(fs::read(file).unwrap(), contents.as_bytes());
    }
}

#[tokio::test]
async fn the_same_bytes_uploaded_again_renew_the_backup() {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "same").await;
    let file = server.site().backup_file(ID);
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    set_modified(&file, long_ago);
    let before = phone.ask("HEAD", &backup_path(), &[]).await;

    let again = phone.send("PUT", &backup_path(), &[], "same").await;

    assert_eq!(again.status, 204);
    let after = phone.ask("HEAD", &backup_path(), &[]).await;
    assert_eq!(
        before.header("last-modified"),
        Some("Tue, 14 Nov 2023 22:13:20 GMT")
    );
    assert_ne!(
        after.header("last-modified"),
        before.header("last-modified")
    );
    assert_ne!(after.header("etag"), before.header("etag"));
}

#[tokio::test]
async fn the_limit_is_inclusive_and_empty_is_refused() {
    let server = TestServer::start_with(json!({ "maxBackupBytes": 4096 })).await;
    let path = backup_path();
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;

        phone
            .send("PUT", &path, &[], vec![7; 4097])
            .await
            .assert_refused(413);
        phone
            .ask("PUT", &path, &[("content-length", "0")])
            .await
            .assert_refused(400);
        assert!(names(&server.site().data().join("backups")).is_empty());
        let largest = phone.send("PUT", &path, &[], vec![8; 4096]).await;
        phone
            .send("PUT", &path, &[], vec![7; 4097])
            .await
            .assert_refused(413);
        phone
            .ask("PUT", &path, &[("content-length", "0")])
            .await
            .assert_refused(400);

        assert_eq!(largest.status, 201);
        let stored = phone.ask("GET", &path, &[]).await;
        assert_eq!(stored.body, vec![8; 4096]);
        phone.ask("DELETE", &path, &[]).await;
    }
}

#[tokio::test]
async fn too_large_is_said_from_the_header_alone_on_http_1() {
    let server = TestServer::start_with(json!({ "maxBackupBytes": 4096 })).await;
    let mut raw = server.raw().await;
    let head = |length: u64| {
        format!(
            "PUT {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Length: {length}\r\n\r\n",
            backup_path(),
            server.phones()
        )
    };

    raw.write(head(4097)).await;
    raw.answer().await.assert_refused(413);
    // A client that sends the body all the same keeps the connection.
    raw.write([7; 4097]).await;
    raw.write(head(2)).await;
    raw.write("ok").await;
    assert_eq!(raw.answer().await.status, 201);

    raw.write(head(1 << 60)).await;
    raw.answer().await.assert_refused(413);
    assert_eq!(fs::read(server.site().backup_file(ID)).unwrap(), b"ok");
}

#[tokio::test]
async fn too_large_is_said_from_the_header_alone_on_http_2() {
    let server = TestServer::start_with(json!({ "maxBackupBytes": 4096 })).await;
    let mut phone = server.phone(Protocol::Http2).await;
    for length in ["4097", "9223372036854775807"] {
        let answer = phone
            .send_body(
                "PUT",
                &backup_path(),
                &[("content-length", length)],
                unfinished(b""),
            )
            .await
            .unwrap();

        answer.assert_refused(413);
    }
    let after = phone.send("PUT", &backup_path(), &[], "ok").await;
    assert_eq!(after.status, 201);
}

#[tokio::test]
async fn a_body_that_is_held_back_until_it_is_wanted_is_asked_for_only_then() {
    let server = TestServer::start().await;
    let mut raw = server.raw().await;
    let head = |length: u64, authorization: &str| {
        format!(
            "PUT {} HTTP/1.1\r\nHost: localhost\r\n{authorization}Expect: 100-continue\r\n\
             Content-Length: {length}\r\n\r\n",
            backup_path(),
        )
    };
    let phones = format!("Authorization: {}\r\n", server.phones());

    raw.write(head(2, &phones)).await;
    assert_eq!(raw.answer().await.status, 100);
    raw.write("ok").await;
    assert_eq!(raw.answer().await.status, 201);

    for (length, authorization, status) in [(2, "", 401), (600_000, &phones as &str, 413)] {
        let mut raw = server.raw().await;
        raw.write(head(length, authorization)).await;
        raw.answer().await.assert_refused(status);
    }
}

#[tokio::test]
async fn options_tells_of_webdav_without_locks() {
    let server = TestServer::start().await;
    let backup = backup_path();
    let cases = [
        ("/", "GET, HEAD, OPTIONS, PROPFIND"),
        ("/config", "GET, HEAD, OPTIONS, PROPFIND"),
        ("/backups", "OPTIONS, PROPFIND"),
        ("/backups/", "OPTIONS, PROPFIND"),
        (&backup, "DELETE, GET, HEAD, OPTIONS, PROPFIND, PUT"),
    ];
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        for (path, allow) in cases {
            let answer = phone.ask("OPTIONS", path, &[]).await;

            assert_eq!((answer.status, answer.text()), (200, ""), "{path}");
            assert_eq!(answer.header("dav"), Some("1"), "{path}");
            assert_eq!(answer.header("allow"), Some(allow), "{path}");
        }
        phone
            .ask("OPTIONS", "/nothing", &[])
            .await
            .assert_refused(404);
    }
}

#[tokio::test]
async fn an_operator_sees_everything_that_there_is_to_copy() {
    let server = TestServer::start().await;
    let other = format!("/backups/{OTHER_ID}");
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        phone.send("PUT", &backup_path(), &[], "twelve bytes").await;
        phone.send("PUT", &other, &[], "x").await;
        let mut operator = server.operator_client(protocol).await;
        // What is not a backup is not listed.
        write(&server.site().data().join("backups/notes.txt"), "mine");

        let root = operator.ask("PROPFIND", "/", &[("depth", "1")]).await;
        let backups = operator
            .ask("PROPFIND", "/backups/", &[("depth", "1")])
            .await;
        let only_root = operator.ask("PROPFIND", "/", &[("depth", "0")]).await;
        let only_backups = operator
            .ask("PROPFIND", "/backups", &[("depth", "0")])
            .await;
        let one = operator
            .ask("PROPFIND", &backup_path(), &[("depth", "0")])
            .await;
        let config = operator.ask("PROPFIND", "/config", &[("depth", "1")]).await;

        assert_eq!(root.hrefs(), ["/", "/backups/", "/config"]);
        assert_eq!(backups.hrefs(), ["/backups/", &backup_path(), &other]);
        assert_eq!(only_root.hrefs(), ["/"]);
        assert_eq!(only_backups.hrefs(), ["/backups/"]);
        assert_eq!(one.hrefs(), [backup_path()]);
        assert_eq!(config.hrefs(), ["/config"]);
        assert!(
            one.text()
                .contains("<D:getcontentlength>12</D:getcontentlength>"),
            "{one:?}"
        );
        assert!(one.text().contains("<D:getlastmodified>"), "{one:?}");
        assert!(
            config
                .text()
                .contains("<D:getcontentlength>45</D:getcontentlength>")
        );
    }
}

#[tokio::test]
async fn an_etag_is_the_same_in_a_listing_and_in_a_header() {
    let server = TestServer::start().await;
    let mut maintainer = server.maintainer_client(Protocol::Http1).await;
    maintainer.send("PUT", &backup_path(), &[], "x").await;
    let head = maintainer.ask("HEAD", &backup_path(), &[]).await;
    let etag = head.header("etag").unwrap();
    let body = r#"<?xml version="1.0"?><d:propfind xmlns:d="DAV:"><d:prop><d:getetag/></d:prop></d:propfind>"#;

    for path in [&backup_path(), "/backups/"] {
        let listing = maintainer
            .send("PROPFIND", path, &[("depth", "1")], body)
            .await;

        let (_, rest) = listing.text().split_once("<D:getetag>").unwrap();
        let (listed, _) = rest.split_once("</D:getetag>").unwrap();
        assert_eq!(listed.replace("&quot;", "\""), etag);
    }
}

#[tokio::test]
async fn a_phone_sees_an_empty_collection() {
    let server = TestServer::start().await;
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        phone.send("PUT", &backup_path(), &[], "x").await;

        let backups = phone.ask("PROPFIND", "/backups/", &[("depth", "1")]).await;
        let root = phone.ask("PROPFIND", "/", &[("depth", "1")]).await;
        let one = phone
            .ask("PROPFIND", &backup_path(), &[("depth", "0")])
            .await;

        assert_eq!(backups.hrefs(), ["/backups/"]);
        assert_eq!(root.hrefs(), ["/", "/backups/", "/config"]);
        for answer in [&backups, &root] {
            assert!(!answer.text().contains(ID), "{answer:?}");
        }
        one.assert_refused(404);
        let read = phone.ask("GET", &backup_path(), &[]).await;
        assert_eq!((read.status, read.text()), (200, "x"));
    }
}

#[tokio::test]
async fn a_propfind_of_everything_is_refused() {
    let server = TestServer::start().await;
    for protocol in Protocol::BOTH {
        let mut operator = server.operator_client(protocol).await;
        for path in ["/", "/backups/", "/config"] {
            let cases: [&[(&str, &str)]; 5] = [
                &[],
                &[("depth", "infinity")],
                &[("depth", "2")],
                &[("depth", "0, 1")],
                &[("depth", "")],
            ];
            for depth in cases {
                let answer = operator.ask("PROPFIND", path, depth).await;
                answer.assert_refused(403);
            }
        }
    }
}

#[tokio::test]
async fn the_page_for_people_needs_no_credentials_and_tells_no_secret() {
    let site = Site::new().with(json!({ "publicUrl": "https://safe.example.org/" }));
    let server = site.start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "x").await;
    for protocol in Protocol::BOTH {
        let mut stranger = server.stranger(protocol).await;

        let page = stranger.ask("GET", "/", &[]).await;
        let head = stranger.ask("HEAD", "/", &[]).await;

        for answer in [&page, &head] {
            assert_eq!(answer.status, 200);
            assert_eq!(
                answer.header("content-type"),
                Some("text/html; charset=utf-8")
            );
            assert!(answer.header("content-security-policy").is_some());
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        }
        assert!(head.body.is_empty());
        assert!(
            page.text().contains("https://safe.example.org/"),
            "{page:?}"
        );
        for secret in [ID, "phones", "operator"] {
            assert!(!page.text().contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn methods_that_are_not_offered_are_refused_with_those_that_are() {
    let server = TestServer::start().await;
    let backup = backup_path();
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        let cases = [
            ("GET", "/backups/", "OPTIONS, PROPFIND"),
            ("GET", "/backups", "OPTIONS, PROPFIND"),
            ("PUT", "/backups/", "OPTIONS, PROPFIND"),
            ("PUT", "/config", "GET, HEAD, OPTIONS, PROPFIND"),
            ("DELETE", "/config", "GET, HEAD, OPTIONS, PROPFIND"),
            ("POST", "/", "GET, HEAD, OPTIONS, PROPFIND"),
            ("PUT", "/", "GET, HEAD, OPTIONS, PROPFIND"),
            ("POST", &backup, "DELETE, GET, HEAD, OPTIONS, PROPFIND, PUT"),
            (
                "WHATEVER",
                &backup,
                "DELETE, GET, HEAD, OPTIONS, PROPFIND, PUT",
            ),
            ("get", &backup, "DELETE, GET, HEAD, OPTIONS, PROPFIND, PUT"),
        ];
        for (method, path, allow) in cases {
            let answer = phone.send(method, path, &[], "x").await;
            answer.assert_refused(405);
            assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        }
        for method in ["GET", "PUT", "DELETE", "POST", "PROPFIND"] {
            phone
                .ask(method, "/nothing", &[("depth", "1")])
                .await
                .assert_refused(404);
        }
    }
}

#[tokio::test]
async fn everything_is_under_the_base_path_with_and_without_slash() {
    for base in ["/a/safe", "/a/safe/"] {
        let server = TestServer::start_with(json!({ "basePath": base })).await;
        for protocol in Protocol::BOTH {
            let mut maintainer = server.maintainer_client(protocol).await;
            let mut stranger = server.stranger(protocol).await;
            let backup = format!("/a/safe/backups/{ID}");

            let put = maintainer.send("PUT", &backup, &[], "x").await;
            let config = maintainer.ask("GET", "/a/safe/config", &[]).await;
            let listing = maintainer
                .ask("PROPFIND", "/a/safe", &[("depth", "1")])
                .await;
            let backups = maintainer
                .ask("PROPFIND", "/a/safe/backups", &[("depth", "1")])
                .await;
            let removed = maintainer.ask("DELETE", &backup, &[]).await;

            assert_eq!((put.status, removed.status), (201, 204));
            assert_eq!(config.text(), CONFIG);
            assert_eq!(
                listing.hrefs(),
                ["/a/safe/", "/a/safe/backups/", "/a/safe/config"]
            );
            assert_eq!(backups.hrefs(), ["/a/safe/backups/", &backup]);
            for page in ["/a/safe", "/a/safe/"] {
                assert_eq!(stranger.ask("GET", page, &[]).await.status, 200, "{page}");
            }
            for path in [
                "/",
                "/config",
                "/a",
                "/a/",
                "/a/safe//config",
                &backup_path(),
            ] {
                maintainer.ask("GET", path, &[]).await.assert_refused(404);
                stranger.ask("GET", path, &[]).await.assert_refused(401);
            }
        }
    }
}

#[tokio::test]
async fn conditions_of_a_request_are_kept() {
    let server = TestServer::start().await;
    let path = backup_path();
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        let only_new = [("if-none-match", "*")];
        assert_eq!(
            phone.send("PUT", &path, &only_new, "first").await.status,
            201
        );
        phone
            .send("PUT", &path, &only_new, "other")
            .await
            .assert_refused(412);
        let first = phone.ask("GET", &path, &[]).await;
        assert_eq!(first.text(), "first");
        let etag = first.header("etag").unwrap();
        let modified = first.header("last-modified").unwrap();

        for headers in [("if-none-match", etag), ("if-modified-since", modified)] {
            for method in ["GET", "HEAD"] {
                let unchanged = phone.ask(method, &path, &[headers]).await;
                assert_eq!(
                    (unchanged.status, unchanged.text()),
                    (304, ""),
                    "{headers:?}"
                );
                assert_eq!(unchanged.header("etag"), Some(etag));
            }
        }
        let stale = [("if-match", r#""0""#)];
        phone
            .send("PUT", &path, &stale, "other")
            .await
            .assert_refused(412);
        phone.ask("DELETE", &path, &stale).await.assert_refused(412);
        let past = [("if-unmodified-since", "Tue, 14 Nov 2023 22:13:20 GMT")];
        phone
            .send("PUT", &path, &past, "other")
            .await
            .assert_refused(412);
        assert_eq!(phone.ask("GET", &path, &[]).await.text(), "first");
        let fresh = [("if-match", etag)];
        assert_eq!(phone.send("PUT", &path, &fresh, "second").await.status, 204);
        phone
            .send("PUT", &path, &fresh, "third")
            .await
            .assert_refused(412);
        let changed = phone.ask("GET", &path, &[("if-none-match", etag)]).await;
        assert_eq!((changed.status, changed.text()), (200, "second"));
        phone.ask("DELETE", &path, &[]).await;
        phone
            .send("PUT", &path, &[("if-match", "*")], "x")
            .await
            .assert_refused(412);
        assert!(names(&server.site().data().join("backups")).is_empty());
    }
}

#[tokio::test]
async fn a_part_is_never_answered_when_a_range_is_asked_for() {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "0123456789").await;

    let answer = phone
        .ask("GET", &backup_path(), &[("range", "bytes=2-3")])
        .await;

    assert_eq!((answer.status, answer.text()), (200, "0123456789"));
    assert_eq!(answer.header("accept-ranges"), None);
}

#[tokio::test]
async fn a_large_backup_survives_the_way_there_and_back() {
    let server = TestServer::start().await;
    let backup: Vec<u8> = (0..524_288_u32)
        .map(|number| number.to_le_bytes()[1] ^ 0x5a)
        .collect();
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        let path = backup_path();

        let put = phone
            .send_body("PUT", &path, &[], whole(backup.clone()))
            .await
            .unwrap();
        let get = phone.ask("GET", &path, &[]).await;

        assert!([201, 204].contains(&put.status));
        assert!(get.body == backup);
    }
}
