//! Guards in front of dav-server and hyper, with a test for each: without the guard, a server was
//! seen to fail.
//!
//! Over 500 lines: one test for each guard.

use std::fs;

use futures_util::stream;
use serde_json::json;

use crate::support::wire::{Protocol, Raw, pieces, soon, whole};
use crate::support::{ID, OTHER_ID, TestServer, backup_path, names};

/// The head of a request of the phone account, with these lines in it.
fn head(server: &TestServer, method: &str, lines: &str) -> String {
    format!(
        "{method} {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n{lines}\r\n",
        backup_path(),
        server.phones()
    )
}

/// A server with two backups, `old` and `other`.
async fn server_with_backups() -> TestServer {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    for (id, contents) in [(ID, "old"), (OTHER_ID, "other")] {
        let put = phone
            .send("PUT", &format!("/backups/{id}"), &[], contents)
            .await;
        assert_eq!(put.status, 201);
    }
    server.settled().await;
    server
}

#[track_caller]
fn assert_untouched(server: &TestServer) {
    let site = server.site();
    assert_eq!(names(&site.data().join("backups")), [ID, OTHER_ID]);
    assert_eq!(fs::read(site.backup_file(ID)).unwrap(), b"old");
    assert_eq!(fs::read(site.backup_file(OTHER_ID)).unwrap(), b"other");
    assert!(names(&site.data().join("trash")).is_empty());
    assert!(names(&site.data().join("tmp")).is_empty());
}

async fn assert_alive(server: &TestServer) {
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
}

#[tokio::test]
async fn nested_xml_is_refused_before_it_is_parsed() {
    let server = TestServer::start().await;
    let depth = [("depth", "0")];
    // Within the limit of 2 KiB, and the 5.9 KB that end a process with a stack of 2 MiB.
    let small = "<a>".repeat(680);
    let large = "<a>".repeat(2_000);
    let closed = format!("{}{}", "<a>".repeat(200), "</a>".repeat(200));
    for protocol in Protocol::BOTH {
        let mut stranger = server.stranger(protocol).await;
        let mut operator = server.operator_client(protocol).await;
        for path in ["/", "/backups/", "/config", &backup_path()] {
            for body in [&small, &large, &closed] {
                let answer = stranger.send("PROPFIND", path, &depth, body.clone()).await;
                answer.assert_refused(401);
                let answer = operator.send("PROPFIND", path, &depth, body.clone()).await;
                answer.assert_refused(if body == &large { 413 } else { 400 });
            }
        }
        assert_alive(&server).await;
    }
}

#[tokio::test]
async fn xml_that_hides_its_nesting_is_refused() {
    let server = TestServer::start().await;
    let mut operator = server.operator_client(Protocol::Http1).await;
    for body in [
        "<!DOCTYPE a [<!ENTITY x \"xxxx\">]><a>&x;</a>",
        "<propfind xmlns='DAV:'><!-- <a> --><allprop/></propfind>",
        "<propfind xmlns='DAV:'><![CDATA[<a>]]></propfind>",
        "<propfind xmlns='DAV:'><allprop/>",
        "<propfind",
        "not xml",
    ] {
        let answer = operator
            .send("PROPFIND", "/", &[("depth", "0")], body)
            .await;
        answer.assert_refused(400);
    }
    let good = r#"<propfind xmlns="DAV:"><allprop/></propfind>"#;
    let answer = operator
        .send("PROPFIND", "/", &[("depth", "0")], good)
        .await;
    assert_eq!(answer.status, 207);
}

#[tokio::test]
async fn a_body_that_no_request_but_an_upload_needs_is_too_large() {
    let server = server_with_backups().await;
    let backup = backup_path();
    let requests = [
        ("DELETE", &backup as &str),
        ("GET", &backup),
        ("GET", "/config"),
        ("GET", "/"),
        ("OPTIONS", "/"),
        ("PROPFIND", "/backups/"),
    ];
    for protocol in Protocol::BOTH {
        let mut maintainer = server.maintainer_client(protocol).await;
        for (method, path) in requests {
            let headers = [("depth", "1"), ("transfer-encoding", "chunked")];
            let depth = &headers[..1];
            let answer = maintainer
                .send(method, path, depth, vec![b' '; 2_049])
                .await;
            answer.assert_refused(413);
            // Without a length too; on HTTP/1.1 that has to be said.
            let headers = match protocol {
                Protocol::Http1 => &headers,
                Protocol::Http2 => depth,
            };
            let unknown = pieces(stream::iter([Ok(&[b' '; 2_049] as &[u8])]));
            let answer = maintainer.send_body(method, path, headers, unknown).await;
            answer.unwrap().assert_refused(413);
            // Chunks are the last of a connection.
            maintainer = server.maintainer_client(protocol).await;
        }
        let largest = maintainer
            .send("GET", "/config", &[], vec![b' '; 2_048])
            .await;
        assert_eq!(largest.status, 200);
    }
    assert_untouched(&server);
}

#[tokio::test]
async fn removing_the_collection_is_refused_and_removes_nothing() {
    let server = server_with_backups().await;
    for protocol in Protocol::BOTH {
        let clients = [
            server.phone(protocol).await,
            server.operator_client(protocol).await,
        ];
        for mut client in clients {
            for path in ["/backups/", "/backups", "/", "/config"] {
                for depth in ["0", "1", "infinity"] {
                    let answer = client.ask("DELETE", path, &[("depth", depth)]).await;
                    answer.assert_refused(405);
                    assert!(!answer.header("allow").unwrap().contains("DELETE"));
                }
            }
        }
    }
    assert_untouched(&server);
}

#[tokio::test]
async fn only_content_length_says_how_long_an_upload_is() {
    let server = server_with_backups().await;
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        for expected in ["0", "2", "3", "4", "100000000", "-1", "x"] {
            let header = [("x-expected-entity-length", expected)];
            let put = phone.send("PUT", &backup_path(), &header, "new").await;
            assert_eq!(put.status, 204, "{expected}");
            assert_eq!(fs::read(server.site().backup_file(ID)).unwrap(), b"new");
            let put = phone.send("PUT", &backup_path(), &[], "old").await;
            assert_eq!(put.status, 204);

            let unknown = pieces(stream::iter([Ok(b"new" as &[u8])]));
            let answer = phone
                .send_body("PUT", &backup_path(), &header, unknown)
                .await;
            answer.unwrap().assert_refused(411);
            phone = server.phone(protocol).await;
        }
    }
    assert_untouched(&server);
}

#[tokio::test]
async fn an_upload_without_a_length_is_no_empty_upload() {
    let server = server_with_backups().await;
    let mut raw = server.raw().await;
    raw.write(head(&server, "PUT", "")).await;
    raw.answer().await.assert_refused(411);
    raw.write(head(&server, "PUT", "Transfer-Encoding: chunked\r\n"))
        .await;
    raw.write("3\r\nnew\r\n0\r\n\r\n").await;
    let answer = raw.answer().await;
    answer.assert_refused(411);
    assert_eq!(answer.header("connection"), Some("close"));
    raw.assert_ended().await;
    let mut raw = server.raw().await;
    raw.write(head(&server, "PUT", "Content-Length: 0\r\n"))
        .await;
    raw.answer().await.assert_refused(400);

    let mut phone = server.phone(Protocol::Http2).await;
    for data in [&[] as &[&[u8]], &[b"n", b"ew"]] {
        let unknown = pieces(stream::iter(data.iter().map(|piece| Ok(*piece))));
        let answer = phone.send_body("PUT", &backup_path(), &[], unknown).await;
        answer.unwrap().assert_refused(411);
    }
    assert_untouched(&server);
}

#[tokio::test]
async fn a_part_of_an_upload_is_refused() {
    let server = server_with_backups().await;
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        for range in ["bytes 0-2/10", "bytes 1-3/*", "bytes */3", "x"] {
            let header = [("content-range", range)];
            let answer = phone.send("PUT", &backup_path(), &header, "new").await;
            answer.assert_refused(400);
        }
        for header in ["x-update-range", "upload-offset", "oc-chunked"] {
            let header = [(header, "bytes=0-2")];
            let answer = phone.send("PUT", &backup_path(), &header, "new").await;
            answer.assert_refused(400);
        }
        let absent = "/backups/0000000000000000000000000000000000000000000000000000000000000000";
        for path in [&backup_path(), absent] {
            for range in ["append", "bytes=0-2", "bytes=1-", "bytes=-1"] {
                let header = [
                    ("x-update-range", range),
                    ("content-type", "application/x-sabredav-partialupdate"),
                ];
                let answer = phone.send("PATCH", path, &header, "new").await;
                answer.assert_refused(405);
            }
        }
    }
    assert_untouched(&server);
}

#[tokio::test]
async fn no_header_opens_a_propfind_of_everything() {
    let server = server_with_backups().await;
    for protocol in Protocol::BOTH {
        let mut operator = server.operator_client(protocol).await;
        for depth in ["infinity", "Infinity", "1, infinity"] {
            for litmus in ["x-litmus", "x-litmus-second"] {
                let headers = [("depth", depth), (litmus, "props: 1 (test)")];
                let answer = operator.ask("PROPFIND", "/", &headers).await;
                answer.assert_refused(403);
            }
        }
        let headers = [("x-litmus", "props: 1 (test)")];
        operator
            .ask("PROPFIND", "/", &headers)
            .await
            .assert_refused(403);
    }
}

#[tokio::test]
async fn methods_that_would_lock_move_or_create_are_not_offered() {
    let server = server_with_backups().await;
    let backup = backup_path();
    let target = format!("/backups/{}", "0".repeat(64));
    let lock = r#"<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>"#;
    for protocol in Protocol::BOTH {
        let mut maintainer = server.maintainer_client(protocol).await;
        for path in ["/", "/backups/", "/config", &backup, &target] {
            for method in [
                "LOCK",
                "UNLOCK",
                "MKCOL",
                "MOVE",
                "COPY",
                "PROPPATCH",
                "POST",
                "PATCH",
                "TRACE",
                "SEARCH",
                "REPORT",
                "ACL",
            ] {
                let headers = [("destination", target.as_str()), ("depth", "0")];
                let body = if method == "LOCK" { lock } else { "" };
                let answer = maintainer.send(method, path, &headers, body).await;
                answer.assert_refused(405);
                assert!(!answer.header("allow").unwrap().contains(method));
            }
        }
        // A lock token, which no client can have, locks no client out, and matches nothing.
        let mut phone = server.phone(protocol).await;
        let header = [("lock-token", "<opaquelocktoken:1>")];
        let put = phone.send("PUT", &backup, &header, "old").await;
        assert_eq!(put.status, 204);
        let header = [("if", "(<opaquelocktoken:1>)")];
        let put = phone.send("PUT", &backup, &header, "new").await;
        put.assert_refused(412);
    }
    assert_untouched(&server);
}

#[tokio::test]
async fn a_collection_is_never_shown_as_a_page() {
    let server = server_with_backups().await;
    for protocol in Protocol::BOTH {
        let mut operator = server.operator_client(protocol).await;
        for path in ["/backups/", "/backups"] {
            let answer = operator.ask("GET", path, &[]).await;
            answer.assert_refused(405);
        }
        assert!(!operator.ask("GET", "/", &[]).await.text().contains(ID));
    }
}

#[tokio::test]
async fn a_length_that_can_be_read_in_two_ways_is_refused_and_ends_the_connection() {
    let server = server_with_backups().await;
    // In one reading this is the body, in another a request of its own.
    let behind = head(&server, "DELETE", "");
    for lines in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: x\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: -3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 3 3\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
    ] {
        for method in ["PUT", "GET", "DELETE"] {
            let mut raw = server.raw().await;
            let request = head(&server, method, lines) + "0\r\n\r\n" + &behind;
            raw.write(request).await;
            let answer = raw.answer().await;

            assert_eq!(answer.status, 400, "{method} {lines:?}: {answer:?}");
            let closes = answer.header("connection") == Some("close");
            assert!(closes, "{method} {lines:?}: {answer:?}");
            raw.assert_ended().await;
        }
    }
    assert_untouched(&server);
}

#[tokio::test]
async fn nothing_behind_chunks_is_a_request() {
    let server = server_with_backups().await;
    let behind = head(&server, "DELETE", "");
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (method, status) in [("PUT", 411), ("GET", 200)] {
        let mut raw = server.raw().await;
        let request = head(&server, method, chunked) + "0\r\n\r\n" + &behind;
        raw.write(request).await;
        let answer = raw.answer().await;

        assert_eq!(answer.status, status, "{method}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
        raw.assert_ended().await;
    }
    assert_untouched(&server);
}

#[tokio::test]
async fn the_prefix_ends_with_a_slash() {
    let server = TestServer::start_with(json!({ "basePath": "/safe" })).await;
    for protocol in Protocol::BOTH {
        let mut operator = server.operator_client(protocol).await;
        for path in [
            "/safeXconfig".to_owned(),
            "/safeconfig".to_owned(),
            "/safeXbackups/".to_owned(),
            format!("/safeX/backups/{ID}"),
            format!("/safebackups/{ID}"),
            format!("/safeXbackups/{ID}"),
        ] {
            for method in ["GET", "PUT", "DELETE", "PROPFIND"] {
                let answer = operator.send(method, &path, &[("depth", "1")], "x").await;
                answer.assert_refused(404);
            }
        }
    }
    assert!(names(&server.site().data().join("backups")).is_empty());
}

#[tokio::test]
async fn silent_clients_delay_no_other_and_are_disconnected() {
    let server = TestServer::start_with(json!({ "limits": { "handshakeSeconds": 1 } })).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(server.tcp().await);
    }

    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        let put = phone.send("PUT", &backup_path(), &[], "x").await;
        assert!([201, 204].contains(&put.status));
    }
    for stream in &mut silent {
        assert_put_out(stream).await;
    }
}

#[tokio::test]
async fn a_handshake_of_one_byte_at_a_time_has_the_same_deadline() {
    use tokio::io::AsyncWriteExt;
    let server = TestServer::start_with(json!({ "limits": { "handshakeSeconds": 1 } })).await;
    let mut stream = server.tcp().await;

    stream.write_all(&[22, 3, 1]).await.unwrap();

    assert_put_out(&mut stream).await;
}

#[tokio::test]
async fn a_slow_header_delays_no_other_client_and_is_disconnected() {
    let server = TestServer::start_with(json!({ "limits": { "headerSeconds": 1 } })).await;
    let mut slow = Vec::new();
    for start in [
        "",
        "G",
        "GET /config HTTP/1.1\r\n",
        "GET /config HTTP/1.1\r\nHost: local",
    ] {
        let mut raw = server.raw().await;
        raw.write(start).await;
        slow.push(raw);
    }

    assert_alive(&server).await;
    for mut raw in slow {
        // hyper may say 408 first.
        if let Some(answer) = raw.answer_before_end().await {
            assert_eq!(answer.status, 408);
        }
        raw.assert_ended().await;
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_both_work_and_alpn_chooses_the_protocol() {
    let server = TestServer::start().await;
    let versions = [
        (&rustls::version::TLS12, rustls::ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, rustls::ProtocolVersion::TLSv1_3),
    ];
    for (offered, expected) in versions {
        let cases: [&[&[u8]]; 4] = [
            &[b"h2", b"http/1.1"],
            &[b"http/1.1", b"h2"],
            &[b"http/1.1"],
            &[],
        ];
        for alpn in cases {
            let chosen = match alpn {
                [] => None,
                [b"http/1.1"] => Some(b"http/1.1" as &[u8]),
                _ => Some(b"h2" as &[u8]),
            };
            let mut raw = Raw::connect(&server, alpn, &[offered]).await.unwrap();

            assert_eq!(raw.tls_version(), Some(expected));
            assert_eq!(raw.alpn().as_deref(), chosen);
            if chosen != Some(b"h2") {
                raw.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                assert_eq!(raw.answer().await.status, 200);
            }
        }
        let refused = Raw::connect(&server, &[b"spdy/3"], &[offered]).await;
        assert!(refused.is_err(), "an unknown protocol was agreed on");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_never_taken_for_an_empty_one() {
    let server = server_with_backups().await;
    let (data, away) = (server.site().data(), server.site().folder().join("away"));
    for protocol in Protocol::BOTH {
        fs::rename(&data, &away).unwrap();
        let mut maintainer = server.maintainer_client(protocol).await;
        for method in ["GET", "HEAD", "DELETE"] {
            let answer = maintainer.ask(method, &backup_path(), &[]).await;
            assert_eq!(answer.status, 500, "{method}");
        }
        let put = maintainer.send("PUT", &backup_path(), &[], "new").await;
        put.assert_refused(500);
        // A listing that breaks off must not look like a short one: a program that mirrors it would
        // remove the rest.
        let list = maintainer
            .send_body("PROPFIND", "/backups/", &[("depth", "1")], whole(""))
            .await;
        assert!(list.is_err(), "{list:?}");

        fs::rename(&away, &data).unwrap();
        let mut maintainer = server.maintainer_client(protocol).await;
        assert_eq!(
            maintainer.ask("GET", &backup_path(), &[]).await.text(),
            "old"
        );
    }
    assert_untouched(&server);
}

/// Waits until the server closes a connection on which it has said nothing.
async fn assert_put_out(stream: &mut tokio::net::TcpStream) {
    use tokio::io::AsyncReadExt;
    let mut buffer = [0; 64];
    let read = soon(stream.read(&mut buffer)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}: {buffer:?}");
}
