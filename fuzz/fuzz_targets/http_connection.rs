//! One connection of a real server, after the handshake: its handler, its adapter, its files.
//!
//! The first byte of the input says how the rest is sent; digits are the plain ways:
//!
//! - its two lowest bits, what it is: 1 bytes of HTTP/1.1; 2 frames of HTTP/2, after the preface; 3 requests
//!   as HTTP/1.1 writes them, translated to HTTP/2; 0 as 1;
//! - the next bit (4), whether it is sent in sixteen pieces instead of one;
//! - the next two (8, 16), how it ends: 0x10 the client waits until the server ends the connection (`1`, `2`,
//!   `3`); 0x18 it ends its half when everything is answered; 0x08 at once; 0 the connection is lost at once.
//!
//! The clock is paused: where everybody waits, the next time limit passes at once.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use http::Version;
use libfuzzer_sys::fuzz_target;
use threema_safe_server::server::Server;
use threema_safe_server_fuzz::log::{self, Line};
use threema_safe_server_fuzz::site::{OPERATOR, PHONE, Site};
use threema_safe_server_fuzz::{answers, translate};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{sleep, timeout};

/// How much of one direction may be under way, in bytes: about a socket's buffer.
const BUFFER: usize = 64 << 10;
/// After so long on the paused clock everything that can happen without a time limit has happened.
const MOMENT: Duration = Duration::from_millis(1);
/// No connection lives so long. Each request may take all of its time limits.
const LIFE: Duration = Duration::from_secs(60 * 60);

/// How the client ends the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Loses,
    HangsUpAtOnce,
    Waits,
    HangsUpWhenAnswered,
}

struct World {
    runtime: Runtime,
    site: Site,
    server: Server,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        // One after the other, so that an input does the same every time.
        .max_blocking_threads(1)
        .build()
        .expect("a runtime can be made");
    let site = Site::new();
    let server = runtime.block_on(site.bind());
    site.reset();
    log::keep();
    World {
        runtime,
        site,
        server,
    }
});

fuzz_target!(|input: &[u8]| {
    let Some((&manner, rest)) = input.split_first() else {
        return;
    };
    let (version, sent) = match manner & 3 {
        2 => (Version::HTTP_2, [translate::PREFACE, rest].concat()),
        3 => (Version::HTTP_2, translate::to_http_2(rest)),
        _ => (Version::HTTP_11, rest.to_vec()),
    };
    let pieces = if manner & 4 == 0 { 1 } else { 16 };
    let end = match manner & 0x18 {
        0 => End::Loses,
        0x08 => End::HangsUpAtOnce,
        0x10 => End::Waits,
        _ => End::HangsUpWhenAnswered,
    };

    let World {
        runtime,
        site,
        server,
    } = &*WORLD;
    let received = runtime.block_on(async {
        let (client, stream) = tokio::io::duplex(BUFFER);
        let talk = async {
            tokio::join!(
                server.serve_connection(stream, version),
                talk(client, &sent, pieces, end)
            )
            .1
        };
        let talk = timeout(LIFE, talk).await;
        let received = talk.expect("a connection ends");
        all_tasks_end().await;
        received
    });

    let lines = log::take();
    let uploads = lines.iter().filter(|line| line.method == "PUT").count();
    for line in &lines {
        // Only uploads at once have to share their memory.
        let shared = version == Version::HTTP_2 && uploads > 1 && line.status == Some(503);
        let status = line.status.unwrap_or(200);
        assert!((200..500).contains(&status) || shared, "{line:?}");
    }
    if version == Version::HTTP_11 {
        let cut = [End::Loses, End::HangsUpAtOnce].contains(&end);
        answers::check(&received, &lines, cut);
    }
    // As frames the credentials may be compressed.
    let is_text = manner & 3 != 2;
    let stranger = [PHONE, OPERATOR].iter().all(|known| {
        !rest
            .windows(known.len())
            .any(|found| found == known.as_bytes())
    });
    if is_text && stranger {
        site.check_untouched();
        lines.iter().for_each(check_stranger);
    }
    site.check();
    site.reset();
});

/// Sends the bytes and ends the connection; returns what came.
async fn talk(client: DuplexStream, bytes: &[u8], pieces: usize, end: End) -> Vec<u8> {
    let (reader, writer) = tokio::io::split(client);
    let mut received = Vec::new();
    if end == End::Loses {
        // What had come by then does not count.
        send(writer, bytes, pieces, end).await;
        drop(reader);
        return received;
    }
    tokio::join!(
        receive(reader, &mut received),
        send(writer, bytes, pieces, end)
    );
    received
}

async fn receive(mut reader: ReadHalf<DuplexStream>, received: &mut Vec<u8>) {
    reader
        .read_to_end(received)
        .await
        .expect("memory can be read");
}

async fn send(mut writer: WriteHalf<DuplexStream>, bytes: &[u8], pieces: usize, end: End) {
    for piece in bytes.chunks(bytes.len().div_ceil(pieces).max(1)) {
        // The server may have ended the connection.
        if writer.write_all(piece).await.is_err() {
            return;
        }
        if pieces > 1 {
            sleep(MOMENT).await;
        }
    }
    if end == End::HangsUpWhenAnswered {
        sleep(MOMENT).await;
    }
    if [End::HangsUpAtOnce, End::HangsUpWhenAnswered].contains(&end) {
        // The server may have been faster.
        drop(writer.shutdown().await);
    }
}

/// Waits until nothing works for the connection any more: neither tasks nor blocking threads, for which the paused
/// clock waits.
async fn all_tasks_end() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let ended = timeout(LIFE, async {
        sleep(MOMENT).await;
        while tasks() > 0 {
            sleep(Duration::from_secs(1)).await;
        }
    });
    ended.await.expect("the tasks of a connection end");
}

/// Somebody without credentials sees the page, and may read a backup whose id they know.
fn check_stranger(line: &Line) {
    let read = ["GET", "HEAD"].contains(&line.method.as_str());
    let open = read && ["root", "backup"].contains(&line.route.as_str());
    let refused = line.status.is_none_or(|status| status >= 400);
    assert!(refused || open, "a stranger was let in: {line:?}");
}
