//! Request lines of the log: whether they have the client's address, and in which form.

use serde_json::{Value, json};

use crate::http::cut_uploads::frames;
use crate::support::process::ServerProcess;
use crate::support::wire::Protocol;
use crate::support::{Listening, Site, backup_path};

/// The error code with which a client cancels a request (RFC 9113 §7).
const CANCEL: u32 = 8;

/// What the lines of two requests say of their client, one by each protocol; in text, and in JSON.
async fn clients(site: impl Fn() -> Site) -> [Vec<Option<String>>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    for (format, found) in ["text", "json"].into_iter().zip(&mut all) {
        let site = site().with(json!({ "log": { "format": format } }));
        let mut server = ServerProcess::start(site);
        for protocol in Protocol::BOTH {
            let mut phone = server.phone(protocol).await;
            phone.send("GET", &backup_path(), &[], "").await;
            let line = server.log_through(|line| line.contains("request")).pop();
            let line = line.unwrap();
            found.push(if format == "json" {
                let line: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(line["route"], "backup", "{line}");
                line.get("client").map(|it| it.as_str().unwrap().to_owned())
            } else {
                let words = line.split(' ');
                let client = words.filter_map(|word| word.strip_prefix("client="));
                client.map(String::from).next()
            });
        }
    }
    all
}

#[tokio::test]
async fn a_request_line_has_the_client_address_in_the_configured_form() {
    for (how, expected) in [
        ("none", None),
        ("truncated", Some("127.0.0.0/24")),
        ("full", Some("127.0.0.1")),
    ] {
        let found = clients(|| Site::new().with(json!({ "log": { "clientAddresses": how } })));

        let expected = vec![expected.map(String::from); 2];
        assert_eq!(found.await, [expected.clone(), expected], "{how}");
    }
}

#[tokio::test]
async fn a_request_line_of_a_cancelled_request_has_the_client_address_too() {
    let site = Site::new().with(json!({
        "maxBackupBytes": 4096,
        "limits": { "uploadMemoryBytes": 4096 },
        "log": { "clientAddresses": "full" },
    }));
    let mut server = ServerProcess::start(site);
    let begin = [
        frames::PREFACE,
        &frames::settings(),
        &frames::upload(&server.phones(), 4_096),
        &frames::data(b"n", frames::MORE),
    ];
    // The first takes all memory for uploads, the second waits for it.
    let mut both = [server.raw(b"h2").await, server.raw(b"h2").await];
    for raw in &mut both {
        raw.write(begin.concat()).await;
        server.has_read_all(raw.local_address()).await;
    }

    both[1].write(frames::reset(CANCEL)).await;

    let line = server.log_through(|line| line.contains("request")).pop();
    let line = line.unwrap();
    assert!(line.contains("request cancelled"), "{line}");
    assert!(line.contains(" client=127.0.0.1 "), "{line}");
}
