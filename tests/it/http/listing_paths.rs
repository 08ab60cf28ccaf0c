//! The paths in a listing, from outside a proxy: right, or there is no listing. A tool that copies
//! takes a listing with other paths for an empty one, and removes the copy.

use std::time::SystemTime;

use serde_json::{Value, json};
use threema_safe_server::config::Config;
use threema_safe_server::server::{Severity, check};

use crate::support::process::ServerProcess;
use crate::support::wire::{Answer, Protocol};
use crate::support::{ID, Site, TestServer, backup_path};

/// As a proxy sends it.
const FORWARDED: (&str, &str) = ("x-forwarded-for", "192.0.2.1");

async fn listed(server: &TestServer, protocol: Protocol, headers: &[(&str, &str)]) -> Vec<Answer> {
    let mut operator = server.operator_client(protocol).await;
    let mut answers = Vec::new();
    for (path, depth) in [("/", "1"), ("/backups/", "1"), ("/backups", "0")] {
        let headers = [headers, &[("depth", depth)]].concat();
        answers.push(operator.ask("PROPFIND", path, &headers).await);
    }
    answers
}

/// A server on which there is a backup.
async fn server(changes: Value) -> TestServer {
    let server = TestServer::start_with(changes).await;
    let mut phone = server.phone(Protocol::Http1).await;
    let put = phone.send("PUT", &backup_path(), &[], "x").await;
    assert_eq!(put.status, 201);
    server
}

#[track_caller]
fn assert_paths(answers: &[Answer], base: &str) {
    let [root, backups, alone] = answers else {
        panic!("{answers:?}")
    };
    let at = |path: &str| format!("{base}{path}");
    assert_eq!(root.hrefs(), [at("/"), at("/backups/"), at("/config")]);
    assert_eq!(backups.hrefs(), [at("/backups/"), at(&backup_path())]);
    assert_eq!(alone.hrefs(), [at("/backups/")]);
}

#[tokio::test]
async fn through_a_trusted_proxy_a_listing_has_the_path_of_the_public_url() {
    for (url, base) in [
        ("https://safe.example.org/safe", "/safe"),
        ("https://safe.example.org/a/b/", "/a/b"),
        ("https://safe.example.org/s%61fe/", "/safe"),
        ("https://safe.example.org/caf%c3%a9+x/", "/caf%C3%A9%2Bx"),
    ] {
        let server = server(json!({ "trustedProxies": ["127.0.0.1"], "publicUrl": url })).await;
        for protocol in Protocol::BOTH {
            assert_paths(&listed(&server, protocol, &[FORWARDED]).await, base);
            let forwarded = [("forwarded", "for=192.0.2.1;proto=https")];
            assert_paths(&listed(&server, protocol, &forwarded).await, base);
            // From the proxy's machine, but it may come from the proxy too.
            for answer in listed(&server, protocol, &[]).await {
                answer.assert_refused(403);
                assert!(!answer.text().contains(ID));
            }
            // All else is served as ever.
            let mut phone = server.phone(protocol).await;
            assert_eq!(phone.ask("GET", &backup_path(), &[]).await.text(), "x");
        }
    }
}

#[tokio::test]
async fn a_direct_client_gets_the_path_that_it_used() {
    for changes in [
        json!({}),
        json!({ "publicUrl": "https://safe.example.org/" }),
        json!({ "publicUrl": "https://safe.example.org/safe/" }),
        json!({ "publicUrl": "https://safe.example.org/x%2Fy/" }),
        json!({ "trustedProxies": ["192.0.2.0/24"], "publicUrl": "https://safe.example.org/safe/" }),
    ] {
        let server = server(changes).await;
        for protocol in Protocol::BOTH {
            assert_paths(&listed(&server, protocol, &[]).await, "");
        }
    }
}

#[tokio::test]
async fn where_the_path_outside_is_the_path_inside_all_get_it() {
    for trusted in ["127.0.0.1", "192.0.2.1"] {
        let server = server(json!({
            "trustedProxies": [trusted], "publicUrl": "https://safe.example.org",
        }))
        .await;
        for protocol in Protocol::BOTH {
            for headers in [&[][..], &[FORWARDED], &[("via", "1.1 proxy")]] {
                assert_paths(&listed(&server, protocol, headers).await, "");
            }
            // A proxy that says that the path outside is another one.
            for answer in listed(&server, protocol, &[("x-forwarded-prefix", "/safe")]).await {
                answer.assert_refused(403);
            }
        }
    }
}

#[tokio::test]
async fn where_the_path_outside_is_not_known_there_is_no_listing() {
    for (changes, headers) in [
        // A proxy, and no public URL that says under which path.
        (json!({ "trustedProxies": ["127.0.0.1"] }), &[FORWARDED][..]),
        (json!({ "trustedProxies": ["127.0.0.1"] }), &[]),
        (
            json!({ "trustedProxies": ["127.0.0.1"] }),
            &[("x-forwarded-prefix", "/safe")],
        ),
        (
            json!({ "trustedProxies": ["127.0.0.1"], "publicUrl": "https://a.example/x%2Fy/" }),
            &[FORWARDED],
        ),
        // A proxy that is not in the configuration.
        (json!({}), &[FORWARDED]),
        (json!({}), &[("via", "1.1 proxy")]),
        (
            json!({ "publicUrl": "https://a.example/safe/" }),
            &[FORWARDED],
        ),
    ] {
        let server = server(changes).await;
        for protocol in Protocol::BOTH {
            for answer in listed(&server, protocol, headers).await {
                answer.assert_refused(403);
            }
            // Which is no answer to a client without credentials.
            let mut stranger = server.stranger(protocol).await;
            let headers = [headers, &[("depth", "1")]].concat();
            let answer = stranger.ask("PROPFIND", "/backups/", &headers).await;
            answer.assert_refused(401);
        }
    }
}

#[tokio::test]
async fn http_1_0_is_taken_for_a_proxy() {
    let server = server(json!({})).await;
    for (version, status) in [("1.0", "403"), ("1.1", "207")] {
        let mut raw = server.raw().await;
        raw.write(format!(
            "PROPFIND /backups/ HTTP/{version}\r\nHost: localhost\r\nDepth: 1\r\nConnection: close\r\n\
             Authorization: {}\r\nContent-Length: 0\r\n\r\n",
            server.operator()
        ))
        .await;
        let answer = String::from_utf8(raw.rest().await).unwrap();
        assert_eq!(answer.get(9..12), Some(status), "{answer}");
    }
}

#[tokio::test]
async fn a_refused_listing_is_logged_once_with_its_reason() {
    for (changes, reason) in [
        (json!({}), "publicUrl is not set"),
        (
            json!({ "publicUrl": "https://a.example/safe/" }),
            "the path of publicUrl is not basePath",
        ),
        (
            json!({ "publicUrl": "https://a.example//" }),
            "publicUrl has an ambiguous path",
        ),
    ] {
        let mut server = ServerProcess::start(Site::new().with(changes));
        let mut phone = server.phone(Protocol::Http1).await;
        for _ in 0..3 {
            let headers = [FORWARDED, ("depth", "1")];
            let answer = phone.ask("PROPFIND", "/backups/", &headers).await;
            answer.assert_refused(403);
        }
        let line = server.log_through(|line| line.contains("listing refused: external path"));
        assert!(line.last().unwrap().contains(reason), "{line:?}");
        let (log, _) = server.stop();
        assert_eq!(log.matches("listing refused").count(), 1, "{log}");
    }
}

/// What `check` finds about `publicUrl`, of the paths alone.
fn found(changes: Value) -> Vec<(Severity, String)> {
    let site = Site::new().with(changes);
    let config = Config::load(Some(&site.config_file()), []).unwrap();
    let findings = check(&config, SystemTime::now()).into_iter();
    findings
        .filter(|finding| finding.key == "publicUrl")
        .map(|finding| (finding.alert.severity, finding.alert.text))
        .filter(|(_, text)| !text.contains("certificate"))
        .collect()
}

#[test]
fn check_compares_the_public_url_with_the_base_path() {
    let off = |more: Value| {
        let mut all = json!({ "tls": "off", "listen": ["unix:safe.sock"] });
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    for good in [
        json!({}),
        json!({ "publicUrl": "https://a.example" }),
        json!({ "publicUrl": "https://a.example/s%61fe", "basePath": "/safe" }),
        off(json!({ "publicUrl": "https://a.example/safe/", "basePath": "/safe" })),
    ] {
        assert_eq!(found(good.clone()), [], "{good}");
    }
    for (bad, expected) in [
        (
            json!({ "publicUrl": "https://a.example/safe/" }),
            "set basePath to \"/safe/\"",
        ),
        (
            off(json!({ "publicUrl": "https://a.example/safe" })),
            "only if the proxy replaces it in every request; otherwise set basePath to \"/safe/\"",
        ),
        (
            off(json!({ "publicUrl": "https://a.example/", "basePath": "/safe" })),
            "set basePath to \"/\"",
        ),
        (off(json!({})), "is not set"),
        (json!({ "trustedProxies": ["192.0.2.1"] }), "is not set"),
        (
            json!({ "publicUrl": "https://a.example/a//b" }),
            "ambiguous",
        ),
        (
            json!({ "publicUrl": "https://a.example/caf%C3%A9" }),
            "cannot be basePath",
        ),
    ] {
        let found = found(bad.clone());
        let [(severity, text)] = &found[..] else {
            panic!("{bad}: {found:?}");
        };
        assert_eq!(*severity, Severity::Warning, "{bad}");
        assert!(text.contains(expected), "{bad}: {text}");
    }
}
