//! Failing and slow stores under a server: what clients, operators and the status are told is true,
//! and no client waits for another.
//!
//! Which system call fails does not matter here; `tests/system/faults.rs` and
//! `tests/system/disks.rs` have those.

use std::fs::File;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::join_all;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use threema_safe_server::backup::BackupId;
use threema_safe_server::server::Status;
use threema_safe_server::store::{FileStore, Put, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::process::lock_is_waited_for;
use crate::support::stores::{Fault, FaultyStore, MemoryStore, Operation, Side, upload};
use crate::support::wire::{Answer, Client, Protocol, soon, whole};
use crate::support::{ID, OTHER_ID, Site, TestServer, backup_path, digits, names, now};

/// Long enough for one that an app can open.
pub(crate) const OLD: &str = "the old backup, which is as long as any must be";
pub(crate) const NEW: &str = "the new one, which is of another length than the old one";
/// Uploads at the same time.
const MANY: u32 = 400;

/// A request, and an operation of the store that it needs.
struct Case {
    method: &'static str,
    id: &'static str,
    needs: Operation,
    /// What is answered when the operation succeeds.
    success: u16,
    /// Whether the request succeeds without it.
    can_do_without: bool,
}

/// There is a backup [`ID`], and none [`OTHER_ID`].
const CASES: [Case; 10] = {
    const fn case(method: &'static str, id: &'static str, needs: Operation, success: u16) -> Case {
        Case {
            method,
            id,
            needs,
            success,
            can_do_without: false,
        }
    }
    use Operation::{Get, Put, Remove, Stat};
    [
        case("PUT", OTHER_ID, Put, 201),
        case("PUT", ID, Put, 204),
        // The look is for conditions, of which there are none.
        Case {
            can_do_without: true,
            ..case("PUT", ID, Stat, 204)
        },
        case("GET", ID, Get, 200),
        case("GET", OTHER_ID, Get, 404),
        case("HEAD", ID, Stat, 200),
        case("HEAD", OTHER_ID, Stat, 404),
        case("DELETE", ID, Stat, 204),
        case("DELETE", ID, Remove, 204),
        case("PROPFIND", ID, Stat, 207),
    ]
};

/// A store in memory in which there is a backup [`ID`], and a server over it that has settled.
pub(crate) async fn server() -> (TestServer, FaultyStore) {
    let store = FaultyStore::over(MemoryStore::default());
    let server = Site::new().start_over(store.clone()).await;
    server.settled().await;
    store.put(ID.parse().unwrap(), upload(OLD)).await.unwrap();
    (server, store)
}

async fn ask(client: &mut Client, method: &str, id: &str) -> Answer {
    let depth: &[_] = if method == "PROPFIND" {
        &[("depth", "0")]
    } else {
        &[]
    };
    let body = if method == "PUT" { NEW } else { "" };
    let path = format!("/backups/{id}");
    client.send(method, &path, depth, body).await
}

pub(crate) async fn kept(store: &FaultyStore, id: &str) -> Option<String> {
    let found = store.get(id.parse().unwrap()).await.unwrap();
    found.map(|(_, body)| String::from_utf8(body.into()).unwrap())
}

#[tokio::test]
async fn a_store_that_fails_is_reported_as_it_is_and_there_is_full_service_afterwards() {
    for protocol in Protocol::BOTH {
        for case in CASES {
            let Case { method, id, .. } = case;
            let (server, store) = server().await;
            // A phone account sees no backup by PROPFIND.
            let mut client = if method == "PROPFIND" {
                server.operator_client(protocol).await
            } else {
                server.phone(protocol).await
            };
            let before = (kept(&store, ID).await, kept(&store, OTHER_ID).await);

            for fault in Fault::BOTH.into_iter().filter(|_| !case.can_do_without) {
                store.fail_from(1, case.needs, fault);
                let answer = ask(&mut client, method, id).await;
                store.heal();

                let status = match fault {
                    Fault::Full => 507,
                    Fault::Unavailable => 503,
                    Fault::Io => 500,
                };
                if method == "HEAD" {
                    assert_eq!(answer.status, status);
                } else {
                    answer.assert_refused(status);
                }
                assert_eq!(answer.header("etag"), None);
                let after = (kept(&store, ID).await, kept(&store, OTHER_ID).await);
                assert_eq!(after, before, "{method} {:?}", case.needs);
                assert_eq!(store.list_trash().count().await, 0);
            }
            if case.can_do_without {
                store.fail_from(1, case.needs, Fault::Io);
            }
            let answer = ask(&mut client, method, id).await;
            store.heal();

            assert_eq!(answer.status, case.success, "{method} {:?}", case.needs);
            let now = kept(&store, id).await;
            match (method, id) {
                ("PUT", _) => assert_eq!(now.as_deref(), Some(NEW)),
                ("DELETE", _) => assert_eq!((now, store.list_trash().count().await), (None, 1)),
                ("GET", ID) => assert_eq!(answer.text(), OLD),
                _ => {
                    let all = (kept(&store, ID).await, kept(&store, OTHER_ID).await);
                    assert_eq!(all, before);
                }
            }
        }
    }
}

/// As much as an operator's copy needs: half a list must not look like a whole one.
#[tokio::test]
async fn a_listing_in_which_the_store_fails_breaks_off_and_the_next_one_is_whole() {
    for protocol in Protocol::BOTH {
        let (server, store) = server().await;
        store
            .put(OTHER_ID.parse().unwrap(), upload(OLD))
            .await
            .unwrap();
        let depth = [("depth", "1")];
        for fault in Fault::BOTH {
            // At the first, the second, and where the end would be.
            for nth in 1..=3 {
                store.fail_from(nth, Operation::List, fault);
                let mut operator = server.operator_client(protocol).await;
                let broken = operator
                    .send_body("PROPFIND", "/backups/", &depth, whole(""))
                    .await;
                store.heal();

                assert!(broken.is_err(), "{protocol:?} {nth}: {broken:?}");
            }
        }
        let mut operator = server.operator_client(protocol).await;
        let listed = operator.ask("PROPFIND", "/backups/", &depth).await;
        assert_eq!(listed.hrefs().len(), 3);
    }
}

/// What the admin listener answers.
async fn admin(server: &TestServer, path: &str) -> String {
    let mut stream = TcpStream::connect(server.admin_address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The status, as soon as it is what is waited for.
pub(crate) async fn status(server: &TestServer, is_it: impl Fn(&Status) -> bool) -> Status {
    soon(async {
        loop {
            let status = admin(server, "/status.json").await;
            let status: Status = serde_json::from_str(&status).unwrap();
            if is_it(&status) {
                return status;
            }
        }
    })
    .await
}

/// What needs a person.
fn said(status: &Status) -> Vec<String> {
    let lines = status.alerts().into_iter();
    lines.map(|line| line.text).collect()
}

/// Lets an hour pass for timers.
async fn an_hour_later() {
    let hour = Duration::from_secs(60 * 60);
    tokio::time::pause();
    tokio::time::advance(hour).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_sweep_that_breaks_off_is_told_and_the_next_one_works() {
    for listing in [Operation::List, Operation::ListTrash] {
        for fault in Fault::BOTH {
            let memory = MemoryStore::default();
            let expired = UNIX_EPOCH;
            {
                let mut kept = memory.kept();
                let backup = kept.backup(OLD.into(), expired);
                kept.backups.insert(ID.parse().unwrap(), backup.clone());
                kept.trash.insert((OTHER_ID.parse().unwrap(), 0), backup);
            }
            let store = FaultyStore::over(memory.clone());
            // What is listed first has been seen when it fails.
            store.fail_from(2, listing, fault);

            let site = Site::new();
            site.swept_at(now());
            let server = site.start_over(store.clone()).await;
            let broken = status(&server, |status| status.sweep.is_some()).await;

            assert_eq!(broken.sweep.as_ref().unwrap().report, None);
            assert_eq!(
                said(&broken),
                ["the last sweep was aborted; the log has the reason"]
            );
            let metrics = admin(&server, "/metrics").await;
            assert!(metrics.contains("safe_sweeps_failed_total 1"), "{metrics}");
            assert!(metrics.contains("safe_sweep_last_time_seconds 0"));
            let mut phone = server.phone(Protocol::Http1).await;
            assert_eq!(ask(&mut phone, "PUT", OTHER_ID).await.status, 201);
            // Nothing is removed by halves: what could not be listed to its end is all there.
            let is_there = memory.kept().backups.contains_key(&ID.parse().unwrap());
            assert!(is_there);
            assert!(!memory.kept().trash.is_empty());

            store.heal();
            an_hour_later().await;
            let went_through = |status: &Status| status.sweep.as_ref().unwrap().report.is_some();
            let whole = status(&server, went_through).await;

            assert!(whole.alerts().is_empty(), "{:?}", whole.alerts());
            let report = whole.sweep.unwrap().report.unwrap();
            assert_eq!((report.kept, report.removed), (1, 1));
            assert_eq!((report.trash_kept, report.trash_erased), (1, 1));
            let metrics = admin(&server, "/metrics").await;
            assert!(metrics.contains("safe_sweeps_failed_total 1"), "{metrics}");
            assert!(!metrics.contains("safe_sweep_last_time_seconds 0"));
        }
    }
}

#[tokio::test]
async fn a_sweep_in_which_one_removal_fails_does_the_rest_and_says_so() {
    for operation in [Operation::Expire, Operation::EraseTrashed] {
        let memory = MemoryStore::default();
        for id in [ID, OTHER_ID] {
            let mut kept = memory.kept();
            let id = id.parse().unwrap();
            let backup = kept.backup(OLD.into(), UNIX_EPOCH);
            kept.trash.insert((id, 0), backup.clone());
            kept.backups.insert(id, backup);
        }
        // Of other phones: no sweep removes more than half.
        for number in 0..2 {
            let mut kept = memory.kept();
            let backup = kept.backup(OLD.into(), now());
            kept.backups.insert(digits(number).parse().unwrap(), backup);
        }
        let store = FaultyStore::over(memory.clone());
        store.fail_from(2, operation, Fault::Io);

        let site = Site::new();
        site.swept_at(now());
        let server = site.start_over(store.clone()).await;
        let failed = status(&server, |status| status.sweep.is_some()).await;

        assert_eq!(
            said(&failed),
            ["1 file could not be removed; the log has the reason"]
        );
        let report = failed.sweep.unwrap().report.unwrap();
        let of_expired = u64::from(operation == Operation::Expire);
        let of_trash = u64::from(operation == Operation::EraseTrashed);
        assert_eq!(
            (report.kept, report.removed),
            (2 + of_expired, 2 - of_expired)
        );
        assert_eq!(report.trash_erased, 2 - of_trash);
        assert_eq!(memory.kept().backups.len() as u64, 2 + of_expired);

        store.heal();
        an_hour_later().await;
        let nothing_failed = |status: &Status| {
            let report = status.sweep.as_ref().unwrap().report.as_ref();
            report.is_some_and(|report| report.failed == 0)
        };
        let report = status(&server, nothing_failed).await.sweep.unwrap().report;
        let report = report.unwrap();
        assert_eq!((report.kept, report.removed), (2, of_expired));
        assert_eq!((report.trash_kept, report.trash_erased), (2, of_trash));
    }
}

/// Makes sure that this process may have so many descriptors.
pub(crate) fn allow_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if !enough(limit.current) {
        assert!(enough(limit.maximum), "{limit:?}: this test needs {wanted}");
        let raised = Rlimit {
            current: Some(wanted),
            ..limit
        };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
}

fn id(number: u32) -> BackupId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    BackupId::from_bytes(bytes)
}

#[tokio::test]
async fn uploads_from_400_connections_are_in_the_store_at_the_same_time() {
    // Both ends of each connection, what the store opens, and other tests beside this one.
    allow_descriptors(4_000);
    let site = Site::new();
    let files = FileStore::open(&site.data()).unwrap();
    let store = FaultyStore::over(files);
    // The first to connect may wait for the last.
    let limits = json!({ "headerSeconds": 600, "handshakeSeconds": 600, "requests": MANY + 1 });
    let limits = json!({ "limits": limits });
    let server = site.with(limits).start_over(store.clone()).await;
    let mut phones = Vec::new();
    for number in 0..MANY {
        let protocol = Protocol::BOTH[number as usize % 2];
        phones.push(server.phone(protocol).await);
    }
    let mut witness = server.phone(Protocol::Http1).await;
    let gate = store.hold(Side::Before, Operation::Put);

    let uploads = phones.iter_mut().zip(0..).map(|(phone, number)| {
        let path = format!("/backups/{}", id(number).to_hex());
        async move { phone.send("PUT", &path, &[], number.to_string()).await }
    });
    let held = async {
        gate.is_reached_by(MANY as usize).await;
        // And readers do not wait for them.
        let read = witness.ask("GET", &backup_path(), &[]).await;
        assert_eq!(read.status, 404);
        gate.open();
    };
    let (answers, ()) = tokio::join!(soon(join_all(uploads)), held);

    assert!(answers.iter().all(|answer| answer.status == 201));
    for number in 0..MANY {
        let (_, body) = store.get(id(number)).await.unwrap().unwrap();
        assert_eq!(body, number.to_string());
    }
    let site = server.stop().await;
    assert!(names(&site.data().join("tmp")).is_empty());
}

/// Each is held when all is written and synced, by the lock on what it is about to replace.
#[tokio::test]
async fn files_that_wait_for_their_lock_keep_no_other_upload_waiting() {
    allow_descriptors(4_000);
    let site = Site::new();
    let store = FileStore::open(&site.data()).unwrap();
    let ids: Vec<_> = (0..MANY).map(id).collect();
    join_all(ids.iter().map(|id| store.put(*id, upload(OLD)))).await;
    let file = |id: &BackupId| site.backup_file(&id.to_hex());
    let lock = |id| {
        let file = File::open(file(id)).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        file
    };
    let locks: Vec<_> = ids.iter().map(lock).collect();

    let uploads = join_all(ids.iter().map(|id| store.put(*id, upload(NEW))));
    let others = async {
        for id in &ids {
            lock_is_waited_for(&file(id)).await;
        }
        let created = store.put(id(MANY), upload(NEW)).await.unwrap();
        assert_eq!(created, Put::Created);
        let replaced = store.put(id(MANY), upload(OLD)).await.unwrap();
        assert_eq!(replaced, Put::Replaced);
        for id in &ids {
            let (_, body) = store.get(*id).await.unwrap().unwrap();
            assert_eq!(body, OLD);
        }
        drop(locks);
    };
    let (puts, ()) = tokio::join!(soon(uploads), soon(others));

    for (put, id) in puts.into_iter().zip(&ids) {
        assert_eq!(put.unwrap(), Put::Replaced);
        let (_, body) = store.get(*id).await.unwrap().unwrap();
        assert_eq!(body, NEW);
    }
    assert!(names(&site.data().join("tmp")).is_empty());
}
