//! Cancellation: clients that disconnect, shutdowns and deadlines while the store is at work. The
//! old backup remains or the new one, whole, and nothing else.
//!
//! The store is held at work by the lock on the old backup's file, which the test takes first.

use std::fs::{self, File};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use serde_json::json;

use crate::support::process::{ServerProcess, lock_is_waited_for};
use crate::support::wire::{Client, Protocol, soon, unfinished};
use crate::support::{ID, Listening, OTHER_ID, Site, backup_path, names, now};

static OLD: [u8; 4_096] = [b'o'; 4_096];
static NEW: [u8; 4_096] = [b'n'; 4_096];

/// Memory for one upload.
fn site() -> Site {
    let site = Site::new().with(json!({
        "maxBackupBytes": NEW.len(),
        "limits": { "uploadMemoryBytes": NEW.len() },
    }));
    site.place_backup(ID, &OLD, now());
    site
}

fn lock(site: &Site) -> File {
    let file = File::open(site.backup_file(ID)).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}

/// Sends a request, and goes away when the store is at work on it.
async fn send_and_go_away(server: &ServerProcess, mut phone: Client, method: &str) {
    let path = backup_path();
    let body = if method == "PUT" { &NEW[..] } else { b"" };
    let sent = phone.send(method, &path, &[], body);
    let file = server.site().backup_file(ID);
    tokio::select! {
        answer = sent => panic!("answered without the lock: {answer:?}"),
        () = lock_is_waited_for(&file) => {}
    }
    drop(phone);
}

/// Waits until there is nothing in `tmp/`: what the store began is done.
async fn nothing_is_under_way(site: &Site) {
    soon(async {
        while !names(&site.data().join("tmp")).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The phone's backup as another phone gets it.
async fn read(server: &ServerProcess) -> Option<Vec<u8>> {
    let mut phone = server.phone(Protocol::Http1).await;
    let read = phone.ask("GET", &backup_path(), &[]).await;
    match read.status {
        200 => Some(read.body.into()),
        404 => None,
        _ => panic!("{read:?}"),
    }
}

#[tokio::test]
async fn an_upload_whose_phone_goes_away_while_the_store_is_at_work_is_stored_whole() {
    for protocol in Protocol::BOTH {
        let server = ServerProcess::start(site());
        let lock = lock(server.site());
        let phone = server.phone(protocol).await;

        send_and_go_away(&server, phone, "PUT").await;

        assert!(
            read(&server).await.unwrap() == OLD,
            "readers wait for no lock"
        );
        drop(lock);
        soon(async {
            loop {
                let read = read(&server).await.unwrap();
                if read == NEW {
                    return;
                }
                assert!(read == OLD, "torn: {read:?}");
            }
        })
        .await;
        nothing_is_under_way(server.site()).await;
        assert_eq!(names(&server.site().data().join("backups")), [ID]);
        assert!(names(&server.site().data().join("trash")).is_empty());
        // The memory of the upload has been given back.
        let mut phone = server.phone(protocol).await;
        let path = format!("/backups/{OTHER_ID}");
        let put = phone.send("PUT", &path, &[], &NEW[..]).await;
        assert_eq!(put.status, 201);
        drop(phone);
        server.has_no_new_descriptors().await;
    }
}

#[tokio::test]
async fn a_removal_whose_phone_goes_away_while_the_store_is_at_work_is_carried_out() {
    for protocol in Protocol::BOTH {
        let server = ServerProcess::start(site());
        let lock = lock(server.site());
        let phone = server.phone(protocol).await;

        send_and_go_away(&server, phone, "DELETE").await;

        assert!(read(&server).await.unwrap() == OLD);
        drop(lock);
        soon(async {
            while let Some(read) = read(&server).await {
                assert!(read == OLD, "torn: {read:?}");
            }
        })
        .await;
        let trash = server.site().data().join("trash");
        let removed = names(&trash);
        assert_eq!(removed.len(), 1, "{removed:?}");
        assert!(fs::read(trash.join(&removed[0])).unwrap() == OLD);
        server.has_no_new_descriptors().await;
    }
}

#[tokio::test]
async fn an_upload_at_which_the_store_is_at_work_is_answered_after_the_stop() {
    for (protocol, method) in [
        (Protocol::Http1, "PUT"),
        (Protocol::Http2, "PUT"),
        (Protocol::Http2, "DELETE"),
    ] {
        let mut server = ServerProcess::start(site());
        let lock = lock(server.site());
        let mut phone = server.phone(protocol).await;
        let path = backup_path();
        let body = if method == "PUT" { &NEW[..] } else { b"" };
        let sent = phone.send(method, &path, &[], body);
        let stopped = async {
            lock_is_waited_for(&server.site().backup_file(ID)).await;
            server.signal(Signal::TERM);
            server.log_through(|line| line.contains("graceful shutdown started"));
            drop(lock);
        };

        let (answer, ()) = tokio::join!(sent, stopped);

        assert_eq!(answer.status, 204, "{protocol:?} {method}");
        let (code, _, site) = server.ended();
        assert_eq!(code, Some(0));
        let left = fs::read(site.backup_file(ID)).ok();
        assert!(left == (method == "PUT").then(|| NEW.to_vec()));
        assert!(names(&site.data().join("tmp")).is_empty());
    }
}

#[tokio::test]
async fn an_upload_that_outlasts_the_drain_is_cut_off_and_stored_whole_all_the_same() {
    for protocol in Protocol::BOTH {
        let site = site().with(json!({ "limits": { "drainSeconds": 1 } }));
        let mut server = ServerProcess::start(site);
        let lock = lock(server.site());
        let mut phone = server.phone(protocol).await;
        let path = backup_path();
        let sent = phone.send_body("PUT", &path, &[], crate::support::wire::whole(&NEW[..]));
        let stopped = async {
            lock_is_waited_for(&server.site().backup_file(ID)).await;
            server.signal(Signal::TERM);
            server.log_through(|line| line.contains("shutdown timeout"));
        };

        let (answer, ()) = tokio::join!(sent, stopped);

        assert!(answer.is_err(), "{protocol:?}: {answer:?}");
        let site = server.site();
        assert!(fs::read(site.backup_file(ID)).unwrap() == OLD);
        // The process does not leave work half done.
        drop(lock);
        let (code, _, site) = server.ended();
        assert_eq!(code, Some(0));
        assert!(fs::read(site.backup_file(ID)).unwrap() == NEW);
        assert_eq!(names(&site.data().join("backups")), [ID]);
        assert!(names(&site.data().join("tmp")).is_empty());
    }
}

#[tokio::test]
async fn an_upload_at_which_the_store_is_at_work_has_no_deadline() {
    for protocol in Protocol::BOTH {
        let limits = json!({ "bodySeconds": 1, "uploadMemoryBytes": NEW.len() * 4 });
        let server = ServerProcess::start(site().with(json!({ "limits": limits })));
        let lock = lock(server.site());
        let mut phone = server.phone(protocol).await;
        let mut witness = server.phone(protocol).await;
        let path = backup_path();
        let sent = phone.send("PUT", &path, &[], &NEW[..]);
        let waited = async {
            lock_is_waited_for(&server.site().backup_file(ID)).await;
            // An upload that began later is given up: the time for a body is over.
            let other = format!("/backups/{OTHER_ID}");
            let length = [("content-length", "100")];
            let stalled = witness.send_body("PUT", &other, &length, unfinished(b"n"));
            stalled.await.unwrap().assert_refused(408);
            drop(lock);
        };

        let (answer, ()) = tokio::join!(sent, waited);

        assert_eq!(answer.status, 204, "{protocol:?}");
        assert!(read(&server).await.unwrap() == NEW);
        assert_eq!(names(&server.site().data().join("backups")), [ID]);
        assert!(names(&server.site().data().join("tmp")).is_empty());
    }
}

#[tokio::test]
async fn a_server_that_is_killed_at_work_leaves_the_old_backup_and_the_next_one_sweeps() {
    let server = ServerProcess::start(site());
    let lock = lock(server.site());
    let phone = server.phone(Protocol::Http1).await;
    send_and_go_away(&server, phone, "PUT").await;
    assert_eq!(names(&server.site().data().join("tmp")).len(), 1);

    server.signal(Signal::KILL);
    let (code, _, site) = server.ended();
    drop(lock);

    assert_eq!(code, None, "it was killed");
    assert!(fs::read(site.backup_file(ID)).unwrap() == OLD);
    let server = ServerProcess::start(site);
    assert!(names(&server.site().data().join("tmp")).is_empty());
    assert!(read(&server).await.unwrap() == OLD);
}
