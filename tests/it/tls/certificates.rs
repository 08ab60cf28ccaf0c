//! Certificates that are replaced under a running server.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use threema_safe_server::account::Role;
use tokio::task::JoinSet;

use crate::support::wire::{Client, Protocol, Raw, basic, soon};
use crate::support::{Site, TestServer, add_account, backup_path, write, write_certificates};

/// Puts one file in the place of another, as certificates are renewed.
fn put(from: &Path, to: &Path) {
    let beside = to.with_extension("new");
    fs::copy(from, &beside).unwrap();
    fs::rename(beside, to).unwrap();
}

/// How the server says its certificate is.
async fn told(server: &TestServer) -> Value {
    let answer = server.admin("/status.json").await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: Value = serde_json::from_str(body).unwrap();
    status["certificate"].clone()
}

async fn metric(server: &TestServer, line: &str) -> bool {
    server
        .admin("/metrics")
        .await
        .lines()
        .any(|other| other == line)
}

async fn is_served(server: &TestServer) -> bool {
    let mut phone = server.phone(Protocol::Http2).await;
    phone.ask("GET", "/config", &[]).await.status == 200
}

#[tokio::test]
async fn a_renewed_certificate_is_in_force_soon_and_open_connections_stay() {
    let server = TestServer::start().await;
    let mut before = server.phone(Protocol::Http1).await;
    assert_eq!(before.ask("GET", "/config", &[]).await.status, 200);
    let certificates = server.site().folder().join("certs");

    // With a new authority, so that only a client that sees the new one accepts it.
    write_certificates(&certificates);

    let connect = || Raw::connect(&server, &[b"http/1.1"], rustls::ALL_VERSIONS);
    soon(async { while connect().await.is_err() {} }).await;
    assert!(is_served(&server).await);
    assert_eq!(before.ask("GET", "/config", &[]).await.status, 200);
    assert_eq!(told(&server).await["problem"], Value::Null);
    assert!(
        metric(
            &server,
            "safe_certificate_reloads_total{outcome=\"done\"} 1"
        )
        .await
    );
}

#[tokio::test]
async fn certificate_and_key_change_as_a_pair_and_the_last_good_one_stays() {
    let server = TestServer::start().await;
    let certificates = server.site().folder().join("certs");
    let new = server.site().folder().join("new");
    write_certificates(&new);

    for bad in ["another's key", "nothing", "no key"] {
        let key = certificates.join("privkey.pem");
        match bad {
            "another's key" => put(&new.join("privkey.pem"), &key),
            "nothing" => fs::remove_file(&key).unwrap(),
            _ => {
                write(&new.join("none"), "what is this?");
                put(&new.join("none"), &key);
            }
        }
        for _ in 0..3 {
            assert!(is_served(&server).await, "{bad}");
        }
        let problem = told(&server).await["problem"].clone();
        assert!(
            problem.as_str().is_some_and(|problem| !problem.is_empty()),
            "{bad}"
        );
        assert!(metric(&server, "safe_certificate_files_unusable 1").await);
    }
    // Each is found once, however many handshakes there are.
    assert!(
        metric(
            &server,
            "safe_certificate_reloads_total{outcome=\"failed\"} 3"
        )
        .await
    );

    put(&new.join("privkey.pem"), &certificates.join("privkey.pem"));
    put(
        &new.join("fullchain.pem"),
        &certificates.join("fullchain.pem"),
    );
    put(&new.join("ca.pem"), &certificates.join("ca.pem"));
    assert_eq!(told(&server).await["problem"], Value::Null);
    assert!(is_served(&server).await);
    assert!(metric(&server, "safe_certificate_files_unusable 0").await);
}

#[tokio::test]
async fn a_hundred_swaps_of_certificates_and_accounts_fail_no_request() {
    const PHONES: usize = 4;
    let site = Site::new();
    let folder = site.folder().to_owned();
    let certificates = folder.join("certs");
    for name in ["one", "other"] {
        write_certificates(&folder.join(name));
    }
    let authorities =
        ["one", "other"].map(|name| fs::read(folder.join(name).join("ca.pem")).unwrap());
    fs::write(certificates.join("ca.pem"), authorities.concat()).unwrap();
    for file in ["fullchain.pem", "privkey.pem"] {
        put(&folder.join("one").join(file), &certificates.join(file));
    }
    let server = Arc::new(site.start().await);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut phones = JoinSet::new();
    for phone in 0..PHONES {
        let (server, is_over) = (Arc::clone(&server), Arc::clone(&is_over));
        phones.spawn(async move {
            let protocol = [Protocol::Http1, Protocol::Http2][phone % 2];
            let path = format!("/backups/{phone:064x}");
            let mut served = 0;
            while !is_over.load(Ordering::Relaxed) || served == 0 {
                let mut client = server.phone(protocol).await;
                let put = client.send("PUT", &path, &[], "backup").await;
                let get = client.ask("GET", &path, &[]).await;
                assert!([201, 204].contains(&put.status), "{put:?}");
                assert_eq!(get.status, 200);
                served += 1;
            }
            served
        });
    }
    for swap in 0..100 {
        let name = ["other", "one"][swap % 2];
        // Between the two they are no pair.
        for file in ["privkey.pem", "fullchain.pem"] {
            put(&folder.join(name).join(file), &certificates.join(file));
            tokio::task::yield_now().await;
        }
        // The status checks the files, as the server itself does every second.
        told(&server).await;
        let new = format!("new-{swap}");
        let secret = add_account(&server.site().accounts_file(), &new, Role::Phone);
        let login = basic(format!("{new}:{secret}"));
        let mut client = Client::connect(&*server, Protocol::Http1, Some(login)).await;
        assert_eq!(client.ask("GET", "/config", &[]).await.status, 200);
    }
    is_over.store(true, Ordering::Relaxed);

    let served = soon(phones.join_all()).await;

    assert!(served.iter().all(|&served| served > 0), "{served:?}");
    assert!(
        metric(
            &server,
            "safe_certificate_reloads_total{outcome=\"done\"} 100"
        )
        .await
    );
    assert_eq!(told(&server).await["problem"], Value::Null);
    let mut client = server.phone(Protocol::Http1).await;
    assert_eq!(client.ask("GET", &backup_path(), &[]).await.status, 404);
}

#[tokio::test]
async fn the_status_has_the_end_of_the_certificate() {
    let server = TestServer::start().await;
    let certificate = told(&server).await;
    let ends = certificate["ends"].as_u64().unwrap();
    assert!(certificate["begins"].as_u64().unwrap() < ends);
    assert!(
        metric(
            &server,
            &format!("safe_certificate_end_time_seconds {ends}")
        )
        .await
    );

    let plain = json!({ "tls": "off" });
    let server = TestServer::start_with(plain).await;
    assert_eq!(told(&server).await, Value::Null);
}
