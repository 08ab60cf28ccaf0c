//! Proxies in front of the server: whose word counts about where a request comes from.
//!
//! A peer that is not trusted is a client, whatever it sends. A trusted one tells who was before it, by the PROXY
//! protocol for the whole connection or in each request's header; if that is a trusted proxy too, it tells in turn.
//! The client is the first that is not trusted. Where a proxy says nothing that is clear, its own address stands
//! for all who come through it, so that nobody can choose an address by being unclear.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use ipnet::IpNet;
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::config::Config;
use crate::server::net::client_address::ClientAddress;
use crate::server::net::forwarded::{Hops, forwarded, x_forwarded_for};

/// What both versions' headers begin with at the least: the signature of version 2 (PROXY protocol §2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end (PROXY protocol §2.1).
const LINE: usize = 107;
/// Bytes that version 2 may add to its fixed 16: addresses and what proxies tell besides. 216 are the longest
/// addresses, and what is told in practice is a few hundred.
const MORE: usize = 4_096;

/// The trusted proxies.
pub(crate) struct Proxies {
    networks: Vec<IpNet>,
    speak_first: bool,
    disagreement_said: AtomicBool,
}

impl Proxies {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            networks: config.trusted_proxies.clone(),
            speak_first: config.proxy_protocol,
            disagreement_said: AtomicBool::new(false),
        }
    }

    /// Whether what comes from there is a proxy's word.
    pub(crate) fn trust(&self, address: ClientAddress) -> bool {
        match address {
            ClientAddress::Unknown => false,
            // Its file's rights let the proxy in, and nobody else.
            ClientAddress::UnixSocket => true,
            ClientAddress::Ip(address) => self.networks.iter().any(|net| net.contains(&address)),
        }
    }

    /// Whether a client there is heard without TLS: its password and backup ids cross no network that is not known.
    pub(crate) fn may_speak_plainly(&self, peer: ClientAddress) -> bool {
        let is_here = matches!(peer, ClientAddress::Ip(address) if address.is_loopback());
        is_here || self.trust(peer)
    }

    /// Whether a connection from there begins with a header of the PROXY protocol.
    pub(crate) fn speaks_first(&self, peer: ClientAddress) -> bool {
        self.speak_first && self.trust(peer)
    }

    /// Who sent a request on a connection from `peer`.
    pub(crate) fn client(&self, peer: ClientAddress, headers: &HeaderMap) -> ClientAddress {
        if !self.trust(peer) {
            return peer;
        }
        match (x_forwarded_for(headers), forwarded(headers)) {
            (Hops::None, Hops::None) => peer,
            (Hops::These(hops), Hops::None) | (Hops::None, Hops::These(hops)) => {
                self.first_untrusted(peer, &hops)
            }
            (x_forwarded, forwarded) => {
                // A proxy writes one of them, and may pass on the other as the client wrote it.
                let of = |hops| match hops {
                    Hops::These(hops) => self.first_untrusted(peer, &hops),
                    Hops::None | Hops::Unclear => peer,
                };
                let (one, other) = (of(x_forwarded), of(forwarded));
                if one == other {
                    return one;
                }
                self.say_that_headers_disagree();
                peer
            }
        }
    }

    fn first_untrusted(&self, peer: ClientAddress, hops: &[Option<IpAddr>]) -> ClientAddress {
        let mut last = peer;
        for hop in hops {
            // Whoever is not told is the one who tells.
            let Some(address) = *hop else { return last };
            last = address.into();
            if !self.trust(last) {
                return last;
            }
        }
        last
    }

    fn say_that_headers_disagree(&self) {
        if !self.disagreement_said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a request came through a trusted proxy with both Forwarded and X-Forwarded-For, and they do not \
                 name the same client: the proxy should set one and remove the other. Its own address counts for \
                 such requests. This is said once"
            );
        }
    }

    /// Reads the header of the PROXY protocol, version 1 or 2, and nothing behind it. Who is connected: `peer` where
    /// the proxy speaks for itself (a health check) or does not say.
    ///
    /// # Errors
    /// When it is none, is too long, or the stream ends or fails.
    pub(crate) async fn read_header(
        peer: ClientAddress,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<ClientAddress> {
        let mut header = vec![0; SIGNATURE.len()];
        stream.read_exact(&mut header).await?;
        if header == SIGNATURE {
            let mut fixed = [0; 4];
            stream.read_exact(&mut fixed).await?;
            let [_, _, high, low] = fixed;
            let more = usize::from(u16::from_be_bytes([high, low]));
            if more > MORE {
                return Err(no_header());
            }
            header.extend(fixed);
            let start = header.len();
            header.resize(start + more, 0);
            stream
                .read_exact(header.get_mut(start..).unwrap_or_default())
                .await?;
        } else if header.starts_with(b"PROXY ") {
            // Byte by byte, as what follows belongs to the client.
            while !header.ends_with(b"\r\n") {
                if header.len() >= LINE {
                    return Err(no_header());
                }
                header.push(stream.read_u8().await?);
            }
        }
        let (parsed, length) =
            ProxyHeader::parse(&header, ParseConfig::default()).map_err(|_| no_header())?;
        if length != header.len() {
            return Err(no_header());
        }
        let proxied = parsed.proxied_address();
        Ok(proxied.map_or(peer, |proxied| ClientAddress::of_peer(proxied.source)))
    }
}

fn no_header() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "no header of the PROXY protocol",
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn proxies() -> Proxies {
        let text = br#"{ "trustedProxies": ["10.0.0.0/8", "2001:db8::7"], "proxyProtocol": true }"#;
        Proxies::new(&Config::from_json(text, Path::new("config.json")).unwrap())
    }

    fn at(address: &str) -> ClientAddress {
        address.parse::<IpAddr>().unwrap().into()
    }

    fn client(peer: &str, lines: &[(&'static str, &str)]) -> ClientAddress {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        proxies().client(at(peer), &headers)
    }

    #[track_caller]
    fn assert_client(peer: &str, lines: &[(&'static str, &str)], expected: &str) {
        assert!(client(peer, lines) == at(expected), "{peer} {lines:?}");
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client_whatever_it_sends() {
        for peer in ["192.0.2.1", "2001:db8::8", "11.0.0.1"] {
            let lines = [
                ("x-forwarded-for", "192.0.2.9"),
                ("forwarded", "for=192.0.2.9"),
            ];
            assert_client(peer, &lines, peer);
        }
        let unknown = proxies().client(ClientAddress::Unknown, &HeaderMap::new());
        assert!(unknown == ClientAddress::Unknown);
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_trusted() {
        for peer in [PROXY, "::ffff:10.0.0.1", "2001:db8::7"] {
            for (header, expected) in [
                ("192.0.2.1", "192.0.2.1"),
                ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
                ("6.6.6.6, 192.0.2.1, 10.9.9.9", "192.0.2.1"),
                ("10.1.1.1, 10.9.9.9", "10.1.1.1"),
                ("6.6.6.6, ::ffff:10.1.1.1", "6.6.6.6"),
                // Whoever is unclear hides behind the proxy that let them be.
                ("6.6.6.6, who knows, 10.9.9.9", "10.9.9.9"),
            ] {
                assert_client(peer, &[("x-forwarded-for", header)], expected);
            }
        }
        assert_client(
            PROXY,
            &[("forwarded", "for=6.6.6.6, for=\"[2001:db8:1::1]:7\"")],
            "2001:db8:1::1",
        );
        assert_client(PROXY, &[], PROXY);
        assert_client(PROXY, &[("x-forwarded-for", "who knows")], PROXY);
        assert_client(PROXY, &[("forwarded", "for=\"6.6.6.6")], PROXY);
    }

    #[test]
    fn a_client_cannot_choose_an_address_by_the_header_that_the_proxy_passes_on() {
        let real = ("x-forwarded-for", "192.0.2.1");
        assert_client(PROXY, &[real, ("forwarded", "for=192.0.2.1")], "192.0.2.1");
        for claim in ["for=6.6.6.6", "for=10.2.2.2", "for=unknown", "nonsense"] {
            assert_client(PROXY, &[real, ("forwarded", claim)], PROXY);
        }
        let real = ("forwarded", "for=192.0.2.1");
        assert_client(PROXY, &[real, ("x-forwarded-for", "6.6.6.6")], PROXY);
    }

    #[test]
    fn behind_a_unix_socket_is_a_proxy() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
        let found = proxies().client(ClientAddress::UnixSocket, &headers);
        assert!(found == at("192.0.2.1"));
        assert!(proxies().speaks_first(ClientAddress::UnixSocket));
        assert!(proxies().speaks_first(at(PROXY)) && !proxies().speaks_first(at("192.0.2.1")));
    }

    #[test]
    fn without_tls_nobody_from_afar_is_heard() {
        for (peer, expected) in [
            (PROXY, true),
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("192.0.2.1", false),
            ("2001:db8::8", false),
        ] {
            assert_eq!(proxies().may_speak_plainly(at(peer)), expected, "{peer}");
        }
        assert!(proxies().may_speak_plainly(ClientAddress::UnixSocket));
    }

    async fn read(bytes: &[u8]) -> io::Result<(ClientAddress, Vec<u8>)> {
        let mut stream = bytes;
        let client = Proxies::read_header(at(PROXY), &mut stream).await?;
        Ok((client, stream.to_vec()))
    }

    /// A header of version 2, with a few bytes of further information.
    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let further = [0x04, 0, 1, 0];
        let length = u16::try_from(addresses.len() + further.len()).unwrap();
        let fixed = [command, family];
        [
            SIGNATURE.as_slice(),
            &fixed,
            &length.to_be_bytes(),
            addresses,
            &further,
        ]
        .concat()
    }

    #[tokio::test]
    async fn a_header_of_the_proxy_protocol_is_read_and_nothing_behind_it() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb];
        let v6: Vec<u8> = [
            &"2001:db8:1::1"
                .parse::<std::net::Ipv6Addr>()
                .unwrap()
                .octets()[..],
            &[0; 16],
            &[0, 1, 0, 2],
        ]
        .concat();
        for (header, expected) in [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n".to_vec(),
                "192.0.2.1",
            ),
            (
                b"PROXY TCP6 2001:db8:1::1 ::1 4711 443\r\n".to_vec(),
                "2001:db8:1::1",
            ),
            (
                b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 443\r\n".to_vec(),
                "192.0.2.1",
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), PROXY),
            (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n".to_vec(), PROXY),
            (version_2(0x21, 0x11, &v4), "192.0.2.1"),
            (version_2(0x21, 0x21, &v6), "2001:db8:1::1"),
            (version_2(0x20, 0x11, &v4), PROXY),
            (version_2(0x20, 0x00, &[]), PROXY),
            (version_2(0x21, 0x31, &[0; 216]), PROXY),
        ] {
            let sent = [&header[..], b"\x16\x03\x01"].concat();
            let (client, rest) = read(&sent).await.unwrap();
            assert!(client == at(expected), "{header:?}");
            assert_eq!(rest, b"\x16\x03\x01", "{header:?}");
            for length in 0..header.len() {
                assert!(
                    read(&header[..length]).await.is_err(),
                    "{length} of {header:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_of_the_proxy_protocol_is_refused() {
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat();
        let mut long = version_2(0x21, 0x11, &[0; 12]);
        long[14..16].copy_from_slice(&u16::try_from(MORE + 1).unwrap().to_be_bytes());
        long.resize(16 + MORE + 1, 0);
        for bytes in [
            b"GET /config HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaa".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1\r\n\r\n\r\n\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
            version_2(0x31, 0x11, &[0; 12]),
            version_2(0x21, 0x99, &[0; 12]),
            version_2(0x21, 0x21, &[0; 12]),
            endless,
            long,
        ] {
            assert!(read(&bytes).await.is_err(), "{bytes:?}");
        }
    }
}
