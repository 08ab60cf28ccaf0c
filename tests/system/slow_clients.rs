//! Two thousand slow clients of every kind at once, while a phone is served.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::frames::{HEADERS, INITIAL_WINDOW_SIZE, Peer, frame};
use crate::support::wire::{Client, Protocol, Raw, is_open, soon};
use crate::support::{ID, OTHER_ID, Site, TestServer, backup_path};

tests! {
    two_thousand_slow_clients_of_every_kind_leave_a_phone_served: tokio_2 [DESCRIPTORS];
}

/// Each is two descriptors of this process; other tests run beside.
const CLIENTS: u32 = 2_000;
/// Larger than what the kernel keeps of an answer whose client has little room for it.
const LARGE: usize = 400_000;
/// How long everything that a phone wants may take, many times over.
const AT_THE_MOST: Duration = Duration::from_secs(20);

/// What a client is slow at.
#[derive(Debug, Clone, Copy)]
enum Kind {
    BareTcp,
    HalfHello,
    DrippedHeader,
    DrippedBody,
    SlowReading,
    Idle,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::BareTcp,
        Self::HalfHello,
        Self::DrippedHeader,
        Self::DrippedBody,
        Self::SlowReading,
        Self::Idle,
    ];
}

/// A slow client, as slow as it is at first.
enum Slow {
    Tcp(TcpStream),
    Http1(Kind, Raw),
    Http2(Kind, Peer),
}

impl Slow {
    async fn connect(server: &TestServer, number: u32) -> Self {
        let kind = Kind::ALL[number as usize % Kind::ALL.len()];
        // A hundred at each address, so that no address has too many.
        let source = Ipv4Addr::new(127, 0, 2, u8::try_from(1 + number / 100).unwrap());
        let socket = TcpSocket::new_v4().unwrap();
        // Each kind on either protocol.
        let is_http_2 = number as usize / Kind::ALL.len() % 2 == 1;
        match kind {
            Kind::BareTcp | Kind::HalfHello => {
                socket.bind((source, 0).into()).unwrap();
                let mut stream = socket.connect(server.address()).await.unwrap();
                if let Kind::HalfHello = kind {
                    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 200]].concat();
                    stream.write_all(&hello).await.unwrap();
                }
                Self::Tcp(stream)
            }
            Kind::DrippedHeader | Kind::DrippedBody | Kind::SlowReading | Kind::Idle
                if is_http_2 =>
            {
                Self::Http2(kind, Self::http2(server, source, kind).await)
            }
            Kind::DrippedHeader | Kind::DrippedBody | Kind::SlowReading | Kind::Idle => {
                if let Kind::SlowReading = kind {
                    socket.set_recv_buffer_size(4_096).unwrap();
                }
                let raw = Raw::connect_from(source, socket, server, b"http/1.1").await;
                let mut raw = raw.unwrap();
                let authorization = server.phones();
                let path = backup_path();
                let authorized = format!("Host: localhost\r\nAuthorization: {authorization}\r\n");
                let start = match kind {
                    Kind::DrippedHeader => "GET /config HTTP/1.1\r\nX: ".to_owned(),
                    // Every other one without credentials.
                    Kind::DrippedBody if number % 4 < 2 => {
                        format!("PUT {path} HTTP/1.1\r\n{authorized}Content-Length: 100000\r\n\r\n")
                    }
                    Kind::DrippedBody => format!(
                        "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
                    ),
                    Kind::SlowReading => format!("GET {path} HTTP/1.1\r\n{authorized}\r\n"),
                    Kind::BareTcp | Kind::HalfHello | Kind::Idle => String::new(),
                };
                raw.write(start).await;
                Self::Http1(kind, raw)
            }
        }
    }

    async fn http2(server: &TestServer, source: Ipv4Addr, kind: Kind) -> Peer {
        let window = if let Kind::SlowReading = kind {
            0
        } else {
            65_535
        };
        let first = [(INITIAL_WINDOW_SIZE, window)];
        let mut peer = Peer::connect_from(source, server, &first).await;
        let path = backup_path();
        let start = match kind {
            Kind::DrippedHeader => frame(HEADERS, 0, 1, &[0; 10_000])[..10].to_vec(),
            Kind::DrippedBody => peer.put(1, &path, 100_000),
            Kind::SlowReading => peer.get(1, &path),
            Kind::BareTcp | Kind::HalfHello | Kind::Idle => Vec::new(),
        };
        peer.write(start).await;
        peer
    }

    /// One more byte, of what is dripped; `false` when the connection is over.
    async fn drip(&mut self) -> bool {
        match self {
            Self::Http1(Kind::DrippedHeader | Kind::DrippedBody, raw) => {
                raw.try_write("x").await.is_ok()
            }
            Self::Http2(Kind::DrippedHeader, peer) => peer.raw.try_write("x").await.is_ok(),
            Self::Http2(Kind::DrippedBody, peer) => {
                peer.raw.try_write(frame(0, 0, 1, b"x")).await.is_ok()
            }
            Self::Tcp(_) | Self::Http1(..) | Self::Http2(..) => true,
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Self::Tcp(stream) => is_open(stream),
            Self::Http1(_, raw) => raw.is_open(),
            Self::Http2(_, peer) => peer.raw.is_open(),
        }
    }
}

/// A phone that comes now, and gets all that it wants; how long that took.
async fn serve_a_phone(server: &TestServer, protocol: Protocol) -> Duration {
    let start = Instant::now();
    let mut phone = Client::connect(server, protocol, Some(server.phones())).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    let path = format!("/backups/{OTHER_ID}");
    let put = phone.send("PUT", &path, &[], "a phone's").await;
    assert!([201, 204].contains(&put.status), "{put:?}");
    assert_eq!(phone.ask("GET", &path, &[]).await.text(), "a phone's");
    start.elapsed()
}

async fn two_thousand_slow_clients_of_every_kind_leave_a_phone_served() {
    // Only deadlines are different: none passes, however slow the machine is, so a phone that is
    // served is served beside all of them.
    let limits = json!({ "limits": {
        "handshakeSeconds": 3600, "headerSeconds": 3600, "bodySeconds": 3600, "graceSeconds": 3600,
    } });
    let site = Site::new().with(limits);
    site.place_backup(ID, &vec![7; LARGE], crate::support::now());
    let server = site.start().await;
    server.settled().await;
    let start = Instant::now();
    let connecting = stream::iter(0..CLIENTS).map(|number| Slow::connect(&server, number));
    let mut slow: Vec<_> = connecting.buffer_unordered(64).collect().await;
    let connected = start.elapsed();

    let mut rounds = 0;
    let mut served = Vec::new();
    {
        let drip = async {
            loop {
                for client in &mut slow {
                    assert!(client.drip().await, "a client lost its connection");
                }
                rounds += 1;
            }
        };
        let phones = async {
            for protocol in Protocol::BOTH {
                served.push(serve_a_phone(&server, protocol).await);
            }
        };
        soon(async {
            tokio::select! {
                () = drip => {}
                () = phones => {}
            }
        })
        .await;
    }

    let open = slow.iter().filter(|client| client.is_open()).count();
    assert_eq!(open, slow.len());
    for limit in ["connections", "handshake", "header", "body", "response"] {
        assert_eq!(server.refused(limit).await, 0, "{limit}");
    }
    println!(
        "{CLIENTS} connected in {connected:?}; phones served in {served:?}, {rounds} drips each"
    );
    assert!(served.iter().all(|time| *time < AT_THE_MOST), "{served:?}");
    let old = std::fs::read(server.site().backup_file(ID)).unwrap();
    assert!(old == [7; LARGE]);
}
