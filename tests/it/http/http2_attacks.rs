//! Attacks on HTTP/2, frame by frame: each costs the attacker the connection or has no effect,
//! while a phone is served. Nothing is stored, removed or answered with success that should not be.
//!
//! Over 500 lines: one test for each attack, which share the frames.

use serde_json::json;

use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS,
    INITIAL_WINDOW_SIZE, Outcome, PADDED, PING, PREFACE, PRIORITY, PUSH_PROMISE, Peer, RST_STREAM,
    SETTINGS, block, frame, integer, request, reset, settings, window_update,
};
use crate::support::wire::{Protocol, Raw};
use crate::support::{ID, OTHER_ID, Site, TestServer, backup_path, contents, now};

const OLD: &str = "the old backup";

/// A server with a backup, and nothing that ends because of its time.
async fn server() -> TestServer {
    let site = Site::new().with(json!({ "limits": {
        "handshakeSeconds": 3600, "headerSeconds": 3600, "bodySeconds": 3600, "graceSeconds": 3600,
    } }));
    site.place_backup(ID, OLD.as_bytes(), now());
    let server = site.start().await;
    server.settled().await;
    server
}

/// Makes sure that a phone that comes now gets everything it wants, on both protocols, and that the
/// backup is the old one.
async fn assert_served(server: &TestServer) {
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
        let path = format!("/backups/{OTHER_ID}");
        let put = phone.send("PUT", &path, &[], "a phone's").await;
        assert!([201, 204].contains(&put.status), "{put:?}");
        assert_eq!(phone.ask("GET", &path, &[]).await.text(), "a phone's");
        assert_eq!(phone.ask("DELETE", &path, &[]).await.status, 204);
        assert_eq!(phone.ask("GET", &backup_path(), &[]).await.text(), OLD);
    }
}

/// Floods a server while a phone is served; whether that cost the connection.
async fn flood(server: &TestServer, peer: &mut Peer, bytes: &[u8], times: usize) -> bool {
    let phone = assert_served(server);
    let (ended, ()) = tokio::join!(peer.raw.flood(bytes, times), phone);
    assert_served(server).await;
    ended
}

#[tokio::test]
async fn rapid_resets_cost_the_connection() {
    let server = server().await;
    let path = backup_path();
    for in_one_piece in [true, false] {
        for with_body in [true, false] {
            let mut peer = Peer::connect(&server, &[]).await;
            let mut all = Vec::new();
            for stream in (1..2_001).step_by(2) {
                let header = if with_body {
                    peer.put(stream, &path, 10)
                } else {
                    peer.get(stream, &path)
                };
                let both = [header, reset(stream)].concat();
                if in_one_piece {
                    all.extend(both);
                } else if peer.raw.try_write(both).await.is_err() {
                    break;
                }
            }
            if in_one_piece {
                drop(peer.raw.try_write(all).await);
                assert_eq!(peer.outcome().await, Outcome::GoAway(ENHANCE_YOUR_CALM));
            } else {
                // Slowly enough, each is a request that was given up, or was answered before.
                assert_served(&server).await;
                continue;
            }
            let statuses = peer.ended().await;
            assert!(
                statuses.iter().all(|status| [200, 400].contains(status)),
                "{statuses:?}"
            );
            assert_served(&server).await;
        }
    }
}

#[tokio::test]
async fn headers_that_never_end_cost_the_connection() {
    let server = server().await;
    let fields = block(&[("a", "b")]);
    for piece in [&[][..], &fields, &fields.repeat(2_000)] {
        let mut peer = Peer::connect(&server, &[]).await;
        let header = block(&request("DELETE", &backup_path()));
        peer.write(frame(HEADERS, END_STREAM, 1, &header)).await;

        assert!(flood(&server, &mut peer, &frame(CONTINUATION, 0, 1, piece), 5_000).await);
    }
}

#[tokio::test]
async fn floods_of_settings_and_pings_cost_the_connection() {
    let server = server().await;
    let one = (INITIAL_WINDOW_SIZE, 65_535);
    for frames in [
        settings(&[]),
        settings(&[one]),
        settings(&[one; 1_000]),
        frame(PING, 0, 0, &[0; 8]),
        frame(PING, ACK, 0, &[0; 8]),
        frame(0xfe, 0, 0, &[0; 100]),
        window_update(0, 1),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 15]),
    ] {
        let mut peer = Peer::connect(&server, &[]).await;
        let times = 16_384 / frames.len() + 1;
        assert!(
            flood(&server, &mut peer, &frames.repeat(times), 1_000).await,
            "{frames:?}"
        );
    }
    assert_eq!(server.refused("unsolicited_bytes").await, 8);
}

#[tokio::test]
async fn a_request_under_way_is_no_licence_for_floods() {
    let site = Site::new().with(json!({ "limits": { "streams": 2, "bodySeconds": 3600 } }));
    site.place_backup(ID, OLD.as_bytes(), now());
    let server = site.start().await;
    server.settled().await;
    let mut peer = Peer::connect(&server, &[]).await;
    peer.write(peer.put(1, &backup_path(), 100)).await;

    let pings = frame(PING, 0, 0, &[0; 8]).repeat(1_000);
    assert!(flood(&server, &mut peer, &pings, 1_000).await);

    assert_eq!(server.refused("unsolicited_bytes").await, 1);
}

#[tokio::test]
async fn a_header_that_grows_when_it_is_read_is_not_read() {
    let server = server().await;
    // A field that fills the table, then references to it: each byte is four thousand.
    let value = "x".repeat(4_000);
    let mut fields = request("GET", "/config");
    let authorization = server.phones();
    fields.push(("authorization", &authorization));
    let mut bomb = block(&fields);
    bomb.push(0x40);
    bomb.extend(integer(7, 1));
    bomb.push(b'a');
    bomb.extend(integer(7, value.len()));
    bomb.extend(value.bytes());
    let room = 16_384 - bomb.len();
    bomb.extend(vec![0x80 | 62; room]);
    for stream in [1, 3, 5] {
        let mut peer = Peer::connect(&server, &[]).await;
        peer.write(frame(HEADERS, END_STREAM | END_HEADERS, stream, &bomb))
            .await;
        let outcome = peer.outcome().await;
        let refused = matches!(
            outcome,
            Outcome::Status(431) | Outcome::GoAway(_) | Outcome::Reset(_)
        );
        assert!(refused, "{outcome:?}");
        assert_served(&server).await;
    }
    // A thousand of them would be a gigabyte and a half, decompressed.
    let mut peer = Peer::connect(&server, &[]).await;
    let mut all = Vec::new();
    for stream in (1..201).step_by(2) {
        all.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &bomb));
    }
    flood(&server, &mut peer, &all, 1).await;
    // Of a table that is larger than it may be.
    let mut peer = Peer::connect(&server, &[]).await;
    let mut huge = vec![0x20];
    huge.extend(integer(5, 1 << 30));
    huge[1] |= 0x20;
    let huge = [&huge[1..], &block(&request("GET", "/config"))].concat();
    peer.write(frame(HEADERS, END_STREAM | END_HEADERS, 1, &huge))
        .await;
    assert!(matches!(peer.outcome().await, Outcome::GoAway(_)));
    assert_served(&server).await;
}

#[tokio::test]
async fn windows_are_no_way_to_hold_answers() {
    // What is left of a small answer is seen when the connection is idle.
    let limits = json!({ "limits": {
        "graceSeconds": 1, "bytesPerSecond": 1_000_000, "headerSeconds": 2,
    } });
    let site = Site::new().with(limits);
    site.place_backup(ID, OLD.as_bytes(), now());
    let server = site.start().await;
    server.settled().await;
    let path = backup_path();
    // No window at all; one byte of it; both while other requests are answered.
    let mut none = Peer::connect(&server, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let mut tiny = Peer::connect(&server, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    none.write(none.get(1, &path)).await;
    tiny.write([tiny.get(1, &path), window_update(1, 1)].concat())
        .await;
    let mut busy = Peer::connect(&server, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    busy.write(busy.get(1, &path)).await;
    busy.write(busy.put(3, &path, 100)).await;

    assert_served(&server).await;

    for peer in [&mut none, &mut tiny, &mut busy] {
        let statuses = peer.ended().await;
        assert!(
            statuses.iter().all(|status| [200, 408].contains(status)),
            "{statuses:?}"
        );
    }
    assert_served(&server).await;
}

#[tokio::test]
async fn a_window_that_opens_byte_by_byte_is_a_slow_one() {
    let limits = json!({ "limits": { "graceSeconds": 1, "bytesPerSecond": 1_000_000 } });
    let site = Site::new().with(limits);
    site.place_backup(ID, &[7; 400_000], now());
    let server = site.start().await;
    server.settled().await;
    let mut peer = Peer::connect(&server, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    peer.write(peer.get(1, &backup_path())).await;
    assert_eq!(peer.outcome().await, Outcome::Status(200));

    // Each byte is asked for when the one before has come.
    let mut received = 0;
    while peer.raw.try_write(window_update(1, 1)).await.is_ok() {
        match peer.next().await {
            Some(frame) if frame.kind == DATA => received += frame.payload.len(),
            Some(frame) => assert!([GOAWAY, PING, SETTINGS].contains(&frame.kind), "{frame:?}"),
            None => break,
        }
    }

    assert!(received < 400_000, "{received}");
    assert_eq!(server.refused("response").await, 1);
}

#[tokio::test]
async fn empty_and_padded_data_comes_to_nothing() {
    let server = server().await;
    let path = backup_path();
    // Empty frames without end.
    let mut peer = Peer::connect(&server, &[]).await;
    peer.write(peer.put(1, &path, 10)).await;
    assert!(
        flood(
            &server,
            &mut peer,
            &frame(DATA, 0, 1, &[]).repeat(100),
            1_000
        )
        .await
    );
    // Padding and nothing else: flow control counts it as data, so the client is slow.
    let mut peer = Peer::connect(&server, &[]).await;
    peer.write(peer.put(1, &path, 10)).await;
    let padded = frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat());
    assert!(flood(&server, &mut peer, &padded.repeat(100), 10_000).await);
    // A backup of which each byte has its padding is one all the same.
    let mut peer = Peer::connect(&server, &[]).await;
    let put = peer.put(1, &format!("/backups/{OTHER_ID}"), 100);
    peer.write(put).await;
    for number in 1..=100_u8 {
        let payload = [&[100, number][..], &[0; 100]].concat();
        let last = if number == 100 { END_STREAM } else { 0 };
        peer.write(frame(DATA, PADDED | last, 1, &payload)).await;
    }
    assert_eq!(peer.outcome().await, Outcome::Status(201));
    let stored = std::fs::read(server.site().backup_file(OTHER_ID)).unwrap();
    assert_eq!(stored, (1..=100).collect::<Vec<u8>>());
}

/// What is against the protocol, and comes after the connection's first frames.
fn against_the_protocol(peer: &Peer) -> Vec<(&'static str, Vec<u8>)> {
    let path = &*backup_path();
    // Without credentials, each of them would get 401.
    let authorization = [("authorization", &*peer.authorization)];
    let header = |fields: &[(&str, &str)]| {
        let fields = [fields, &authorization].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields))
    };
    let delete = || request("DELETE", path);
    let whole_delete = [&delete()[..], &authorization].concat();
    let with = |more: &[(&'static str, &'static str)]| header(&[&delete(), more].concat());
    let put = |length| peer.put(1, path, length);
    let whole = |bytes: &[u8]| frame(DATA, END_STREAM, 1, bytes);
    let mut long = frame(DATA, 0, 1, &[0; 16_385]);
    long[0] = 0;
    vec![
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        ("DATA on a stream that is none", frame(DATA, 0, 7, b"x")),
        (
            "HEADERS on stream 0",
            frame(HEADERS, 5, 0, &block(&whole_delete)),
        ),
        (
            "HEADERS on an even stream",
            frame(HEADERS, 5, 2, &block(&whole_delete)),
        ),
        ("RST_STREAM on stream 0", reset(0)),
        ("RST_STREAM on a stream that is none", reset(9)),
        ("a short RST_STREAM", frame(RST_STREAM, 0, 1, &[0; 3])),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
        ("half a setting", frame(SETTINGS, 0, 0, &[0; 5])),
        (
            "an acknowledgement of settings with settings",
            frame(SETTINGS, ACK, 0, &[0; 6]),
        ),
        (
            "a window beyond all",
            settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]),
        ),
        ("frames that are too small", settings(&[(5, 100)])),
        ("a setting that is neither 0 nor 1", settings(&[(2, 2)])),
        ("a short PING", frame(PING, 0, 0, &[0; 7])),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8])),
        ("a short GOAWAY", frame(GOAWAY, 0, 0, &[0; 7])),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        ("a short WINDOW_UPDATE", frame(8, 0, 0, &[0; 3])),
        ("a window that does not grow", window_update(0, 0)),
        (
            "a window that grows beyond all",
            window_update(0, (1 << 31) - 1).repeat(2),
        ),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])),
        (
            "CONTINUATION of nothing",
            frame(CONTINUATION, 4, 1, &block(&whole_delete)),
        ),
        ("a frame that is too long", frame(DATA, 0, 1, &[0; 16_385])),
        (
            "PING in the middle of a header",
            [
                frame(HEADERS, 1, 1, &block(&whole_delete)[..9]),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat(),
        ),
        (
            "a header that goes on on another stream",
            [
                frame(HEADERS, 1, 1, &block(&whole_delete)),
                frame(CONTINUATION, 4, 3, &[]),
            ]
            .concat(),
        ),
        (
            "more padding than there is",
            frame(HEADERS, PADDED | 5, 1, &[200, 0x82]),
        ),
        (
            "a stream that depends on itself",
            frame(HEADERS, 0x20 | 5, 1, &[0, 0, 0, 1, 0]),
        ),
        (
            "a field of the table that is none",
            frame(HEADERS, 5, 1, &[0xff, 0xff, 0x7f]),
        ),
        ("a number without end", frame(HEADERS, 5, 1, &[0xff; 30])),
        (
            "a text that is longer than the header",
            frame(HEADERS, 5, 1, &[0, 1, b'a', 0x7f]),
        ),
        (
            "a text that is no Huffman code",
            frame(HEADERS, 5, 1, &[0, 1, b'a', 0x84, 255, 255, 255, 255]),
        ),
        ("no :method", header(&delete()[1..])),
        ("no :path", header(&[delete()[0], delete()[1], delete()[3]])),
        (
            "an empty :path",
            header(&[delete()[0], delete()[1], (":path", ""), delete()[3]]),
        ),
        ("two :path", with(&[(":path", "/config")])),
        ("two :method", with(&[(":method", "GET")])),
        (
            "no :scheme",
            header(&[delete()[0], delete()[2], delete()[3]]),
        ),
        ("no authority", header(&delete()[..3])),
        (
            "another Host than the authority",
            with(&[("host", "example.org")]),
        ),
        (
            "two Host",
            with(&[("host", "localhost"), ("host", "localhost")]),
        ),
        ("a pseudo-header that is none", with(&[(":safe", "x")])),
        ("a pseudo-header of answers", with(&[(":status", "200")])),
        (
            "a pseudo-header behind a field",
            header(&[&[("a", "b")][..], &delete()].concat()),
        ),
        ("a name with a capital letter", with(&[("Depth", "0")])),
        ("a name with a space", with(&[("a b", "0")])),
        ("a name with a colon", with(&[("a:b", "0")])),
        ("an empty name", with(&[("", "0")])),
        ("a value with LF", with(&[("a", "b\nc: d")])),
        ("a value with CR", with(&[("a", "b\rc: d")])),
        ("a value with NUL", with(&[("a", "b\0")])),
        ("Connection", with(&[("connection", "close")])),
        ("Keep-Alive", with(&[("keep-alive", "1")])),
        (
            "Transfer-Encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("Upgrade", with(&[("upgrade", "h2c")])),
        ("TE that is not trailers", with(&[("te", "gzip")])),
        ("a length without a body", with(&[("content-length", "3")])),
        (
            "two lengths",
            with(&[("content-length", "0"), ("content-length", "0")]),
        ),
        (
            "a length that is no number",
            with(&[("content-length", "+0")]),
        ),
        (
            "CONNECT",
            header(&[(":method", "CONNECT"), (":authority", "localhost:80")]),
        ),
        (
            "an absolute :path",
            header(&request("DELETE", &format!("https://localhost{path}"))),
        ),
        (
            "a :path without a slash",
            header(&request("DELETE", path.trim_start_matches('/'))),
        ),
        ("a method that is none", header(&request("DE LETE", path))),
        ("less than the length says", [put(10), whole(b"x")].concat()),
        (
            "more than the length says",
            [put(1), whole(b"more")].concat(),
        ),
        (
            "nothing of what the length says",
            [put(1), whole(b"")].concat(),
        ),
        (
            "data behind the end",
            [put(1), whole(b"x"), whole(b"y"), reset(1)].concat()[..].into(),
        ),
        (
            "fields behind a body that are no end",
            [
                put(10),
                frame(HEADERS, END_HEADERS, 1, &block(&[("a", "b")])),
            ]
            .concat(),
        ),
        (
            "a pseudo-header behind a body",
            [put(10), frame(HEADERS, 5, 1, &block(&[(":path", "/")]))].concat(),
        ),
    ]
}

#[tokio::test]
async fn what_is_against_the_protocol_is_refused_and_changes_nothing() {
    let server = server().await;
    let before = contents(&server.site().data());
    let mut phone = server.phone(Protocol::Http2).await;
    let names: Vec<_> = {
        let peer = Peer::connect(&server, &[]).await;
        let cases = against_the_protocol(&peer);
        cases.iter().map(|(name, _)| *name).collect()
    };
    let mut wrong = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let mut peer = Peer::connect(&server, &[]).await;
        let bytes = against_the_protocol(&peer).swap_remove(number).1;
        drop(peer.raw.try_write(bytes).await);
        let outcome = peer.outcome().await;
        let refused = match outcome {
            Outcome::Status(status) => (400..500).contains(&status),
            Outcome::Reset(_) | Outcome::GoAway(_) | Outcome::Ended => true,
        };
        if !refused {
            wrong.push(format!("{name}: {outcome:?}"));
        }
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200, "{name}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(before == contents(&server.site().data()));
    assert_served(&server).await;
}

#[tokio::test]
async fn what_does_not_begin_as_http_2_is_not_answered() {
    // Of some only the header's deadline knows that nothing more comes.
    let server = TestServer::start_with(json!({ "limits": { "headerSeconds": 2 } })).await;
    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(
        phone.send("PUT", &backup_path(), &[], OLD).await.status,
        201
    );
    let get = b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let settings_first = |first: Vec<u8>| [PREFACE, &first].concat();
    for start in [
        get.clone(),
        PREFACE.to_ascii_lowercase(),
        [&PREFACE[..20], &get].concat(),
        settings_first(frame(PING, 0, 0, &[0; 8])),
        settings_first(frame(DATA, 0, 1, b"x")),
        settings_first(vec![255; 100]),
    ] {
        let mut raw = Raw::connect(&server, &[b"h2"], rustls::ALL_VERSIONS)
            .await
            .unwrap();
        drop(raw.try_write(start).await);
        let rest = raw.rest().await;
        // Its own settings may come first, and why it goes; no answer.
        assert!(!rest.starts_with(b"HTTP/1"));
        let mut kinds = Vec::new();
        let mut rest = &rest[..];
        while let [_, high, low, kind, ..] = *rest {
            kinds.push(kind);
            rest = &rest[9 + usize::from(u16::from_be_bytes([high, low]))..];
        }
        assert!(
            !kinds.iter().any(|kind| [HEADERS, DATA].contains(kind)),
            "{kinds:?}"
        );
        assert_served(&server).await;
    }
}
