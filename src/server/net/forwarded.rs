//! Parsers of `X-Forwarded-For` and `Forwarded` (RFC 7239), in which proxies name their clients.
//!
//! The parsers are strict: a malformed `Forwarded` is invalid as a whole, because a client that
//! sent its first part may have tried to hide the last one.
//!
//! Written by hand because forwarded-header-value and rfc7239, the crates for it, split at commas
//! within quotes too: a request with a crafted `Host` could then choose the address that the server
//! trusts.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The peer that one proxy names: an address, or `None` if it is `unknown` or obfuscated
/// (`_hidden`).
type ForwardedHop = Option<IpAddr>;

/// The hops of all headers of one name, the nearest first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ForwardedChain {
    /// There is no such header.
    None,
    /// The header is malformed.
    Invalid,
    Hops(Vec<ForwardedHop>),
}

/// The hops that `X-Forwarded-For` names.
pub(crate) fn x_forwarded_for(headers: &HeaderMap) -> ForwardedChain {
    parse_chain(headers, &X_FORWARDED_FOR, |line, hops| {
        for part in line.split(',') {
            hops.push(address(part.trim()));
        }
        Some(())
    })
}

/// The hops that `Forwarded` names.
pub(crate) fn forwarded(headers: &HeaderMap) -> ForwardedChain {
    parse_chain(headers, &header::FORWARDED, |line, hops| {
        let mut rest = line;
        loop {
            let (hop, after) = element(rest)?;
            hops.push(hop);
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => return after.is_empty().then_some(()),
            }
        }
    })
}

fn parse_chain(
    headers: &HeaderMap,
    name: &HeaderName,
    parse_line: impl Fn(&str, &mut Vec<ForwardedHop>) -> Option<()>,
) -> ForwardedChain {
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return ForwardedChain::None;
    }
    let mut hops = Vec::new();
    let parsed =
        lines.try_for_each(|line: &HeaderValue| parse_line(line.to_str().ok()?, &mut hops));
    if parsed.is_none() {
        return ForwardedChain::Invalid;
    }
    hops.reverse();
    ForwardedChain::Hops(hops)
}

/// Parses `for=192.0.2.1;proto=https` up to the comma after it or the end; returns the rest.
fn element(text: &str) -> Option<(ForwardedHop, &str)> {
    let mut hop = None;
    let mut rest = text;
    loop {
        let (name, after) = rest.trim_start_matches([' ', '\t']).split_once('=')?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let (value, after) = value(after)?;
        if name.eq_ignore_ascii_case("for") {
            // A repeated parameter is malformed (RFC 7239 §4).
            if hop.replace(address(&value)).is_some() {
                return None;
            }
        }
        let after = after.trim_start_matches([' ', '\t']);
        match after.strip_prefix(';') {
            Some(more) => rest = more,
            // An element without `for` names no peer.
            None => return Some((hop.flatten(), after)),
        }
    }
}

/// Parses a token or a quoted string; returns its value and the rest.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let length = text.bytes().take_while(|&byte| is_token(byte)).count();
        let (token, rest) = text.split_at(length);
        return (length > 0).then(|| (token.into(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(position + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// RFC 9110 §5.6.2: `tchar`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Parses `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`.
fn address(text: &str) -> ForwardedHop {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let plain = bare.unwrap_or(text).parse();
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    plain.or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        headers
    }

    fn chain(hops: &[&str]) -> ForwardedChain {
        ForwardedChain::Hops(hops.iter().map(|hop| hop.parse().ok()).collect())
    }

    #[test]
    fn the_nearest_hop_of_x_forwarded_for_comes_first() {
        for (lines, expected) in [
            (&["192.0.2.1"][..], &["192.0.2.1"][..]),
            (&["192.0.2.1, 10.0.0.1"], &["10.0.0.1", "192.0.2.1"]),
            (&["192.0.2.1", "10.0.0.1"], &["10.0.0.1", "192.0.2.1"]),
            (
                &["192.0.2.1:80,[2001:db8::1]"],
                &["2001:db8::1", "192.0.2.1"],
            ),
            (
                &["2001:db8::1,[2001:db8::2]:9"],
                &["2001:db8::2", "2001:db8::1"],
            ),
            (&["made up, 192.0.2.1,"], &["-", "192.0.2.1", "-"]),
            (&["unknown"], &["-"]),
            (&[""], &["-"]),
        ] {
            let found = x_forwarded_for(&headers("x-forwarded-for", lines));
            assert_eq!(found, chain(expected), "{lines:?}");
        }
        assert_eq!(x_forwarded_for(&HeaderMap::new()), ForwardedChain::None);
    }

    #[test]
    fn forwarded_is_parsed_as_in_rfc_7239() {
        for (lines, expected) in [
            (&["for=192.0.2.43"][..], &["192.0.2.43"][..]),
            (
                &["For=\"[2001:db8:cafe::17]:4711\""],
                &["2001:db8:cafe::17"],
            ),
            (
                &["for=192.0.2.60;proto=http; by=203.0.113.43"],
                &["192.0.2.60"],
            ),
            (
                &["for=192.0.2.43, for=198.51.100.17"],
                &["198.51.100.17", "192.0.2.43"],
            ),
            (
                &["for=192.0.2.43", "for=198.51.100.17;by=_x"],
                &["198.51.100.17", "192.0.2.43"],
            ),
            (
                &["for=_hidden, for=unknown, by=203.0.113.43"],
                &["-", "-", "-"],
            ),
            // A comma within quotes ends no element.
            (&["for=192.0.2.1;host=\"a,for=6.6.6.6\""], &["192.0.2.1"]),
            (
                &["for=192.0.2.1;host=\"a\\\",for=6.6.6.6\""],
                &["192.0.2.1"],
            ),
        ] {
            let found = forwarded(&headers("forwarded", lines));
            assert_eq!(found, chain(expected), "{lines:?}");
        }
    }

    #[test]
    fn a_malformed_header_is_invalid_as_a_whole() {
        for line in [
            "host=\"a, for=192.0.2.1",
            "for=192.0.2.1;for=192.0.2.2",
            "for",
            "for=",
            "for=192.0.2.1;",
            "for=192.0.2.1,",
            ", for=192.0.2.1",
            "for=a b",
            "for=[2001:db8::1]",
            "for=\"192.0.2.1\"x",
            "",
        ] {
            let found = forwarded(&headers("forwarded", &[line]));
            assert_eq!(found, ForwardedChain::Invalid, "{line:?}");
        }
        let open = ["host=\"a", "for=192.0.2.1"];
        assert_eq!(
            forwarded(&headers("forwarded", &open)),
            ForwardedChain::Invalid
        );
    }
}
