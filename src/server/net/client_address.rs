//! Client addresses, and the prefixes by which limits count them. Neither type can be printed:
//! [`ClientAddress::logged`] returns the part of an address that `log.clientAddresses` allows in
//! the log.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::ClientAddresses;

/// The address of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAddress {
    /// A connection that no listener accepted.
    Unknown,
    /// The peer of a Unix socket: any process that the permissions of its file admit.
    UnixSocket,
    /// In canonical form: a listener on `[::]` sees IPv4 addresses as IPv4-mapped IPv6 ones, and
    /// all of these would be one /64.
    Ip(IpAddr),
}

/// The clients that share one rate limit: an IPv4 address, or an IPv6 /64 (of a household or a
/// phone, which can use any number of addresses within it).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Prefix {
    Unknown,
    UnixSocket,
    V4([u8; 4]),
    V6([u16; 4]),
}

impl Prefix {
    /// The prefixes that one attacker may hold: the same IPv4 address, or an IPv6 /48, which
    /// providers assign on request and which holds 65,536 /64 prefixes.
    pub(crate) fn network(self) -> Self {
        match self {
            Self::V6([a, b, c, _]) => Self::V6([a, b, c, 0]),
            Self::Unknown | Self::UnixSocket | Self::V4(_) => self,
        }
    }
}

impl ClientAddress {
    /// The address of a connection's peer.
    pub(crate) fn of_peer(peer: SocketAddr) -> Self {
        peer.ip().into()
    }

    /// The part of the address that may be logged.
    pub(crate) fn logged(self, mode: ClientAddresses) -> Option<LoggedAddress> {
        let Self::Ip(address) = self else {
            return None;
        };
        match mode {
            ClientAddresses::None => None,
            ClientAddresses::Truncated => Some(LoggedAddress::network_of(address)),
            ClientAddresses::Full => Some(LoggedAddress::Address(address)),
        }
    }

    /// The prefix by which limits count this client.
    pub(crate) fn prefix(self) -> Prefix {
        match self {
            Self::Unknown => Prefix::Unknown,
            Self::UnixSocket => Prefix::UnixSocket,
            Self::Ip(IpAddr::V4(address)) => Prefix::V4(address.octets()),
            Self::Ip(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                Prefix::V6([a, b, c, d])
            }
        }
    }
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        Self::Ip(address.to_canonical())
    }
}

/// A client address as the log shows it.
#[derive(Clone, Copy)]
pub(crate) enum LoggedAddress {
    Address(IpAddr),
    Network(IpAddr, u8),
}

impl LoggedAddress {
    fn network_of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::Network(Ipv4Addr::new(a, b, c, 0).into(), 24)
            }
            IpAddr::V6(address) => {
                let [a, b, c, ..] = address.segments();
                Self::Network(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into(), 48)
            }
        }
    }
}

impl fmt::Display for LoggedAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(formatter, "{address}"),
            Self::Network(address, length) => write!(formatter, "{address}/{length}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str) -> Prefix {
        ClientAddress::of_peer(SocketAddr::new(address.parse().unwrap(), 1)).prefix()
    }

    #[test]
    fn the_log_shows_the_configured_part_of_an_address() {
        for (address, network, full) in [
            ("192.0.2.177", "192.0.2.0/24", "192.0.2.177"),
            ("::ffff:192.0.2.177", "192.0.2.0/24", "192.0.2.177"),
            (
                "2001:db8:aa:bb:cc::1",
                "2001:db8:aa::/48",
                "2001:db8:aa:bb:cc::1",
            ),
        ] {
            let client = ClientAddress::of_peer(SocketAddr::new(address.parse().unwrap(), 443));
            let logged = |mode| client.logged(mode).map(|address| address.to_string());

            assert_eq!(logged(ClientAddresses::None), None);
            assert_eq!(logged(ClientAddresses::Truncated).as_deref(), Some(network));
            assert_eq!(logged(ClientAddresses::Full).as_deref(), Some(full));
        }
        for mode in [ClientAddresses::Truncated, ClientAddresses::Full] {
            assert!(ClientAddress::Unknown.logged(mode).is_none());
        }
    }

    #[test]
    fn an_ipv4_address_or_an_ipv6_64_shares_one_limit() {
        let same = |a, b| prefix(a) == prefix(b);

        assert!(same("192.0.2.1", "192.0.2.1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
    }
}
