//! Listeners and trusted proxies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::reader::Reader;
use super::tls::Tls;
use super::value::{address, path};

/// The address of a public listener.
#[derive(Clone, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Parses an address and a port, or `unix:` and a path.
pub(super) fn listen(text: &str) -> Result<Listen, String> {
    match text.strip_prefix("unix:") {
        Some(socket) => path(socket).map(|socket| Listen::Unix(socket.into())),
        None => address(text)
            .map(Listen::Tcp)
            .map_err(|problem| format!("{problem}; or \"unix:\" and the path of a Unix socket")),
    }
}

/// Parses a network in CIDR notation, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse().or_else(|_| one()).map_err(|_| {
        format!("must be an address or a network such as \"10.0.0.0/8\" or \"2001:db8::7\", not \"{text}\"")
    })?;
    if network.prefix_len() == 0 {
        return Err("must not match all addresses: every client could forge its address".into());
    }
    if network != network.trunc() {
        return Err(format!(
            "must not have bits set beyond the prefix length: write \"{}\"",
            network.trunc()
        ));
    }
    let is_mapped =
        matches!(network, IpNet::V6(network) if network.network().to_ipv4_mapped().is_some());
    if is_mapped {
        return Err("must be written as an IPv4 network".into());
    }
    Ok(network)
}

/// Checks how listeners, TLS and proxies combine, and reports problems to `reader`.
pub(super) fn check(
    reader: &mut Reader<'_>,
    listen: &[Listen],
    tls: &Tls,
    has_proxies: bool,
    proxy_protocol: bool,
) {
    let is_local = |listen: &Listen| match listen {
        Listen::Tcp(address) => address.ip().is_loopback(),
        Listen::Unix(_) => true,
    };
    if *tls == Tls::Off && !has_proxies && !listen.iter().all(is_local) {
        let text = "can be \"off\" only behind a proxy that terminates TLS: listen on loopback or a Unix \
                    socket, or list the proxies in trustedProxies";
        reader.problem("tls", text);
    }
    let has_socket = listen
        .iter()
        .any(|listen| matches!(listen, Listen::Unix(_)));
    if proxy_protocol && !has_proxies && !has_socket {
        let text = "requires trustedProxies: the header is accepted from these addresses only";
        reader.problem("proxyProtocol", text);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Error};

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        match Config::from_json(text.as_bytes(), Path::new("/etc/safe/config.json")) {
            Ok(config) => Ok(config),
            Err(Error::Invalid { problems, .. }) => {
                Err(problems.iter().map(ToString::to_string).collect())
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn unix_sockets_and_addresses_are_listened_on() {
        let text = r#"{ "listen": ["unix:safe.sock", "unix:/run/safe.sock", "[::1]:8443"] }"#;

        let addresses: Vec<_> = parse(text)
            .unwrap()
            .listen
            .iter()
            .map(Listen::to_string)
            .collect();

        assert_eq!(
            addresses,
            [
                "unix:/etc/safe/safe.sock",
                "unix:/run/safe.sock",
                "[::1]:8443"
            ]
        );
        let problems = parse(r#"{ "listen": ["unix:", "somewhere"] }"#).unwrap_err();
        assert_eq!(problems[0], "listen[0]: must not be empty: expected a path");
        assert!(problems[1].ends_with("or \"unix:\" and the path of a Unix socket"));
    }

    #[test]
    fn tls_is_off_only_behind_a_proxy_that_terminates_it() {
        for good in [
            r#""listen": ["127.0.0.1:80", "[::1]:80"]"#,
            r#""listen": ["unix:/run/safe.sock"]"#,
            r#""trustedProxies": ["10.0.0.0/8"]"#,
        ] {
            let config = parse(&format!(r#"{{ "tls": "off", {good} }}"#)).unwrap();
            assert_eq!(config.tls, Tls::Off, "{good}");
        }
        for bad in [
            r#""listen": ["127.0.0.1:80", "[::]:80"]"#,
            r#""listen": ["192.0.2.1:80"]"#,
            r#""trustedProxies": []"#,
        ] {
            let problems = parse(&format!(r#"{{ "tls": "off", {bad} }}"#)).unwrap_err();
            assert!(
                problems[0].starts_with("tls: can be \"off\" only behind"),
                "{problems:?}"
            );
        }
        let problems = parse(r#"{ "tls": "no" }"#).unwrap_err();
        assert_eq!(problems, ["tls: must be an object"]);
    }

    #[test]
    fn the_proxy_protocol_is_for_trusted_proxies() {
        for good in [
            r#""trustedProxies": ["10.0.0.1"]"#,
            r#""listen": ["unix:s"]"#,
        ] {
            let config = parse(&format!(r#"{{ "proxyProtocol": true, {good} }}"#)).unwrap();
            assert!(config.proxy_protocol, "{good}");
        }
        let problems = parse(r#"{ "proxyProtocol": true }"#).unwrap_err();
        assert!(
            problems[0].starts_with("proxyProtocol: requires trustedProxies"),
            "{problems:?}"
        );
    }

    #[test]
    fn an_empty_variable_is_an_empty_list_only_where_a_list_may_be_empty() {
        let parse = |name: &str| {
            let environment = [(name.to_owned(), String::new())];
            Config::parse(b"{}", Path::new("config.json"), environment)
        };

        assert!(
            parse("SAFE_TRUSTED_PROXIES")
                .unwrap()
                .trusted_proxies
                .is_empty()
        );
        let Err(Error::Invalid { problems, .. }) = parse("SAFE_LISTEN") else {
            panic!("there is nothing to listen on");
        };
        assert!(
            problems[0]
                .to_string()
                .starts_with("SAFE_LISTEN: must be an IP address")
        );
    }

    #[test]
    fn proxies_are_networks_in_canonical_form() {
        let text = r#"{ "trustedProxies": ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"] }"#;
        let networks: Vec<_> = parse(text)
            .unwrap()
            .trusted_proxies
            .iter()
            .map(IpNet::to_string)
            .collect();
        assert_eq!(
            networks,
            ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "::1/128"]
        );

        for (bad, expected) in [
            (
                "10.0.0.1/8",
                "must not have bits set beyond the prefix length: write \"10.0.0.0/8\"",
            ),
            ("0.0.0.0/0", "must not match all addresses"),
            ("::/0", "must not match all addresses"),
            ("::ffff:10.0.0.0/104", "must be written as an IPv4 network"),
            ("proxy.example.org", "must be an address or a network"),
            ("10.0.0.0/33", "must be an address or a network"),
            ("", "must be an address or a network"),
        ] {
            let problems = parse(&format!(r#"{{ "trustedProxies": ["{bad}"] }}"#)).unwrap_err();
            let expected = format!("trustedProxies[0]: {expected}");
            assert!(problems[0].starts_with(&expected), "{bad}: {problems:?}");
        }
    }
}
