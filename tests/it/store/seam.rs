//! The storage seam: a whole server over a backend that is no directory, and what clients and
//! operators are told while a backend cannot be reached.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use threema_safe_server::backup::BackupId;
use threema_safe_server::scrub::scrub;
use threema_safe_server::state::{IfInvalid, State, StateFile, StateStore};
use threema_safe_server::store::{Error, Opened, Store};

use crate::docs::tidy::{code, rust_files};
use crate::support::stores::{Fault, FaultyStore, MemoryStore, Operation, UNREACHABLE, upload};
use crate::support::wire::{Client, Protocol, soon, whole};
use crate::support::{ID, OTHER_ID, Site, TestServer, backup_path, digits, now};

const BACKUP: &[u8] = &[7; 100];

fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

fn path(number: u32) -> String {
    format!("/backups/{number:064x}")
}

/// A memory with a backup and a file in the trash, both long expired.
fn expired_memory() -> MemoryStore {
    let memory = MemoryStore::default();
    let mut kept = memory.kept();
    let backup = kept.backup(BACKUP.into(), UNIX_EPOCH);
    kept.backups.insert(id(OTHER_ID), backup.clone());
    kept.trash.insert((id(OTHER_ID), 0), backup);
    // Of another phone, and of an earlier run: no sweep removes the only backup, or is the first.
    let other = kept.backup(BACKUP.into(), now());
    kept.backups.insert(id(&digits(99)), other);
    let today = now().duration_since(UNIX_EPOCH).unwrap();
    kept.state.highest_time = Some(today.as_secs());
    drop(kept);
    memory
}

/// What one part of the admin listener answers: its status and its body.
async fn admin(server: &TestServer, path: &str) -> (u16, String) {
    let answer = server.admin(path).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.get(9..12).unwrap().parse().unwrap(), body.to_owned())
}

async fn status(server: &TestServer) -> Value {
    serde_json::from_str(&admin(server, "/status.json").await.1).unwrap()
}

/// Waits until the memory is as `is_it` says.
async fn becomes(memory: &MemoryStore, is_it: impl Fn(&State, usize, usize) -> bool) {
    soon(async {
        loop {
            {
                let kept = memory.kept();
                if is_it(&kept.state, kept.backups.len(), kept.trash.len()) {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn an_hour_later() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60 * 60)).await;
    tokio::time::resume();
}

/// Uploads, reads, lists and deletes a backup.
async fn assert_full_service(server: &TestServer, protocol: Protocol) {
    let mut phone = server.phone(protocol).await;
    let mut operator = server.operator_client(protocol).await;
    let path = backup_path();
    let put = phone.send("PUT", &path, &[], BACKUP).await;
    assert!([201, 204].contains(&put.status), "{put:?}");
    assert_eq!(phone.ask("GET", &path, &[]).await.body, BACKUP);
    assert_eq!(phone.ask("HEAD", &path, &[]).await.status, 200);
    assert_eq!(phone.send("PUT", &path, &[], BACKUP).await.status, 204);
    let depth = [("depth", "1")];
    let listed = operator.ask("PROPFIND", "/backups/", &depth).await;
    assert!(listed.hrefs().contains(&path.as_str()), "{listed:?}");
    assert_eq!(phone.ask("DELETE", &path, &[]).await.status, 204);
    assert_eq!(phone.ask("GET", &path, &[]).await.status, 404);
}

#[tokio::test]
async fn a_whole_server_runs_on_a_backend_that_is_no_directory() {
    let memory = expired_memory();
    let site = Site::new().with(json!({ "quotas": { "maxBackups": 3 } }));
    let server = site.start_opened(memory.opened()).await;

    // The first sweep and the first scrub, each remembered.
    becomes(&memory, |state, _, _| {
        state.last_sweep.is_some() && state.scrub.is_some()
    })
    .await;
    server.swept().await;
    {
        let kept = memory.kept();
        assert_eq!(kept.backups.len(), 1);
        let removed: Vec<_> = kept
            .trash
            .keys()
            .map(|(_, removed_at)| *removed_at)
            .collect();
        assert!(removed.len() == 1 && removed[0] > 0, "{removed:?}");
    }

    for protocol in Protocol::BOTH {
        assert_full_service(&server, protocol).await;
    }
    let mut phone = server.phone(Protocol::Http1).await;
    for (number, expected) in [(1, 201), (2, 201), (3, 507), (1, 204)] {
        let put = phone.send("PUT", &path(number), &[], BACKUP).await;
        assert_eq!(put.status, expected, "{number}");
    }
    assert_eq!(admin(&server, "/readyz").await, (200, "ready\n".into()));
    assert_eq!(status(&server).await["storage"]["problem"], Value::Null);

    // The next sweep, an hour later.
    {
        let mut kept = memory.kept();
        let backup = kept.backup(BACKUP.into(), UNIX_EPOCH);
        kept.backups.insert(id(OTHER_ID), backup);
    }
    an_hour_later().await;
    becomes(&memory, |state, backups, _| {
        backups == 3 && !state.uploads.is_empty()
    })
    .await;

    // Another run remembers what this one did.
    let uploads = || {
        memory
            .kept()
            .state
            .uploads
            .iter()
            .map(|day| day.uploads)
            .sum::<u64>()
    };
    let before = uploads();
    assert_eq!(before, 7);
    // No connection outlasts an hour without a request.
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(phone.send("PUT", &path(1), &[], BACKUP).await.status, 204);
    let site = server.stop().await;
    assert_eq!(uploads(), before + 1);
    let scrubbed = memory.kept().state.scrub;
    let server = site.start_opened(memory.opened()).await;
    server.swept().await;
    let mut phone = server.phone(Protocol::Http2).await;
    assert_eq!(phone.ask("GET", &path(1), &[]).await.body, BACKUP);
    soon(async { while status(&server).await["scrub"] != json!(scrubbed) {} }).await;
    let days = status(&server).await["uploads"].clone();
    let counted = days
        .as_array()
        .unwrap()
        .iter()
        .map(|day| day["uploads"].as_u64());
    assert_eq!(counted.flatten().sum::<u64>(), before + 1);

    let site = server.stop().await;
    assert!(!site.data().exists());
}

/// Each method, its path, and whether the operator uses it.
const REQUESTS: [(&str, &str, bool); 8] = [
    ("GET", ID, false),
    ("GET", OTHER_ID, false),
    ("HEAD", ID, false),
    ("PUT", ID, false),
    ("PUT", OTHER_ID, false),
    ("DELETE", ID, false),
    ("PROPFIND", ID, true),
    ("PROPFIND", "", true),
];

#[tokio::test]
async fn a_storage_that_cannot_be_reached_is_said_to_clients_and_operators() {
    let memory = MemoryStore::default();
    memory
        .put(id(ID), upload(Bytes::from_static(BACKUP)))
        .await
        .unwrap();
    let server = Site::new().start_opened(memory.opened()).await;
    server.swept().await;

    memory.set_reachable(false);
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        let mut operator = server.operator_client(protocol).await;
        for (method, id, is_of_operator) in REQUESTS {
            let client: &mut Client = if is_of_operator {
                &mut operator
            } else {
                &mut phone
            };
            let headers: &[_] = if is_of_operator {
                &[("depth", "1")]
            } else {
                &[]
            };
            let body = if method == "PUT" { BACKUP } else { &[] };
            let path = format!("/backups/{id}");
            let answer = client.send(method, &path, headers, body).await;

            assert_eq!(answer.status, 503, "{method} {id}: {answer:?}");
            assert_eq!(answer.header("retry-after"), Some("30"), "{method} {id}");
            if method != "HEAD" {
                answer.assert_refused(503);
                assert_eq!(answer.text(), "the storage cannot be reached\n");
            }
        }
        // What needs no storage is answered.
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    }
    let problem = format!("the storage cannot be reached: {UNREACHABLE}");
    let (ready, why) = admin(&server, "/readyz").await;
    assert!(ready == 503 && why.contains(&problem), "{ready} {why}");
    let told = status(&server).await;
    assert_eq!(told["ready"], false);
    assert_eq!(told["storage"]["problem"], problem);
    let (_, metrics) = admin(&server, "/metrics").await;
    for line in [
        "safe_ready 0",
        "safe_storage_writable 0",
        "safe_storage_errors_total{operation=\"read\"} 4",
        "safe_storage_errors_total{operation=\"list\"} 2",
        // No limit of this server was reached.
        "safe_refused_total{limit=\"overload\"} 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}: {metrics}"
        );
    }
    an_hour_later().await;
    soon(async {
        while !status(&server)
            .await
            .to_string()
            .contains("the last sweep was aborted")
        {}
    })
    .await;

    memory.set_reachable(true);
    assert_eq!(memory.kept().backups[&id(ID)].body, BACKUP);
    assert!(memory.kept().trash.is_empty());
    for protocol in Protocol::BOTH {
        assert_full_service(&server, protocol).await;
    }
    an_hour_later().await;
    soon(async { while admin(&server, "/readyz").await.0 != 200 {} }).await;
}

/// When part of the list is on its way, only the end of the connection can say that the rest is
/// missing.
#[tokio::test]
async fn a_listing_breaks_off_when_the_storage_goes_away_on_the_way() {
    for protocol in Protocol::BOTH {
        let memory = MemoryStore::default();
        for text in [ID, OTHER_ID] {
            memory
                .put(id(text), upload(Bytes::from_static(BACKUP)))
                .await
                .unwrap();
        }
        let store = FaultyStore::over(memory.clone());
        let opened = Opened {
            store: Arc::new(store.clone()),
            state: Arc::new(memory),
        };
        let server = Site::new().start_opened(opened).await;
        server.swept().await;
        for nth in 1..=3 {
            let mut operator = server.operator_client(protocol).await;
            store.fail_from(nth, Operation::List, Fault::Unavailable);
            let listed = operator
                .send_body("PROPFIND", "/backups/", &[("depth", "1")], whole(""))
                .await;
            // Without its members, the collection needs no storage.
            let mut operator = server.operator_client(protocol).await;
            let alone = operator
                .ask("PROPFIND", "/backups/", &[("depth", "0")])
                .await;
            store.heal();

            if nth == 1 {
                listed.unwrap().assert_refused(503);
            } else {
                assert!(listed.is_err(), "{nth}: {listed:?}");
            }
            assert_eq!(alone.hrefs(), ["/backups/"]);
        }
    }
}

/// Else a network that is down for a moment would have every backup called damaged.
#[tokio::test]
async fn a_scrub_breaks_off_when_the_storage_goes_away_and_calls_no_backup_damaged() {
    let memory = MemoryStore::default();
    for number in 0..3 {
        let id = id(&format!("{number:064x}"));
        memory
            .put(id, upload(Bytes::from_static(BACKUP)))
            .await
            .unwrap();
    }
    let mut found = Vec::new();

    let scrubbed = scrub(&memory, None, |_, finding| {
        found.push(finding);
        memory.set_reachable(false);
    })
    .await;

    assert!(
        matches!(scrubbed, Err(Error::Unavailable(_))),
        "{scrubbed:?}"
    );
    assert_eq!(found, [None]);
}

/// A storage that is there, and a backup that it cannot read: a scrub reports it and goes on.
#[tokio::test]
async fn a_scrub_goes_on_after_one_backup_that_a_reachable_storage_cannot_read() {
    let memory = MemoryStore::default();
    for number in 0..3 {
        let id = id(&format!("{number:064x}"));
        memory
            .put(id, upload(Bytes::from_static(BACKUP)))
            .await
            .unwrap();
    }
    // The first failure may have been of a connection that is back.
    for (failures, sound, unreadable) in [(1, 3, 0), (2, 2, 1)] {
        memory.kept().unreadable = Some((id(&format!("{:064x}", 1)), failures));

        let scrubbed = scrub(&memory, None, |_, _| ()).await.unwrap();

        assert_eq!((scrubbed.sound, scrubbed.unreadable), (sound, unreadable));
    }
}

/// Counts up in the state, from many tasks at once; each learns what it has counted to.
async fn count_up(state: &dyn StateStore) {
    let counts = (0..50).map(|_| {
        state.update(|state| {
            let next = state.last_sweep.unwrap_or_default() + 1;
            state.last_sweep = Some(next);
            next
        })
    });
    let mut counted: Vec<_> = join_all(counts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    counted.sort_unstable();
    assert_eq!(counted, Vec::from_iter(1..=50));
    assert_eq!(state.load().await.unwrap().last_sweep, Some(50));
}

#[tokio::test]
async fn every_state_store_applies_changes_one_after_the_other_and_returns_their_values() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tmp")).unwrap();
    count_up(&StateFile::in_directory(folder.path())).await;
    count_up(&MemoryStore::default()).await;
}

#[tokio::test]
async fn a_state_that_is_not_valid_is_replaced_only_where_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tmp")).unwrap();
    crate::support::write(&folder.path().join("state.json"), "{");
    let file = StateFile::in_directory(folder.path());
    let state: &dyn StateStore = &file;
    let noted = |state: &mut State| state.last_sweep = Some(7);

    assert!(state.update(noted).await.is_err());
    let refused = state.apply(Box::new(noted), IfInvalid::Fail).await;
    assert!(refused.unwrap_err().to_string().contains("keeps it aside"));
    let replaced = state.apply(Box::new(noted), IfInvalid::StartEmpty).await;

    replaced.unwrap();
    assert_eq!(state.load().await.unwrap().last_sweep, Some(7));
}

#[test]
fn no_code_outside_of_the_seam_names_a_backend() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let seam = ["store", "state", "config"].map(|module| root.join(module));
    for path in rust_files("src") {
        if seam.iter().any(|module| path.starts_with(module)) {
            continue;
        }
        let code = code(&path);
        for name in ["FileStore", "StateFile", "Storage::Files", "statvfs"] {
            assert!(!code.contains(name), "{} names {name}", path.display());
        }
    }
}
