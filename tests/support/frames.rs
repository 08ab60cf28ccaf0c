//! HTTP/2 frames (RFC 9113) as a test builds them, and header blocks without compression (RFC
//! 7541).

use std::net::Ipv4Addr;

use tokio::net::TcpSocket;

use crate::support::Listening;
use crate::support::wire::Raw;

/// With what every connection begins.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const ACK: u8 = 1;

/// Settings.
pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// Codes of errors.
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that the server sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
}

/// What comes of a request, or of what is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer with this status.
    Status(u16),
    /// The end of one stream, with this code.
    Reset(u32),
    /// The end of the connection, with this code.
    GoAway(u32),
    /// The end of the connection, without a word.
    Ended,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(crate) fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<_> = settings
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// A header block of these fields, each literal and not kept.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.extend(integer(7, text.len()));
            block.extend(text.bytes());
        }
    }
    block
}

/// A number after so few bits of its first byte, which are zero (RFC 7541 §5.1).
pub(crate) fn integer(bits: u32, number: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if number < most {
        return vec![u8::try_from(number).unwrap()];
    }
    let mut bytes = vec![u8::try_from(most).unwrap()];
    let mut rest = number - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// The pseudo-header of a request.
pub(crate) fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
    ]
}

/// A connection on which frames are written.
pub(crate) struct Peer {
    pub(crate) raw: Raw,
    /// The credentials of the phone account.
    pub(crate) authorization: String,
}

impl Peer {
    /// A connection that begins with these settings.
    pub(crate) async fn connect(server: &impl Listening, first: &[(u16, u32)]) -> Self {
        Self::connect_from(Ipv4Addr::LOCALHOST, server, first).await
    }

    pub(crate) async fn connect_from(
        source: Ipv4Addr,
        server: &impl Listening,
        first: &[(u16, u32)],
    ) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        let raw = Raw::connect_from(source, socket, server, b"h2").await;
        let mut peer = Self {
            raw: raw.unwrap(),
            authorization: server.phones(),
        };
        // The answers are to be read without a table.
        let all = [&[(HEADER_TABLE_SIZE, 0)], first].concat();
        let start = [PREFACE, &settings(&all), &frame(SETTINGS, ACK, 0, &[])].concat();
        peer.raw.write(start).await;
        peer
    }

    /// The header of a request with the credentials of the phone account, on this stream.
    pub(crate) fn header(&self, flags: u8, stream: u32, method: &str, path: &str) -> Vec<u8> {
        let mut fields = request(method, path);
        fields.push(("authorization", &self.authorization));
        frame(HEADERS, flags | END_HEADERS, stream, &block(&fields))
    }

    /// A whole request without a body.
    pub(crate) fn get(&self, stream: u32, path: &str) -> Vec<u8> {
        self.header(END_STREAM, stream, "GET", path)
    }

    /// The beginning of an upload of so many bytes.
    pub(crate) fn put(&self, stream: u32, path: &str, length: usize) -> Vec<u8> {
        let length = length.to_string();
        let mut fields = request("PUT", path);
        fields.push(("authorization", &self.authorization));
        fields.push(("content-length", &length));
        frame(HEADERS, END_HEADERS, stream, &block(&fields))
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.raw.write(bytes).await;
    }

    /// The next frame, if one comes before the connection ends.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let head = self.raw.bytes(9).await?;
        let length = head[..3]
            .iter()
            .fold(0, |all, &byte| all << 8 | usize::from(byte));
        Some(Frame {
            kind: head[3],
            payload: self.raw.bytes(length).await?,
        })
    }

    /// What comes next of what was asked for. Pings and settings are passed over.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        while let Some(frame) = self.next().await {
            let code =
                |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
            match frame.kind {
                HEADERS => return Outcome::Status(status(&frame.payload)),
                RST_STREAM => return Outcome::Reset(code(0)),
                GOAWAY => return Outcome::GoAway(code(4)),
                _ => {}
            }
        }
        Outcome::Ended
    }

    /// Waits until the connection ends; the statuses of all answers that came before.
    pub(crate) async fn ended(&mut self) -> Vec<u16> {
        let mut statuses = Vec::new();
        loop {
            match self.outcome().await {
                Outcome::Ended => return statuses,
                Outcome::Status(status) => statuses.push(status),
                Outcome::Reset(_) | Outcome::GoAway(_) => {}
            }
        }
    }
}

/// The status in a header block of an answer, which is its first field.
fn status(block: &[u8]) -> u16 {
    // The size of the table, of which there is to be none.
    let block = block.strip_prefix(&[0x20]).unwrap_or(block);
    match *block {
        [indexed @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
        }
        // Literal, of whatever kind, with the name 8; compressed or not.
        [0x08 | 0x18 | 0x48, 3, a, b, c, ..] => [a, b, c]
            .iter()
            .fold(0, |all, digit| all * 10 + u16::from(digit - b'0')),
        [0x08 | 0x18 | 0x48, length @ 0x81..=0x83, ref rest @ ..] => {
            let bytes = &rest[..usize::from(length - 0x80)];
            let bits = bytes
                .iter()
                .fold(0, |all, &byte| all << 8 | u32::from(byte));
            digits(bits, bytes.len() * 8)
        }
        _ => panic!("no status: {block:x?}"),
    }
}

/// Three digits in the code of RFC 7541, appendix B.
fn digits(bits: u32, mut length: usize) -> u16 {
    let mut number = 0;
    for _ in 0..3 {
        let next = |length: usize, count: usize| bits >> (length - count) & ((1 << count) - 1);
        // `0` to `2` have five bits, `3` to `9` six, from 0b011001 on.
        let five = next(length, 5);
        let digit = if five <= 2 {
            length -= 5;
            five
        } else {
            let six = next(length, 6);
            length -= 6;
            six - 0b01_1001 + 3
        };
        number = number * 10 + u16::try_from(digit).unwrap();
    }
    number
}

#[test]
fn statuses_are_read_in_every_way_to_write_them() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x20, 0x89]), 204);
    assert_eq!(status(b"\x48\x03401"), 401);
    assert_eq!(status(b"\x48\x82\x68\x01"), 401);
    assert_eq!(status(b"\x48\x82\x10\x03"), 201);
    assert_eq!(status(b"\x08\x83\x68\x2c\xff"), 413);
}
