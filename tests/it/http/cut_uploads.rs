//! Cut uploads: at every point, in every way, of a new backup and of one that exists.
//!
//! The old backup is served unharmed, nothing is left on disk, no descriptor is held, and the
//! memory of the upload is given back.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::process::ServerProcess;
use crate::support::wire::{Client, Protocol, Raw, soon, unfinished};
use crate::support::{ID, Listening, OTHER_ID, Site, backup_path, names, now};

/// An upload. It fits into the window of an HTTP/2 stream, so that neither side waits for more
/// room.
static BACKUP: [u8; 40_000] = [b'n'; 40_000];
const OLD: &str = "the old backup";

/// How many bytes of the body are there before the cut.
const PLACES: [usize; 4] = [0, 1, BACKUP.len() / 2, BACKUP.len() - 1];

/// How an upload is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// FIN in the middle of the TLS stream.
    Fin,
    /// RST.
    Rst,
    /// The end of the TLS stream, then FIN.
    CloseNotify,
    /// `RST_STREAM`: the request alone is over.
    Reset(Reason),
    /// The body ends before the length that was announced.
    EndStream,
    /// `GOAWAY`, then FIN.
    GoAway,
}

/// Why a stream is reset (RFC 9113 §7).
#[derive(Debug, Clone, Copy)]
enum Reason {
    NoError = 0,
    InternalError = 2,
    Cancel = 8,
}

const CUTS_OF_CONNECTIONS: [Cut; 3] = [Cut::Fin, Cut::Rst, Cut::CloseNotify];
const CUTS_OF_STREAMS: [Cut; 5] = [
    Cut::Reset(Reason::NoError),
    Cut::Reset(Reason::InternalError),
    Cut::Reset(Reason::Cancel),
    Cut::EndStream,
    Cut::GoAway,
];

/// A server that has memory for one upload of full size, and none beside it.
fn start() -> ServerProcess {
    ServerProcess::start(Site::new().with(json!({
        "maxBackupBytes": BACKUP.len(),
        "limits": { "uploadMemoryBytes": BACKUP.len() },
    })))
}

#[tokio::test]
async fn a_cut_upload_on_http_1_leaves_nothing_and_keeps_the_old_backup() {
    let mut server = start();
    let mut phone = server.phone(Protocol::Http1).await;
    for old in [None, Some(OLD)] {
        for place in PLACES {
            for cut in CUTS_OF_CONNECTIONS {
                prepare(&server, old);
                let mut raw = server.raw(b"http/1.1").await;
                raw.write(format!(
                    "PUT {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Length: {}\r\n\
                     Expect: 100-continue\r\n\r\n",
                    backup_path(),
                    server.phones(),
                    BACKUP.len()
                ))
                .await;
                // Only a server that reads the body asks for it.
                assert_eq!(raw.answer().await.status, 100);
                raw.write(&BACKUP[..place]).await;
                server.has_read_all(raw.local_address()).await;

                let rest = cut_connection(raw, cut).await;

                let case = format!("HTTP/1.1, {old:?}, {place} bytes, {cut:?}");
                assert_nothing_happened(&mut server, &mut phone, old, &case).await;
                drop(rest);
            }
        }
    }
    drop(phone);
    server.has_no_new_descriptors().await;
}

#[tokio::test]
async fn a_cut_upload_on_http_2_leaves_nothing_and_keeps_the_old_backup() {
    let mut server = start();
    let mut phone = server.phone(Protocol::Http1).await;
    for old in [None, Some(OLD)] {
        for place in PLACES {
            for cut in CUTS_OF_CONNECTIONS.into_iter().chain(CUTS_OF_STREAMS) {
                prepare(&server, old);
                let raw = begin_on_http_2(&server, place).await;

                let rest = cut_on_http_2(raw, cut).await;

                let case = format!("HTTP/2, {old:?}, {place} bytes, {cut:?}");
                assert_nothing_happened(&mut server, &mut phone, old, &case).await;
                drop(rest);
            }
        }
    }
    drop(phone);
    server.has_no_new_descriptors().await;
}

/// All bytes came, and the end of the stream did not: the old backup or the new one, whole.
#[tokio::test]
async fn an_upload_on_http_2_that_lacks_its_end_alone_is_stored_whole_or_not_at_all() {
    let mut server = start();
    for cut in CUTS_OF_CONNECTIONS.into_iter().chain(CUTS_OF_STREAMS) {
        prepare(&server, Some(OLD));
        let raw = begin_on_http_2(&server, BACKUP.len()).await;

        let rest = cut_on_http_2(raw, cut).await;

        server.log_through_request("PUT");
        // Once begun, the store's work runs to its end.
        let tmp = server.site().data().join("tmp");
        soon(async {
            while !names(&tmp).is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let stored = std::fs::read(server.site().backup_file(ID)).unwrap();
        assert!(stored == OLD.as_bytes() || stored == BACKUP, "{cut:?}");
        drop(rest);
        let mut phone = server.phone(Protocol::Http2).await;
        let largest = phone.send("PUT", &backup_path(), &[], &BACKUP[..]).await;
        assert_eq!(largest.status, 204, "{cut:?}");
        server.log_through_request("PUT");
    }
    server.has_no_new_descriptors().await;
}

/// One connection, one upload that is larger than it said: not a cut, but not the announced backup
/// either.
#[tokio::test]
async fn an_upload_on_http_2_that_is_longer_than_it_said_stores_nothing() {
    let mut server = start();
    let mut phone = server.phone(Protocol::Http1).await;
    for old in [None, Some(OLD)] {
        prepare(&server, old);
        let mut raw = server.raw(b"h2").await;
        let authorization = server.phones();
        raw.write([frames::PREFACE, &frames::settings()].concat())
            .await;
        raw.write(frames::upload(&authorization, 100)).await;

        raw.write(frames::data(&BACKUP[..101], frames::END)).await;

        let case = format!("{old:?}, too long");
        assert_nothing_happened(&mut server, &mut phone, old, &case).await;
    }
}

#[tokio::test]
async fn an_upload_that_stalls_is_given_up_and_keeps_the_old_backup() {
    // Each upload waits for the deadline, so all wait together.
    let count = PLACES.len() * 2;
    let site = Site::new().with(json!({
        "maxBackupBytes": BACKUP.len() * count,
        "limits": { "uploadMemoryBytes": 2 * BACKUP.len() * count, "bodySeconds": 1 },
    }));
    let server = ServerProcess::start(site);
    let id = |place: usize, old: bool| format!("{place:063}{}", u8::from(old));
    let cases = || {
        PLACES
            .into_iter()
            .flat_map(|place| [(place, false), (place, true)])
    };
    for (place, old) in cases().filter(|(_, old)| *old) {
        server
            .site()
            .place_backup(&id(place, old), OLD.as_bytes(), now());
    }
    let backups = server.site().data().join("backups");
    let before = names(&backups);
    for protocol in Protocol::BOTH {
        let stalled = cases().map(async |(place, old)| {
            let length = BACKUP.len().to_string();
            let length = [("content-length", length.as_str())];
            let path = format!("/backups/{}", id(place, old));
            let mut phone = server.phone(protocol).await;
            let body = unfinished(&BACKUP[..place]);
            let answer = phone.send_body("PUT", &path, &length, body).await.unwrap();
            answer.assert_refused(408);
        });
        join_all(stalled).await;

        assert_eq!(names(&backups), before);
        for folder in ["tmp", "trash"] {
            assert!(names(&server.site().data().join(folder)).is_empty());
        }
        let mut phone = server.phone(protocol).await;
        for (place, old) in cases() {
            let path = format!("/backups/{}", id(place, old));
            let read = phone.ask("GET", &path, &[]).await;
            if old {
                assert_eq!((read.status, read.text()), (200, OLD));
            } else {
                assert_eq!(read.status, 404);
            }
        }
        // All memory has been given back.
        let largest = vec![7; BACKUP.len() * count];
        let put = phone.send("PUT", &backup_path(), &[], largest).await;
        assert_eq!(put.status, 201);
        std::fs::remove_file(server.site().backup_file(ID)).unwrap();
    }
    server.has_no_new_descriptors().await;
}

/// A request that waits for memory is over when its phone goes away, and takes none then.
#[tokio::test]
async fn an_upload_that_goes_away_while_it_waits_for_memory_takes_none() {
    let mut server = start();
    let mut phone = server.phone(Protocol::Http1).await;
    let mut holder = server.raw(b"h2").await;
    let authorization = server.phones();
    let begin = [
        frames::PREFACE,
        &frames::settings(),
        &frames::upload(&authorization, BACKUP.len()),
    ]
    .concat();
    holder.write(&begin).await;
    holder.write(frames::data(b"n", frames::MORE)).await;
    server.has_read_all(holder.local_address()).await;
    let mut waiting = server.raw(b"h2").await;
    waiting.write(&begin).await;
    server.has_read_all(waiting.local_address()).await;

    waiting.write(frames::reset(Reason::Cancel as u32)).await;
    let told = server.log_through_request("PUT");
    assert!(told.concat().contains("request cancelled"), "{told:?}");
    holder.write(frames::reset(Reason::Cancel as u32)).await;

    assert_nothing_happened(&mut server, &mut phone, None, "two that went away").await;
    drop((phone, holder, waiting));
    server.has_no_new_descriptors().await;
}

fn prepare(server: &ServerProcess, old: Option<&str>) {
    if let Some(old) = old {
        server.site().place_backup(ID, old.as_bytes(), now());
    }
}

/// An upload on HTTP/2 of which the server has read this much of the body.
async fn begin_on_http_2(server: &ServerProcess, place: usize) -> Raw {
    let mut raw = server.raw(b"h2").await;
    let authorization = server.phones();
    raw.write([frames::PREFACE, &frames::settings()].concat())
        .await;
    raw.write(frames::upload(&authorization, BACKUP.len()))
        .await;
    raw.write(frames::data(&BACKUP[..place], frames::MORE))
        .await;
    server.has_read_all(raw.local_address()).await;
    raw
}

/// Cuts an upload on HTTP/2; what is returned keeps the connection as open as it is.
async fn cut_on_http_2(mut raw: Raw, cut: Cut) -> Option<Raw> {
    match cut {
        Cut::Reset(reason) => raw.write(frames::reset(reason as u32)).await,
        Cut::EndStream => raw.write(frames::data(b"", frames::END)).await,
        Cut::GoAway => {
            raw.write(frames::go_away()).await;
            return cut_connection(raw, Cut::Fin).await;
        }
        Cut::Fin | Cut::Rst | Cut::CloseNotify => return cut_connection(raw, cut).await,
    }
    Some(raw)
}

/// Cuts a connection; what is returned keeps its other half open, until the server has noticed.
async fn cut_connection(mut raw: Raw, cut: Cut) -> Option<Raw> {
    match cut {
        Cut::Fin => raw.break_off().await,
        Cut::CloseNotify => raw.end_writing().await,
        Cut::Rst => {
            raw.reset();
            return None;
        }
        Cut::Reset(_) | Cut::EndStream | Cut::GoAway => unreachable!("a cut of a stream"),
    }
    Some(raw)
}

/// Waits until the server is done with the upload, and makes sure that everything is as it was
/// before.
async fn assert_nothing_happened(
    server: &mut ServerProcess,
    phone: &mut Client,
    old: Option<&str>,
    case: &str,
) {
    let told = server.log_through_request("PUT").pop().unwrap();
    let refused = told.contains("request cancelled") || told.contains("status=400");
    assert!(refused, "{case}: {told}");

    let read = phone.ask("GET", &backup_path(), &[]).await;
    match old {
        Some(old) => assert_eq!((read.status, read.text()), (200, old), "{case}"),
        None => assert_eq!(read.status, 404, "{case}"),
    }
    // All memory has been given back: otherwise this one would wait for ten seconds, and then be
    // refused.
    let other = format!("/backups/{OTHER_ID}");
    let largest = phone.send("PUT", &other, &[], &BACKUP[..]).await;
    assert!([201, 204].contains(&largest.status), "{case}: {largest:?}");
    server.log_through_request("PUT");
    let data = server.site().data();
    let ids: Vec<_> = old.map(|_| ID).into_iter().chain([OTHER_ID]).collect();
    assert_eq!(names(&data.join("backups")), ids, "{case}");
    for folder in ["tmp", "trash"] {
        assert!(names(&data.join(folder)).is_empty(), "{case}");
    }
}

/// HTTP/2 in bytes (RFC 9113), of one request.
pub(crate) mod frames {
    use crate::support::backup_path;

    pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// The flags of a frame after which more of the body comes.
    pub(crate) const MORE: u8 = 0;
    /// The flags of a frame that ends the body.
    pub(crate) const END: u8 = 1;
    const END_HEADERS: u8 = 4;
    /// The first stream of a client.
    const STREAM: u32 = 1;

    pub(crate) fn settings() -> Vec<u8> {
        frame(4, 0, 0, b"")
    }

    /// The header of an upload of `length` bytes.
    pub(crate) fn upload(authorization: &str, length: usize) -> Vec<u8> {
        let (path, length) = (backup_path(), length.to_string());
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "PUT"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", &path),
            ("authorization", authorization),
            ("content-length", &length),
        ] {
            // Literals without indexing and without Huffman coding (RFC 7541 §6.2.2).
            block.push(0);
            for text in [name, value] {
                let length = u8::try_from(text.len()).unwrap();
                assert!(length < 127, "longer lengths are written otherwise");
                block.push(length);
                block.extend(text.as_bytes());
            }
        }
        frame(1, END_HEADERS, STREAM, &block)
    }

    pub(crate) fn data(bytes: &[u8], flags: u8) -> Vec<u8> {
        // A frame has at most 16 KiB.
        let mut pieces = bytes.chunks(16 << 10).peekable();
        let mut written = Vec::new();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { flags } else { MORE };
            written.extend(frame(0, flags, STREAM, piece));
        }
        if bytes.is_empty() && flags == END {
            written.extend(frame(0, END, STREAM, b""));
        }
        written
    }

    pub(crate) fn reset(reason: u32) -> Vec<u8> {
        frame(3, 0, STREAM, &reason.to_be_bytes())
    }

    pub(crate) fn go_away() -> Vec<u8> {
        frame(7, 0, 0, &[0; 8])
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }
}
