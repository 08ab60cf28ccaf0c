//! Limits on connections, requests, time and memory, each while a phone is served. Tests wait for
//! what a limit does: a connection that ends, an answer, a number in the metrics.
//!
//! Over 500 lines: one test for each limit, which share their helpers.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::support::frames::{
    CONTINUATION, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, Outcome, PING,
    Peer, REFUSED_STREAM, SETTINGS, block, frame, request, reset,
};
use crate::support::process::lock_is_waited_for;
use crate::support::stores::{FaultyStore, MemoryStore, Operation, Side};
use crate::support::wire::{Answer, Client, Protocol, Raw, soon};
use crate::support::{ID, Listening, OTHER_ID, Site, TestServer, backup_path};

/// Nothing ends because of its time.
fn patient() -> Value {
    json!({
        "handshakeSeconds": 3600, "headerSeconds": 3600, "bodySeconds": 3600, "graceSeconds": 3600,
    })
}

async fn server(limits: Value) -> TestServer {
    let site = Site::new().with(json!({ "limits": patient() }));
    let server = site.with(json!({ "limits": limits })).start().await;
    server.settled().await;
    server
}

/// Another address of loopback.
fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

async fn raw_from(server: &impl Listening, source: Ipv4Addr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    Raw::connect_from(source, socket, server, b"http/1.1")
        .await
        .unwrap()
}

async fn http1(server: &TestServer) -> Raw {
    raw_from(server, Ipv4Addr::LOCALHOST).await
}

/// Makes sure that a phone that comes now gets everything it wants.
async fn assert_served(server: &impl Listening) {
    for protocol in Protocol::BOTH {
        let mut phone = Client::connect(server, protocol, Some(server.phones())).await;
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
        let path = format!("/backups/{OTHER_ID}");
        let put = phone.send("PUT", &path, &[], "a phone's").await;
        assert!([201, 204].contains(&put.status), "{put:?}");
        assert_eq!(phone.ask("GET", &path, &[]).await.text(), "a phone's");
    }
}

/// Waits until so many came up against this limit, and makes sure that there are no more.
async fn refused(server: &TestServer, limit: &str, expected: u64) {
    let counted = async {
        while server.refused(limit).await < expected {
            tokio::task::yield_now().await;
        }
    };
    let counted = tokio::time::timeout(crate::support::wire::FAIL_SAFE, counted).await;
    let found = server.refused(limit).await;
    assert!(
        counted.is_ok() && found == expected,
        "{limit}: {found} and not {expected}"
    );
}

/// The beginning of an upload of ten bytes, once the server wants its body.
async fn upload_under_way(server: &TestServer, source: Ipv4Addr, id: &str) -> Raw {
    let mut raw = raw_from(server, source).await;
    let authorization = server.phones();
    raw.write(format!(
        "PUT /backups/{id} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\
         Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.answer().await.status, 100);
    raw.write("half").await;
    raw
}

async fn finish_upload(mut raw: Raw) -> Answer {
    raw.write(" & all").await;
    raw.answer().await
}

fn id(number: u8) -> String {
    format!("{number:064x}")
}

#[tokio::test]
async fn an_idle_connection_is_evicted_and_one_at_work_is_not() {
    let server = server(json!({ "connections": 4 })).await;
    let mut idle = Vec::new();
    for number in 1..=3 {
        idle.push(raw_from(&server, address(number)).await);
    }
    let working = upload_under_way(&server, address(9), ID).await;

    assert_served(&server).await;

    // One for each connection of the phone; the second makes room for itself in part.
    for raw in &mut idle[..1] {
        raw.assert_ended().await;
    }
    assert!(server.refused("connections").await >= 1);
    assert_eq!(finish_upload(working).await.status, 201);
}

#[tokio::test]
async fn bodies_without_credentials_hold_no_connection_slot() {
    let server = server(json!({ "connections": 4 })).await;
    let mut strangers = Vec::new();
    for number in 1..=4 {
        let mut raw = raw_from(&server, address(number)).await;
        raw.write("PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nx")
            .await;
        strangers.push(raw);
    }

    assert_served(&server).await;

    strangers[0].assert_ended().await;
    // A request without credentials is answered once its body has come: no client was evicted by
    // mistake.
    let mut last = raw_from(&server, address(9)).await;
    last.write("PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nxx")
        .await;
    assert_eq!(last.answer().await.status, 401);
}

#[tokio::test]
async fn where_all_are_at_work_the_next_one_waits_for_a_slot() {
    let server = server(json!({ "connections": 3 })).await;
    let mut working = Vec::new();
    for number in 1..=3 {
        working.push(upload_under_way(&server, address(number), &id(number)).await);
    }

    let order = Mutex::new(Vec::new());
    let last = working.pop().unwrap();
    let next = async {
        assert_served(&server).await;
        order.lock().unwrap().push("served");
    };
    let finish = async {
        // The one that waits is in the kernel's queue, or in the listener's hand.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        order.lock().unwrap().push("finished");
        assert_eq!(finish_upload(last).await.status, 201);
    };
    tokio::join!(next, finish);

    assert_eq!(*order.lock().unwrap(), ["finished", "served"]);
    for raw in working {
        assert_eq!(finish_upload(raw).await.status, 201);
    }
}

#[tokio::test]
async fn an_address_at_its_connection_limit_takes_no_slot_from_others() {
    let server = server(json!({ "connectionsPerAddress": 3 })).await;
    let office = address(1);
    let mut working = Vec::new();
    for number in 1..=3 {
        working.push(upload_under_way(&server, office, &id(number)).await);
    }

    for _ in 0..5 {
        let socket = TcpSocket::new_v4().unwrap();
        let more = Raw::connect_from(office, socket, &server, b"http/1.1").await;
        assert!(more.is_err());
    }
    refused(&server, "connections_per_address", 5).await;
    assert_served(&server).await;
    let mut idle = raw_from(&server, address(2)).await;
    for raw in working {
        assert_eq!(finish_upload(raw).await.status, 201);
    }
    // Now those are idle, and the one that has been idle for longest is evicted.
    let mut after = raw_from(&server, office).await;
    let authorization = server.phones();
    let get = format!(
        "GET /config HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n"
    );
    for raw in [&mut after, &mut idle] {
        raw.write(&get).await;
        assert_eq!(raw.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let server = server(json!({ "handshakeSeconds": 1 })).await;
    let mut slow = Vec::new();
    // Nothing, a byte, the head of a record, half a ClientHello.
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 200]].concat();
    for length in [0, 1, 5, hello.len()] {
        let mut stream = server.tcp().await;
        stream.write_all(&hello[..length]).await.unwrap();
        slow.push(stream);
    }

    assert_served(&server).await;

    for stream in &mut slow {
        let mut rest = Vec::new();
        drop(soon(stream.read_to_end(&mut rest)).await);
        assert!(rest.is_empty());
    }
    refused(&server, "handshake", 4).await;
}

#[tokio::test]
async fn a_header_has_a_deadline() {
    let server = server(json!({ "headerSeconds": 2 })).await;
    let mut slow = Vec::new();
    for start in ["", "G", "GET /config HTTP/1.1\r\nHost: local"] {
        let mut raw = http1(&server).await;
        raw.write(start).await;
        slow.push(raw);
    }
    let mut silent = Peer::connect(&server, &[]).await;
    let mut half = Peer::connect(&server, &[]).await;
    let header = block(&request("GET", "/config"));
    half.write(frame(HEADERS, 0, 1, &header[..10])).await;

    assert_served(&server).await;

    for raw in &mut slow {
        raw.assert_ended().await;
    }
    for peer in [&mut silent, &mut half] {
        assert!(peer.ended().await.is_empty());
    }
    refused(&server, "header", 5).await;
}

#[tokio::test]
async fn a_header_has_a_limit_of_bytes() {
    let server = server(json!({ "headerBytes": 8_192, "headerFields": 50 })).await;
    let authorization = server.phones();
    let mut phone = server.phone(Protocol::Http2).await;
    for (length, expected) in [(7_000, 200), (8_200, 431), (30_000, 431)] {
        let long = "x".repeat(length);
        let mut raw = http1(&server).await;
        let head = format!(
            "GET /config HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n"
        );
        // The server may be through with it before it has all.
        drop(raw.try_write(format!("{head}X: {long}\r\n\r\n")).await);
        if let Some(answer) = raw.answer_before_end().await {
            assert_eq!(answer.status, expected);
        } else {
            assert_eq!(expected, 431);
        }
        if expected == 431 {
            raw.rest().await;
        }
        // hyper's client does not send what the server says that it does not take.
        let mut peer = Peer::connect(&server, &[]).await;
        let mut fields = request("GET", "/config");
        fields.extend([("authorization", &*authorization), ("x", &long)]);
        let header = block(&fields);
        let pieces: Vec<_> = header.chunks(16_384).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let kind = if number == 0 { HEADERS } else { CONTINUATION };
            let last = number + 1 == pieces.len();
            let flags = u8::from(number == 0) | if last { END_HEADERS } else { 0 };
            peer.write(frame(kind, flags, 1, piece)).await;
        }
        assert_eq!(peer.outcome().await, Outcome::Status(expected), "{length}");
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    }
    refused(&server, "header", 2).await;
}

#[tokio::test]
async fn a_header_has_a_limit_of_lines() {
    let server = server(json!({ "headerFields": 50 })).await;
    for (protocol, others) in [(Protocol::Http1, 2), (Protocol::Http2, 1)] {
        for (more, expected) in [(50 - others, 200), (51 - others, 431), (200, 431)] {
            // `content-length` of the client's own among them.
            let mut phone = server.phone(protocol).await;
            let lines = vec![("a", "b"); more];
            let answer = phone.ask("GET", "/config", &lines).await;
            assert_eq!(answer.status, expected, "{protocol:?} {more}");
            assert_served(&server).await;
        }
    }
    refused(&server, "header", 4).await;
}

#[tokio::test]
async fn a_body_has_a_deadline_and_the_old_backup_stays() {
    let server = server(json!({ "bodySeconds": 1 })).await;
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(
        phone
            .send("PUT", &backup_path(), &[], "the old one")
            .await
            .status,
        201
    );
    let mut known = upload_under_way(&server, address(1), ID).await;
    let mut peer = Peer::connect(&server, &[]).await;
    let start = [peer.put(1, &backup_path(), 10), frame(0, 0, 1, b"half")];
    peer.write(start.concat()).await;
    let mut stranger = raw_from(&server, address(2)).await;
    stranger
        .write("PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        .await;

    assert_served(&server).await;

    assert_eq!(known.answer().await.status, 408);
    known.assert_ended().await;
    assert_eq!(peer.outcome().await, Outcome::Status(408));
    // A stranger is told what was wrong first, if anything.
    let told = stranger.answer_before_end().await;
    assert!(told.is_none_or(|answer| answer.status == 401));
    stranger.rest().await;
    refused(&server, "body", 2).await;
    assert_eq!(
        phone.ask("GET", &backup_path(), &[]).await.text(),
        "the old one"
    );
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_given_up() {
    let server = server(json!({ "graceSeconds": 1, "bytesPerSecond": 1_000_000 })).await;
    let mut half = upload_under_way(&server, address(1), ID).await;

    assert_served(&server).await;

    assert_eq!(half.answer().await.status, 408);
    half.assert_ended().await;
    refused(&server, "body", 1).await;
}

#[tokio::test]
async fn memory_for_uploads_is_counted_in_bytes() {
    let limits = json!({
        "maxBackupBytes": 4_096, "limits": { "uploadMemoryBytes": 4_096, "bodySeconds": 3_600 },
    });
    let server = TestServer::start_with(limits).await;
    // Together one byte more than there is.
    let small = upload_under_way(&server, address(1), ID).await;
    let large = vec![7; 4_096 - 9];
    let mut waiting = server.phone(Protocol::Http2).await;
    let path = format!("/backups/{}", id(1));
    let mut waits = std::pin::pin!(waiting.send("PUT", &path, &[], large));
    assert!((&mut waits).now_or_never().is_none());

    // Requests that need no memory are served, and so are uploads for which enough is free.
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    assert_eq!(phone.ask("GET", &backup_path(), &[]).await.status, 404);
    assert!((&mut waits).now_or_never().is_none());

    assert_eq!(finish_upload(small).await.status, 201);
    assert_eq!(waits.await.status, 201);
    assert_served(&server).await;
}

#[tokio::test]
async fn requests_in_flight_are_limited_and_one_that_waits_too_long_is_told_when_to_retry() {
    let store = FaultyStore::over(MemoryStore::default());
    let limits = json!({ "limits": { "requests": 2 } });
    let site = Site::new()
        .with(json!({ "limits": patient() }))
        .with(limits);
    let server = site.start_over(store.clone()).await;
    server.settled().await;
    let gate = store.hold_one(1, Side::Before, Operation::Put);

    let put = |number: u8| {
        let server = &server;
        async move {
            let mut phone = server.phone(Protocol::Http1).await;
            let path = format!("/backups/{}", id(number));
            phone.send("PUT", &path, &[], "a backup").await
        }
    };
    let served = async {
        gate.is_reached_by(1).await;
        // There is a free slot beside it.
        assert_served(&server).await;
        let gates = store.hold(Side::Before, Operation::Put);
        let refused = async {
            gates.is_reached_by(1).await;
            let mut phone = server.phone(Protocol::Http1).await;
            let path = backup_path();
            let mut third = std::pin::pin!(phone.ask("GET", &path, &[]));
            // As soon as it waits, its ten seconds pass.
            for _ in 0..1_000 {
                assert!((&mut third).now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(11)).await;
            tokio::time::resume();
            let refused = third.await;
            refused.assert_refused(503);
            assert_eq!(refused.header("retry-after"), Some("30"));
            // What needs no work is answered.
            let mut phone = server.phone(Protocol::Http2).await;
            assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
            gate.open();
            gates.open();
        };
        let (second, ()) = tokio::join!(put(2), refused);
        assert_eq!(second.status, 201);
    };
    let (first, ()) = tokio::join!(put(1), served);

    assert_eq!(first.status, 201);
    assert_served(&server).await;
    refused(&server, "overload", 1).await;
}

#[tokio::test]
async fn an_upload_that_is_given_up_is_at_work_until_the_store_is_through_with_it() {
    let server = server(json!({ "requests": 1 })).await;
    let mut phone = server.phone(Protocol::Http1).await;
    let put = phone.send("PUT", &backup_path(), &[], "the old one").await;
    assert_eq!(put.status, 201);
    let file = server.site().backup_file(ID);
    let lock = std::fs::File::open(&file).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut peer = Peer::connect(&server, &[]).await;
    let upload = [peer.put(1, &backup_path(), 7), frame(0, 1, 1, b"the new")];
    peer.write(upload.concat()).await;
    lock_is_waited_for(&file).await;
    peer.write(reset(1)).await;
    // The pong comes behind the reset.
    peer.write(frame(PING, 0, 0, &[7; 8])).await;
    while peer.next().await.unwrap().payload != [7; 8] {}

    let order = Mutex::new(Vec::new());
    let next = async {
        let got = phone.ask("GET", &backup_path(), &[]).await;
        order.lock().unwrap().push("got");
        got
    };
    let unlock = async {
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        order.lock().unwrap().push("unlocked");
        drop(lock);
    };
    let (got, ()) = tokio::join!(next, unlock);

    assert_eq!(*order.lock().unwrap(), ["unlocked", "got"]);
    assert_eq!(got.text(), "the new");
}

#[tokio::test]
async fn a_connection_of_http_2_has_a_limit_of_streams() {
    let server = server(json!({ "streams": 2 })).await;
    let mut peer = Peer::connect(&server, &[]).await;
    let first = peer.next().await.unwrap();
    assert_eq!(first.kind, SETTINGS);
    let announced = [
        &MAX_CONCURRENT_STREAMS.to_be_bytes()[..],
        &2_u32.to_be_bytes(),
    ]
    .concat();
    assert!(first.payload.chunks(6).any(|setting| setting == announced));

    for stream in [1, 3, 5] {
        peer.write(peer.put(stream, &format!("/backups/{stream:064}"), 4))
            .await;
    }
    assert_eq!(peer.outcome().await, Outcome::Reset(REFUSED_STREAM));
    assert_served(&server).await;

    for stream in [1, 3] {
        peer.write(frame(0, 1, stream, b"both")).await;
        assert_eq!(peer.outcome().await, Outcome::Status(201));
    }
}

#[tokio::test]
async fn a_client_that_cancels_too_many_requests_is_disconnected() {
    let store = FaultyStore::over(MemoryStore::default());
    let limits = json!({ "limits": { "resets": 3 } });
    let site = Site::new()
        .with(json!({ "limits": patient() }))
        .with(limits);
    let server = site.start_over(store.clone()).await;
    server.settled().await;
    let gate = store.hold(Side::Before, Operation::Get);
    let mut peer = Peer::connect(&server, &[]).await;
    let path = format!("/backups/{ID}");

    for stream in [1, 3, 5, 7] {
        assert_eq!(server.refused("resets").await, 0);
        assert!(peer.raw.is_open());
        peer.write(peer.get(stream, &path)).await;
        gate.is_reached_by(1).await;
        peer.write(reset(stream)).await;
        gate.is_left().await;
    }

    assert!(peer.ended().await.is_empty());
    gate.open();
    assert_served(&server).await;
    refused(&server, "resets", 1).await;
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_given_up() {
    // More than the kernel keeps of it.
    let large = 24 << 20;
    let limits = json!({
        "maxBackupBytes": large,
        "limits": {
            "uploadMemoryBytes": large, "handshakeSeconds": 3600, "headerSeconds": 3600, "bodySeconds": 3600,
            "graceSeconds": 1, "bytesPerSecond": 1_000_000,
        },
    });
    let site = Site::new().with(limits);
    site.place_backup(ID, &vec![7; large], crate::support::now());
    let server = site.start().await;
    server.settled().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let raw = Raw::connect_from(address(1), socket, &server, b"http/1.1").await;
    let mut raw = raw.unwrap();
    let authorization = server.phones();
    let path = backup_path();
    raw.write(format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n"
    ))
    .await;
    let mut closed = Peer::connect(&server, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    closed.write(closed.get(1, &path)).await;

    assert_served(&server).await;

    refused(&server, "response", 2).await;
    assert!(raw.rest().await.len() < large);
    assert_eq!(closed.ended().await, [200]);
}

#[tokio::test]
async fn what_is_no_request_does_not_come_without_end() {
    let server = server(json!({})).await;
    let mut peer = Peer::connect(&server, &[]).await;
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(1_000);

    let served = assert_served(&server);
    let (ended, ()) = tokio::join!(peer.raw.flood(&pings, 1_000), served);

    assert!(ended);
    refused(&server, "unsolicited_bytes", 1).await;
}

#[tokio::test]
async fn an_office_of_500_phones_behind_one_address_is_served_by_default() {
    crate::store::failing::allow_descriptors(4_000);
    let server = TestServer::start().await;
    let phones = (0..500_u32).map(|number| {
        let server = &server;
        async move {
            let protocol = Protocol::BOTH[number as usize % 2];
            let mut phone = server.phone(protocol).await;
            let path = format!("/backups/{number:064x}");
            let put = phone.send("PUT", &path, &[], "a backup").await;
            (phone, put.status)
        }
    });
    let all = join_all(phones).await;
    assert!(all.iter().all(|(_, status)| *status == 201));
    for limit in ["connections", "connections_per_address", "overload"] {
        assert_eq!(server.refused(limit).await, 0, "{limit}");
    }
}

#[tokio::test]
async fn silent_uploads_hold_at_most_half_of_the_memory() {
    let limits = json!({ "maxBackupBytes": 100_000, "limits": { "uploadMemoryBytes": 400_000 } });
    let server = TestServer::start_with(limits).await;
    let mut silent = Vec::new();
    for number in 0..8 {
        let mut raw = server.raw().await;
        let head = format!(
            "PUT /backups/{number:064x} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Length: 100000\r\n\r\n",
            server.phones()
        );
        raw.write(head.as_bytes()).await;
        silent.push(raw);
    }
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2);
    let mut phone =
        Client::connect_from(elsewhere, &server, Protocol::Http1, Some(server.phones())).await;

    let put = phone
        .send("PUT", &backup_path(), &[], vec![7; 100_000])
        .await;

    assert_eq!(put.status, 201);
}
