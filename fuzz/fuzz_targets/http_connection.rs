//! HTTP connections of a real server after the TLS handshake: the request handler and its files.
//!
//! The first byte of the input says how the rest is sent; digits are the simplest modes:
//!
//! - the two lowest bits give the kind of the rest: 1 bytes of HTTP/1.1; 2 frames of HTTP/2, after
//!   the preface; 3 requests in the syntax of HTTP/1.1, translated to HTTP/2; 0 as 1;
//! - the next bit (4) says whether it is sent in sixteen pieces instead of one;
//! - the next two (8, 16) say how the connection ends: 0x10 the client waits until the server
//!   closes it (`1`, `2`, `3`); 0x18 the client closes its half after all responses; 0x08 at once;
//!   0 the connection is dropped at once.
//!
//! The clock is paused: when all tasks wait, the next time limit passes at once.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use http::Version;
use libfuzzer_sys::fuzz_target;
use threema_safe_server::server::Server;
use threema_safe_server_fuzz::installation::{Installation, OPERATOR, PHONE};
use threema_safe_server_fuzz::log::{self, Line};
use threema_safe_server_fuzz::{responses, translate};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{sleep, timeout};

/// Buffer of each direction, in bytes: about that of a socket.
const BUFFER: usize = 64 << 10;
/// After this time on the paused clock all work without a time limit is done.
const SETTLE_TIME: Duration = Duration::from_millis(1);
/// Upper bound for the duration of a connection. Each request may use all of its time limits.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How the client ends the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Drops,
    ClosesAtOnce,
    WaitsForServer,
    ClosesAfterResponses,
}

struct Fixture {
    runtime: Runtime,
    installation: Installation,
    server: Server,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        // One thread, so that every run of an input behaves the same.
        .max_blocking_threads(1)
        .build()
        .expect("a runtime can be made");
    let installation = Installation::new();
    let server = runtime.block_on(installation.bind());
    installation.reset();
    log::capture();
    Fixture {
        runtime,
        installation,
        server,
    }
});

fuzz_target!(|input: &[u8]| {
    let Some((&mode, rest)) = input.split_first() else {
        return;
    };
    let (version, sent) = match mode & 3 {
        2 => (Version::HTTP_2, [translate::PREFACE, rest].concat()),
        3 => (Version::HTTP_2, translate::to_http_2(rest)),
        _ => (Version::HTTP_11, rest.to_vec()),
    };
    let pieces = if mode & 4 == 0 { 1 } else { 16 };
    let end = match mode & 0x18 {
        0 => End::Drops,
        0x08 => End::ClosesAtOnce,
        0x10 => End::WaitsForServer,
        _ => End::ClosesAfterResponses,
    };

    let Fixture {
        runtime,
        installation,
        server,
    } = &*FIXTURE;
    let received = runtime.block_on(async {
        let (client, stream) = tokio::io::duplex(BUFFER);
        let exchange = async {
            tokio::join!(
                server.serve_connection(stream, version),
                exchange(client, &sent, pieces, end)
            )
            .1
        };
        let exchange = timeout(CONNECTION_LIMIT, exchange).await;
        let received = exchange.expect("a connection ends");
        wait_for_all_tasks().await;
        received
    });

    let lines = log::take();
    let uploads = lines.iter().filter(|line| line.method == "PUT").count();
    for line in &lines {
        // Only concurrent uploads share their memory limit.
        let shared = version == Version::HTTP_2 && uploads > 1 && line.status == Some(503);
        let status = line.status.unwrap_or(200);
        assert!((200..500).contains(&status) || shared, "{line:?}");
    }
    if version == Version::HTTP_11 {
        let cut = [End::Drops, End::ClosesAtOnce].contains(&end);
        responses::check(&received, &lines, cut);
    }
    // In frames, the credentials may be compressed.
    let is_text = mode & 3 != 2;
    let is_unauthenticated = [PHONE, OPERATOR].iter().all(|known| {
        !rest
            .windows(known.len())
            .any(|found| found == known.as_bytes())
    });
    if is_text && is_unauthenticated {
        installation.check_untouched();
        lines.iter().for_each(check_unauthenticated);
    }
    installation.check();
    installation.reset();
});

/// Sends the bytes and ends the connection; returns the received bytes.
async fn exchange(client: DuplexStream, bytes: &[u8], pieces: usize, end: End) -> Vec<u8> {
    let (reader, writer) = tokio::io::split(client);
    let mut received = Vec::new();
    if end == End::Drops {
        // The responses up to then are ignored.
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
            sleep(SETTLE_TIME).await;
        }
    }
    if end == End::ClosesAfterResponses {
        sleep(SETTLE_TIME).await;
    }
    if [End::ClosesAtOnce, End::ClosesAfterResponses].contains(&end) {
        // The server may have closed the connection first.
        drop(writer.shutdown().await);
    }
}

/// Waits until all tasks of the connection have ended, and its blocking threads, for which the
/// paused clock waits.
async fn wait_for_all_tasks() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let ended = timeout(CONNECTION_LIMIT, async {
        sleep(SETTLE_TIME).await;
        while tasks() > 0 {
            sleep(Duration::from_secs(1)).await;
        }
    });
    ended.await.expect("the tasks of a connection end");
}

/// Checks that a request without credentials reads only the page, or a backup by its id.
fn check_unauthenticated(line: &Line) {
    let read = ["GET", "HEAD"].contains(&line.method.as_str());
    let open = read && ["root", "backup"].contains(&line.route.as_str());
    let refused = line.status.is_none_or(|status| status >= 400);
    assert!(refused || open, "allowed without credentials: {line:?}");
}
