//! Trusted proxies: which peers may name the client of a request, and how they do.
//!
//! A peer that is not trusted is a client, whatever it sends. A trusted proxy names its peer, by
//! the PROXY protocol for the whole connection or in the header of each request; if that peer is a
//! trusted proxy too, the entry that it added is used next. The client is the first address that is
//! not trusted. If a proxy names no address, or its header is invalid, its own address stands for
//! all its clients, so that no client can choose an address by an invalid header.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use ipnet::IpNet;
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::config::Config;
use crate::server::net::client_address::ClientAddress;
use crate::server::net::forwarded::{ForwardedChain, forwarded, x_forwarded_for};

/// The signature of version 2 (PROXY protocol §2.2); no header of version 1 is shorter.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The maximum length of a header of version 1, with its line end (PROXY protocol §2.1).
const MAX_LINE: usize = 107;
/// The maximum number of bytes after the fixed 16 of version 2: addresses and type-length-value
/// fields. The longest addresses have 216 bytes, and the fields in practice a few hundred.
const MAX_VARIABLE: usize = 4_096;

/// The trusted proxies.
pub(crate) struct TrustedProxies {
    networks: Vec<IpNet>,
    uses_proxy_protocol: bool,
    conflict_logged: AtomicBool,
}

impl TrustedProxies {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            networks: config.trusted_proxies.clone(),
            uses_proxy_protocol: config.proxy_protocol,
            conflict_logged: AtomicBool::new(false),
        }
    }

    /// Whether this peer is a trusted proxy.
    pub(crate) fn trusts(&self, address: ClientAddress) -> bool {
        match address {
            ClientAddress::Unknown => false,
            // The permissions of its file admit only the proxy.
            ClientAddress::UnixSocket => true,
            ClientAddress::Ip(address) => self.networks.iter().any(|net| net.contains(&address)),
        }
    }

    /// Whether this peer may connect without TLS: then passwords and backup ids cross only this
    /// machine or the network of a trusted proxy.
    pub(crate) fn allows_plaintext(&self, peer: ClientAddress) -> bool {
        let is_local = matches!(peer, ClientAddress::Ip(address) if address.is_loopback());
        is_local || self.trusts(peer)
    }

    /// Whether connections of this peer begin with a PROXY protocol header.
    pub(crate) fn uses_proxy_protocol(&self, peer: ClientAddress) -> bool {
        self.uses_proxy_protocol && self.trusts(peer)
    }

    /// The client of a request on a connection from `peer`.
    pub(crate) fn client(&self, peer: ClientAddress, headers: &HeaderMap) -> ClientAddress {
        if !self.trusts(peer) {
            return peer;
        }
        match (x_forwarded_for(headers), forwarded(headers)) {
            (ForwardedChain::None, ForwardedChain::None) => peer,
            (ForwardedChain::Hops(hops), ForwardedChain::None)
            | (ForwardedChain::None, ForwardedChain::Hops(hops)) => {
                self.first_untrusted(peer, &hops)
            }
            (x_forwarded, forwarded) => {
                // A proxy sets one of them, and may pass on the other as the client sent it.
                let of = |hops| match hops {
                    ForwardedChain::Hops(hops) => self.first_untrusted(peer, &hops),
                    ForwardedChain::None | ForwardedChain::Invalid => peer,
                };
                let (one, other) = (of(x_forwarded), of(forwarded));
                if one == other {
                    return one;
                }
                self.log_conflict();
                peer
            }
        }
    }

    fn first_untrusted(&self, peer: ClientAddress, hops: &[Option<IpAddr>]) -> ClientAddress {
        let mut last = peer;
        for hop in hops {
            // An unnamed peer: the proxy that did not name it stands for it.
            let Some(address) = *hop else { return last };
            last = address.into();
            if !self.trusts(last) {
                return last;
            }
        }
        last
    }

    fn log_conflict(&self) {
        if !self.conflict_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!("conflicting Forwarded and X-Forwarded-For from trusted proxy");
        }
    }

    /// Reads a PROXY protocol header, version 1 or 2, and nothing after it. Returns the client;
    /// that is `peer` if the proxy connects on its own behalf (a health check) or names no address.
    ///
    /// # Errors
    /// When the header is invalid or too long, or the stream ends or fails.
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
            let variable = usize::from(u16::from_be_bytes([high, low]));
            if variable > MAX_VARIABLE {
                return Err(invalid_header());
            }
            header.extend(fixed);
            let start = header.len();
            header.resize(start + variable, 0);
            stream
                .read_exact(header.get_mut(start..).unwrap_or_default())
                .await?;
        } else if header.starts_with(b"PROXY ") {
            // Byte by byte, because the bytes after the line belong to the client.
            while !header.ends_with(b"\r\n") {
                if header.len() >= MAX_LINE {
                    return Err(invalid_header());
                }
                header.push(stream.read_u8().await?);
            }
        }
        let (parsed, length) =
            ProxyHeader::parse(&header, ParseConfig::default()).map_err(|_| invalid_header())?;
        if length != header.len() {
            return Err(invalid_header());
        }
        let proxied = parsed.proxied_address();
        Ok(proxied.map_or(peer, |proxied| ClientAddress::of_peer(proxied.source)))
    }
}

fn invalid_header() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "invalid PROXY protocol header")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn proxies() -> TrustedProxies {
        let text = br#"{ "trustedProxies": ["10.0.0.0/8", "2001:db8::7"], "proxyProtocol": true }"#;
        TrustedProxies::new(&Config::from_json(text, Path::new("config.json")).unwrap())
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
    fn an_untrusted_peer_is_the_client_whatever_it_sends() {
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
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        for peer in [PROXY, "::ffff:10.0.0.1", "2001:db8::7"] {
            for (header, expected) in [
                ("192.0.2.1", "192.0.2.1"),
                ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
                ("6.6.6.6, 192.0.2.1, 10.9.9.9", "192.0.2.1"),
                ("10.1.1.1, 10.9.9.9", "10.1.1.1"),
                ("6.6.6.6, ::ffff:10.1.1.1", "6.6.6.6"),
                // An invalid entry: the proxy that passed it on stands for the client.
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
    fn the_peer_of_a_unix_socket_is_a_trusted_proxy() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
        let found = proxies().client(ClientAddress::UnixSocket, &headers);
        assert!(found == at("192.0.2.1"));
        assert!(proxies().uses_proxy_protocol(ClientAddress::UnixSocket));
        assert!(
            proxies().uses_proxy_protocol(at(PROXY))
                && !proxies().uses_proxy_protocol(at("192.0.2.1"))
        );
    }

    #[test]
    fn without_tls_only_local_peers_and_trusted_proxies_are_served() {
        for (peer, expected) in [
            (PROXY, true),
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("192.0.2.1", false),
            ("2001:db8::8", false),
        ] {
            assert_eq!(proxies().allows_plaintext(at(peer)), expected, "{peer}");
        }
        assert!(proxies().allows_plaintext(ClientAddress::UnixSocket));
    }

    async fn read(bytes: &[u8]) -> io::Result<(ClientAddress, Vec<u8>)> {
        let mut stream = bytes;
        let client = TrustedProxies::read_header(at(PROXY), &mut stream).await?;
        Ok((client, stream.to_vec()))
    }

    /// A header of version 2, with one type-length-value field.
    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let field = [0x04, 0, 1, 0];
        let length = u16::try_from(addresses.len() + field.len()).unwrap();
        let fixed = [command, family];
        [
            SIGNATURE.as_slice(),
            &fixed,
            &length.to_be_bytes(),
            addresses,
            &field,
        ]
        .concat()
    }

    #[tokio::test]
    async fn a_proxy_protocol_header_is_read_and_nothing_after_it() {
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
    async fn an_invalid_proxy_protocol_header_is_refused() {
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat();
        let mut long = version_2(0x21, 0x11, &[0; 12]);
        long[14..16].copy_from_slice(&u16::try_from(MAX_VARIABLE + 1).unwrap().to_be_bytes());
        long.resize(16 + MAX_VARIABLE + 1, 0);
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
