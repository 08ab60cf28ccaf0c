//! The `If` header of WebDAV (RFC 4918 §10.4), and conditional headers beside it.

use std::fs;

use crate::store::failing::{NEW, OLD, kept, server};
use crate::support::stores::{Fault, Operation};
use crate::support::wire::Protocol;
use crate::support::{ID, OTHER_ID, TestServer, backup_path};

const METHODS: [&str; 5] = ["GET", "HEAD", "PROPFIND", "PUT", "DELETE"];

/// Sends a request with these headers, and `Depth` for a PROPFIND, as the maintainer.
async fn status(
    server: &TestServer,
    protocol: Protocol,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> u16 {
    let mut maintainer = server.maintainer_client(protocol).await;
    let headers = [headers, &[("depth", "0")]].concat();
    let body = if method == "PUT" { "new" } else { "" };
    maintainer.send(method, path, &headers, body).await.status
}

/// Puts a backup back as it was before a request; its ETag is new.
async fn renewed(server: &TestServer, protocol: Protocol) -> String {
    let mut phone = server.phone(protocol).await;
    let put = phone.send("PUT", &backup_path(), &[], "old").await;
    assert!([201, 204].contains(&put.status), "{put:?}");
    let head = phone.ask("HEAD", &backup_path(), &[]).await;
    head.header("etag").unwrap().to_owned()
}

fn success(method: &str) -> u16 {
    match method {
        "PROPFIND" => 207,
        "PUT" | "DELETE" => 204,
        _ => 200,
    }
}

#[tokio::test]
async fn a_condition_that_cannot_hold_is_412_and_changes_nothing() {
    let server = TestServer::start().await;
    for protocol in Protocol::BOTH {
        let etag = renewed(&server, protocol).await;
        let other = format!("/backups/{OTHER_ID}");
        for value in [
            "([\"0\"])".to_owned(),
            "(<opaquelocktoken:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>)".to_owned(),
            "(<DAV:no-lock>)".to_owned(),
            format!("(<urn:uuid:1> [{etag}])"),
            format!("([{etag}] [\"0\"])"),
            format!("(Not [{etag}])"),
            format!("([W/{etag}])"),
            format!("<{other}> ([{etag}])"),
            format!("<{other}> (Not [\"0\"])"),
            format!("<https://elsewhere.example{}> ([{etag}])", backup_path()),
            format!("</config> ([{etag}])"),
            format!("</backups/> (<urn:uuid:1>) </> ([{etag}])"),
        ] {
            for method in METHODS {
                let header = [("if", value.as_str())];
                let refused = status(&server, protocol, method, &backup_path(), &header).await;
                assert_eq!(refused, 412, "{method} {value}");
                // Nor does it for a backup that does not exist, except that it has another ETag.
                if !value.contains(&other) && !value.contains("Not") {
                    let refused = status(&server, protocol, method, &other, &header).await;
                    assert!([404, 412].contains(&refused), "{method} {value}: {refused}");
                }
            }
            assert_eq!(fs::read(server.site().backup_file(ID)).unwrap(), b"old");
        }
        let header = [("if", "(<urn:uuid:1>)")];
        for path in ["/config", "/backups/"] {
            for method in ["GET", "HEAD", "PROPFIND"] {
                let expected = if (method, path) == ("PROPFIND", path) || path == "/config" {
                    412
                } else {
                    405
                };
                let refused = status(&server, protocol, method, path, &header).await;
                assert_eq!(refused, expected, "{method} {path}");
            }
        }
    }
    assert!(!server.site().backup_file(OTHER_ID).exists());
}

#[tokio::test]
async fn a_condition_that_holds_changes_nothing_about_a_request() {
    let server = TestServer::start().await;
    for protocol in Protocol::BOTH {
        for method in METHODS {
            for number in 0..7 {
                let etag = renewed(&server, protocol).await;
                let path = backup_path();
                let authority = format!("localhost:{}", server.address().port());
                let value = match number {
                    0 => format!("([{etag}])"),
                    1 => "(Not <DAV:no-lock>)".to_owned(),
                    2 => format!("(<urn:uuid:1>) ([\"0\"]) (not <urn:uuid:1> [{etag}])"),
                    3 => format!("<{path}> ([{etag}])"),
                    4 => format!("<https://{authority}{path}> ([{etag}])"),
                    5 => format!("</backups/{OTHER_ID}> (Not <urn:uuid:1>)"),
                    _ => "</config> (Not [\"0\"])".to_owned(),
                };
                let header = [("if", value.as_str())];
                let answered = status(&server, protocol, method, &path, &header).await;
                assert_eq!(answered, success(method), "{method} {value}");
            }
        }
        let header = [("if", "(Not <DAV:no-lock>)")];
        assert_eq!(
            status(&server, protocol, "GET", "/config", &header).await,
            200
        );
    }
}

#[tokio::test]
async fn a_malformed_if_header_is_refused() {
    let server = TestServer::start().await;
    for protocol in Protocol::BOTH {
        let etag = renewed(&server, protocol).await;
        for value in [
            "",
            "*",
            &etag,
            "()",
            "(",
            "(<urn:x",
            "([\"0\"",
            "(Not)",
            "<urn:x>",
            "(<urn:x>) </x> (<urn:x>)",
            "([\"])",
        ] {
            for method in METHODS {
                let header = [("if", value)];
                let refused = status(&server, protocol, method, &backup_path(), &header).await;
                assert_eq!(refused, 400, "{method} {value}");
            }
        }
        let good = format!("([{etag}])");
        let twice = [("if", good.as_str()), ("if", &good)];
        for method in METHODS {
            let refused = status(&server, protocol, method, &backup_path(), &twice).await;
            assert_eq!(refused, 400, "{method}");
        }
        assert_eq!(fs::read(server.site().backup_file(ID)).unwrap(), b"old");
    }
}

#[tokio::test]
async fn conditional_headers_are_evaluated_over_all_their_lines_and_tags() {
    let server = TestServer::start().await;
    for protocol in Protocol::BOTH {
        for method in ["PUT", "DELETE"] {
            let etag = renewed(&server, protocol).await;
            let (weak, list) = (format!("W/{etag}"), format!("\"0\", {etag}"));
            let head = server
                .phone(protocol)
                .await
                .ask("HEAD", &backup_path(), &[])
                .await;
            let modified = head.header("last-modified").unwrap().to_owned();
            let past = "Thu, 01 Jan 1970 00:00:00 GMT";
            for headers in [
                &[("if-match", "\"0\"")][..],
                &[("if-match", &weak)],
                &[("if-match", "\"0\""), ("if-match", "\"1\"")],
                &[("if-match", &etag), ("if-none-match", &list)],
                &[("if-none-match", "*")],
                &[("if-none-match", &etag)],
                // Compared without regard to weakness (RFC 9110 §13.1.2).
                &[("if-none-match", &weak)],
                &[("if-none-match", "\"0\""), ("if-none-match", &weak)],
                &[("if-unmodified-since", past)],
                &[("if-match", "\"0\""), ("if-unmodified-since", &modified)],
                &[("if-match", &etag), ("if", "(<urn:x>)")],
                &[("if-match", "\"0\""), ("if", "(Not <urn:x>)")],
            ] {
                let refused = status(&server, protocol, method, &backup_path(), headers).await;
                assert_eq!(refused, 412, "{method} {headers:?}");
                assert_eq!(fs::read(server.site().backup_file(ID)).unwrap(), b"old");
            }
            for number in 0..5 {
                let etag = renewed(&server, protocol).await;
                let list = format!("\"0\", {etag}");
                let held = format!("([{etag}])");
                let headers: &[(&str, &str)] = match number {
                    0 => &[("if-match", "\"0\""), ("if-match", &etag)],
                    1 => &[("if-match", &list), ("if-unmodified-since", past)],
                    2 => &[("if-match", "*"), ("if", &held)],
                    3 => &[("if-none-match", "W/\"0\", \"1\"")],
                    // Not a date: ignored (RFC 9110 §13.1.4).
                    _ => &[("if-unmodified-since", "yesterday")],
                };
                let done = status(&server, protocol, method, &backup_path(), headers).await;
                assert_eq!(done, 204, "{method} {headers:?}");
            }
        }
    }
}

/// A condition that cannot be evaluated does not hold.
#[tokio::test]
async fn an_upload_with_a_condition_on_what_cannot_be_looked_up_stores_nothing() {
    for protocol in Protocol::BOTH {
        let (server, store) = server().await;
        for (name, value) in [
            ("if-none-match", "*"),
            ("if-none-match", "\"0\""),
            ("if-match", "*"),
            ("if-unmodified-since", "Fri, 01 Jan 2100 00:00:00 GMT"),
            ("if", "([\"0\"])"),
            ("if", "(Not [\"0\"])"),
            ("if", "(Not <DAV:no-lock>)"),
        ] {
            for (fault, status) in [(Fault::Unavailable, 503), (Fault::Io, 500)] {
                for method in ["PUT", "DELETE"] {
                    store.fail_from(1, Operation::Stat, fault);
                    let mut phone = server.phone(protocol).await;
                    let headers = [(name, value)];
                    let answer = phone.send(method, &backup_path(), &headers, NEW).await;
                    store.heal();

                    answer.assert_refused(status);
                    assert_eq!(
                        kept(&store, ID).await.as_deref(),
                        Some(OLD),
                        "{name} {value}"
                    );
                }
            }
        }
    }
}
