//! Where a request comes from, as far as limits need to know it. Neither type can be printed: what the log may have of
//! an address is made by [`ClientAddress::shown`], as `log.clientAddresses` says.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::ClientAddresses;

/// The address of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientAddress {
    /// Of a connection that did not come in through a listener.
    Unknown,
    /// The other end of a Unix socket: whoever its file's rights let in.
    UnixSocket,
    /// In its canonical form: a listener on `[::]` sees IPv4 as a part of IPv6, and all of it would be one /64.
    Ip(IpAddr),
}

/// Those who share a budget: one address of IPv4, a /64 of IPv6 (a household's or a phone's; within it everybody
/// has as many addresses as they like).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Prefix {
    Unknown,
    UnixSocket,
    V4([u8; 4]),
    V6([u16; 4]),
}

impl Prefix {
    /// Those who can be one person all the same: the same address of IPv4, a /48 of IPv6, which anybody gets for the
    /// asking and which holds 65,536 of /64.
    pub(crate) fn network(self) -> Self {
        match self {
            Self::V6([a, b, c, _]) => Self::V6([a, b, c, 0]),
            Self::Unknown | Self::UnixSocket | Self::V4(_) => self,
        }
    }
}

impl ClientAddress {
    /// The other end of a connection.
    pub(crate) fn of_peer(peer: SocketAddr) -> Self {
        peer.ip().into()
    }

    /// As much of it as may be logged.
    pub(crate) fn shown(self, how: ClientAddresses) -> Option<Shown> {
        let Self::Ip(address) = self else {
            return None;
        };
        match how {
            ClientAddresses::None => None,
            ClientAddresses::Truncated => Some(Shown::network_of(address)),
            ClientAddresses::Full => Some(Shown::Address(address)),
        }
    }

    /// With whom it shares its budgets.
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

/// What the log tells of an address.
#[derive(Clone, Copy)]
pub(crate) enum Shown {
    Address(IpAddr),
    Network(IpAddr, u8),
}

impl Shown {
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

impl fmt::Display for Shown {
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
    fn the_log_has_of_an_address_what_its_operator_wants() {
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
            let shown = |how| client.shown(how).map(|shown| shown.to_string());

            assert_eq!(shown(ClientAddresses::None), None);
            assert_eq!(shown(ClientAddresses::Truncated).as_deref(), Some(network));
            assert_eq!(shown(ClientAddresses::Full).as_deref(), Some(full));
        }
        for how in [ClientAddresses::Truncated, ClientAddresses::Full] {
            assert!(ClientAddress::Unknown.shown(how).is_none());
        }
    }

    #[test]
    fn one_address_of_ipv4_and_one_64_of_ipv6_share_a_budget() {
        let same = |a, b| prefix(a) == prefix(b);

        assert!(same("192.0.2.1", "192.0.2.1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
    }
}
