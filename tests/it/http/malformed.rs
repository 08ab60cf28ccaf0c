//! Malformed requests (`malformed.txt`), each over real TLS on a connection of its own: the answer
//! is 4xx or the end of the connection, nothing is stored or removed, and the server goes on.

use std::fs;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::wire::Protocol;
use crate::support::{ID, OTHER_ID, TestServer, backup_path, contents};

/// A line of the table.
struct Case {
    cause: &'static str,
    /// What may come, each as the statuses of all answers.
    expected: Vec<&'static str>,
    bytes: &'static str,
}

fn table() -> Vec<Case> {
    let lines = include_str!("malformed.txt").lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut columns = line.split(" | ");
            let mut next = || columns.next().unwrap_or_else(|| panic!("{line}"));
            Case {
                cause: next(),
                expected: next().split(" or ").collect(),
                bytes: next(),
            }
        })
        .collect()
}

/// The bytes of a case for this server.
fn unescape(server: &TestServer, text: &str) -> Vec<u8> {
    let authorization = format!("Authorization: {}\r\n", server.phones());
    let head = format!("Host: localhost\r\n{authorization}");
    let mut text = text
        .replace(
            "{behind}",
            &format!("DELETE /backups/{OTHER_ID} HTTP/1.1\r\n{{head}}\r\n"),
        )
        .replace("{next}", "GET /config HTTP/1.1\r\n{head}\r\n")
        .replace("{head}", &head)
        .replace("{authorization}", &authorization)
        .replace("{path}", &backup_path())
        .replace("{backup}", ID);
    for (mark, piece) in [("{x*", "x"), ("{A: b*", "A: b\r\n")] {
        while let Some((before, rest)) = text.split_once(mark) {
            let (count, after) = rest.split_once('}').unwrap();
            let repeated = piece.repeat(count.parse().unwrap());
            text = format!("{before}{repeated}{after}");
        }
    }
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().unwrap() {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => panic!("no escape: \\{}", char::from(other)),
        });
    }
    bytes
}

/// The statuses of all answers that came.
fn statuses(received: &[u8]) -> String {
    let text = String::from_utf8_lossy(received);
    let statuses: Vec<_> = text
        .split("HTTP/1.")
        .skip(1)
        .map(|answer| answer.get(2..5).unwrap_or("?").to_owned())
        .collect();
    if statuses.is_empty() {
        "-".into()
    } else {
        statuses.join(" ")
    }
}

/// What comes to a case until the connection ends.
async fn run(server: &TestServer, case: &Case) -> Result<(), String> {
    let mut raw = server.raw().await;
    // The server may close before it has all of it.
    drop(raw.try_write(unescape(server, case.bytes)).await);
    let found = statuses(&raw.rest().await);
    if case.expected.contains(&found.as_str()) {
        return Ok(());
    }
    let Case {
        cause, expected, ..
    } = case;
    Err(format!("{cause:?}: {found} and not {expected:?}"))
}

#[tokio::test]
async fn no_malformed_request_is_carried_out() {
    let limits = json!({ "limits": { "headerSeconds": 1, "bodySeconds": 1 } });
    let server = TestServer::start_with(limits).await;
    let mut phone = server.phone(Protocol::Http1).await;
    for (id, contents) in [(ID, "old"), (OTHER_ID, "other")] {
        let path = format!("/backups/{id}");
        assert_eq!(phone.send("PUT", &path, &[], contents).await.status, 201);
    }
    server.settled().await;
    let before = contents(&server.site().data());
    let (clear, malformed): (Vec<_>, Vec<_>) = table().into_iter().partition(|case| {
        case.expected[0].starts_with('2') && !case.expected[0].ends_with("00 400")
    });
    assert!(malformed.len() >= 200, "{}", malformed.len());
    assert!(clear.len() >= 10, "{}", clear.len());

    let mut wrong = Vec::new();
    for cases in malformed.chunks(40) {
        let results = join_all(cases.iter().map(|case| run(&server, case))).await;
        wrong.extend(results.into_iter().filter_map(Result::err));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(before == contents(&server.site().data()));

    // The table itself is not what is malformed, and the server lives.
    for case in &clear {
        run(&server, case).await.unwrap();
    }
    for (id, contents) in [(ID, "old"), (OTHER_ID, "other")] {
        let found = fs::read(server.site().backup_file(id)).unwrap();
        assert_eq!(found, contents.as_bytes());
    }
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    }
}

#[test]
fn every_cause_is_named_once_and_never_answered_with_success_or_failure() {
    let mut causes = std::collections::BTreeSet::new();
    for case in table() {
        assert!(causes.insert(case.cause), "{} is there twice", case.cause);
        let allowed = |status: &str| ["-", "2", "4"].iter().any(|ok| status.starts_with(ok));
        let all = case
            .expected
            .iter()
            .flat_map(|statuses| statuses.split(' '));
        assert!(all.into_iter().all(allowed), "{}", case.cause);
    }
}
