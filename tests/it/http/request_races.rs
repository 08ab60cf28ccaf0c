//! Requests and sweeps between whose steps another operation happens: what the store did decides,
//! not what the server saw before.
//!
//! The store is a double that holds one operation at a gate; `store::races` has the steps within a
//! store of files.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use threema_safe_server::backup::BackupId;
use threema_safe_server::retention::Report;
use threema_safe_server::state::{Scrubbed, StateFile};
use threema_safe_server::store::{Restored, Store};

use crate::store::failing::status;
use crate::support::stores::{FaultyStore, MemoryStore, Operation, Side};
use crate::support::wire::{Answer, Client, Protocol};
use crate::support::{ID, OTHER_ID, Site, TestServer, backup_path, digits, now};

const OLD: &str = "the old backup";
const A: &str = "what is uploaded in the request that is held";
const B: &str = "what is uploaded while another request is held";
const EXPIRED: SystemTime = UNIX_EPOCH;

fn id() -> BackupId {
    ID.parse().unwrap()
}

/// A backup [`ID`], in its place and in a store in memory.
fn memory(last_upload: SystemTime) -> MemoryStore {
    let memory = MemoryStore::default();
    let mut kept = memory.kept();
    let backup = kept.backup(OLD.into(), last_upload);
    kept.backups.insert(id(), backup);
    // Of another phone: no sweep removes the only backup.
    let other = kept.backup(OLD.into(), now());
    kept.backups.insert(digits(9).parse().unwrap(), other);
    drop(kept);
    memory
}

/// What is there, and what is in the trash.
fn kept(memory: &MemoryStore) -> (Option<String>, Vec<String>) {
    let kept = memory.kept();
    let text = |body: &bytes::Bytes| String::from_utf8(body.to_vec()).unwrap();
    let here = kept.backups.get(&id()).map(|backup| text(&backup.body));
    let trash = kept.trash.values().map(|backup| text(&backup.body));
    (here, trash.collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Get,
    Put(&'static str),
    Delete,
}

use Ask::{Delete, Get, Put};

async fn send(phone: &mut Client, ask: Ask) -> Answer {
    let (method, body) = match ask {
        Get => ("GET", ""),
        Put(body) => ("PUT", body),
        Delete => ("DELETE", ""),
    };
    phone.send(method, &backup_path(), &[], body).await
}

/// A request that is held on one side of what it does, another one meanwhile, and how both end.
struct Case {
    held: Ask,
    side: Side,
    meanwhile: Ask,
    /// The statuses, in the order in which the requests are answered.
    answers: [u16; 2],
    here: Option<&'static str>,
    trash: &'static [&'static str],
}

const CASES: [Case; 9] = {
    const fn case(
        held: Ask,
        side: Side,
        meanwhile: Ask,
        answers: [u16; 2],
        here: Option<&'static str>,
        trash: &'static [&'static str],
    ) -> Case {
        Case {
            held,
            side,
            meanwhile,
            answers,
            here,
            trash,
        }
    }
    use Side::{After, Before};
    [
        case(Put(A), Before, Put(B), [204, 204], Some(A), &[]),
        case(Put(A), After, Put(B), [204, 204], Some(B), &[]),
        // It looked as if there were one to replace.
        case(Put(A), Before, Delete, [204, 201], Some(A), &[OLD]),
        case(Put(A), After, Delete, [204, 204], None, &[A]),
        case(Delete, Before, Put(B), [204, 204], None, &[B]),
        // It is carried out already.
        case(Delete, After, Put(B), [201, 204], Some(B), &[OLD]),
        // It looked as if there were one to remove.
        case(Delete, Before, Delete, [204, 404], None, &[OLD]),
        case(Delete, After, Delete, [404, 204], None, &[OLD]),
        case(Put(A), Before, Get, [200, 204], Some(A), &[]),
    ]
};

async fn server(memory: &MemoryStore) -> (TestServer, FaultyStore) {
    let store = FaultyStore::over(memory.clone());
    let site = Site::new();
    site.swept_at(now());
    let server = site.start_over(store.clone()).await;
    server.settled().await;
    (server, store)
}

#[tokio::test]
async fn a_request_is_answered_by_what_the_store_did_and_not_by_what_it_looked_like() {
    for protocol in Protocol::BOTH {
        for case in CASES {
            let name = format!("{:?} held {:?}, {:?}", case.held, case.side, case.meanwhile);
            let memory = memory(now());
            let (server, store) = server(&memory).await;
            let operation = match case.held {
                Get => Operation::Get,
                Put(_) => Operation::Put,
                Delete => Operation::Remove,
            };
            let gate = store.hold_one(1, case.side, operation);
            let mut phone = server.phone(protocol).await;
            let mut other = server.phone(protocol).await;

            let held = send(&mut phone, case.held);
            let meanwhile = async {
                gate.is_reached_by(1).await;
                let answer = send(&mut other, case.meanwhile).await;
                gate.open();
                answer
            };
            let (held, meanwhile) = tokio::join!(held, meanwhile);

            assert_eq!([meanwhile.status, held.status], case.answers, "{name}");
            let (here, trash) = kept(&memory);
            let trash: Vec<_> = trash.iter().map(String::as_str).collect();
            assert_eq!(
                (here.as_deref(), &*trash),
                (case.here, case.trash),
                "{name}"
            );
            if case.meanwhile == Get {
                assert_eq!(meanwhile.text(), OLD);
            }
        }
    }
}

#[tokio::test]
async fn a_reader_gets_the_version_that_was_read_with_its_own_header() {
    for protocol in Protocol::BOTH {
        for (side, meanwhile, expected) in [
            (Side::Before, Put(B), Some(B)),
            (Side::Before, Delete, None),
            (Side::After, Put(B), Some(OLD)),
            (Side::After, Delete, Some(OLD)),
        ] {
            let memory = memory(now());
            let (server, store) = server(&memory).await;
            let mut phone = server.phone(protocol).await;
            let mut other = server.phone(protocol).await;
            let etag_of = |answer: &Answer| answer.header("etag").map(ToOwned::to_owned);
            let old = etag_of(&send(&mut other, Get).await);
            let gate = store.hold_one(1, side, Operation::Get);

            let held = send(&mut phone, Get);
            let meanwhile = async {
                gate.is_reached_by(1).await;
                send(&mut other, meanwhile).await;
                gate.open();
            };
            let (read, ()) = tokio::join!(held, meanwhile);

            let Some(expected) = expected else {
                read.assert_refused(404);
                continue;
            };
            assert_eq!((read.status, read.text()), (200, expected));
            let length = expected.len().to_string();
            assert_eq!(read.header("content-length"), Some(&*length));
            assert_eq!(etag_of(&read) == old, expected == OLD);
        }
    }
}

#[tokio::test]
async fn a_listing_during_which_backups_come_and_go_is_whole() {
    let memory = memory(now());
    let (server, store) = server(&memory).await;
    let mut operator = server.operator_client(Protocol::Http2).await;
    let mut phone = server.phone(Protocol::Http1).await;
    // Before it looks at the first of them.
    let gate = store.hold_one(1, Side::Before, Operation::List);

    let listed = operator.ask("PROPFIND", "/backups/", &[("depth", "1")]);
    let meanwhile = async {
        gate.is_reached_by(1).await;
        assert_eq!(send(&mut phone, Delete).await.status, 204);
        let other = format!("/backups/{OTHER_ID}");
        let put = phone.send("PUT", &other, &[], B).await;
        assert_eq!(put.status, 201);
        gate.open();
    };
    let (listed, ()) = tokio::join!(listed, meanwhile);

    let hrefs = listed.hrefs();
    assert!(!hrefs.contains(&&*backup_path()), "{hrefs:?}");
    assert!(hrefs.contains(&"/backups/"));
}

/// A scrub lists backups, too, and must not be taken for the sweep.
fn scrub_is_not_due(site: &Site) {
    fs::create_dir_all(site.data().join("tmp")).unwrap();
    let finished = now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let scrubbed = Scrubbed {
        finished,
        ..Scrubbed::default()
    };
    StateFile::in_directory(&site.data())
        .update(|state| state.scrub = Some(scrubbed))
        .unwrap();
}

/// The sweep of a starting server is held at one operation; what happens meanwhile, and its report.
async fn swept(
    memory: &MemoryStore,
    side: Side,
    operation: Operation,
    meanwhile: impl AsyncFnOnce(&TestServer),
) -> Report {
    let store = FaultyStore::over(memory.clone());
    let gate = store.hold_one(1, side, operation);
    let site = Site::new();
    scrub_is_not_due(&site);
    site.swept_at(now());
    let server = site.start_over(store).await;
    gate.is_reached_by(1).await;
    meanwhile(&server).await;
    gate.open();
    let ended = status(&server, |status| status.sweep.is_some()).await;
    ended.sweep.unwrap().report.unwrap()
}

#[tokio::test]
async fn a_backup_renewed_after_the_sweep_has_seen_it_expired_stays() {
    for listing_is_over in [true, false] {
        let memory = memory(EXPIRED);
        let (side, operation) = if listing_is_over {
            (Side::Before, Operation::Expire)
        } else {
            (Side::After, Operation::List)
        };
        let report = swept(&memory, side, operation, async |server| {
            let mut phone = server.phone(Protocol::Http1).await;
            assert_eq!(send(&mut phone, Put(B)).await.status, 204);
        })
        .await;

        assert_eq!((report.kept, report.removed, report.failed), (2, 0, 0));
        assert_eq!(kept(&memory), (Some(B.to_owned()), vec![]));
    }
}

#[tokio::test]
async fn a_backup_removed_after_the_sweep_has_seen_it_expired_is_in_the_trash_once() {
    let memory = memory(EXPIRED);
    let report = swept(&memory, Side::Before, Operation::Expire, async |server| {
        let mut phone = server.phone(Protocol::Http1).await;
        assert_eq!(send(&mut phone, Delete).await.status, 204);
    })
    .await;

    assert_eq!((report.removed, report.failed), (0, 0));
    assert_eq!(kept(&memory), (None, vec![OLD.to_owned()]));
}

#[tokio::test]
async fn a_backup_uploaded_while_its_old_version_expires_is_a_new_one_and_stays() {
    let memory = memory(EXPIRED);
    let report = swept(&memory, Side::After, Operation::Expire, async |server| {
        let mut phone = server.phone(Protocol::Http1).await;
        assert_eq!(send(&mut phone, Put(B)).await.status, 201);
    })
    .await;

    assert_eq!((report.removed, report.failed), (1, 0));
    assert_eq!(kept(&memory), (Some(B.to_owned()), vec![OLD.to_owned()]));
}

#[tokio::test]
async fn a_backup_restored_after_the_sweep_has_seen_it_as_old_trash_stays() {
    let memory = memory(now());
    assert!(memory.remove(id(), EXPIRED).await.unwrap());
    let operation = Operation::EraseTrashed;
    let report = swept(&memory, Side::Before, operation, async |_| {
        let trashed = memory.list_trash().next().await.unwrap().unwrap();
        let restored = memory.restore(trashed, now()).await.unwrap();
        assert_eq!(restored, Restored::Back);
        let second = Duration::from_secs(1);
        assert!(memory.remove(id(), now() + second).await.unwrap());
    })
    .await;

    assert_eq!((report.trash_erased, report.failed), (0, 0));
    // Removed again meanwhile: it is another one in the trash.
    assert_eq!(kept(&memory), (None, vec![OLD.to_owned()]));
}
