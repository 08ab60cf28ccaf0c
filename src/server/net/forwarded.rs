//! What proxies write about where a request comes from: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Strict: a header that is not written as it should be says nothing, as whoever sent the first part of it may have
//! meant to hide the last. Written here because the crates for it divide at commas within quotes as well, so that a
//! request with a cunning `Host` could choose the address that is believed.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// One proxy's word for who was before it: an address, or (`unknown`, `_hidden`) that it does not say.
type Hop = Option<IpAddr>;

/// The hops of one kind of header, the nearest first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hops {
    /// There is no such header.
    None,
    /// It is not written as it should be.
    Unclear,
    These(Vec<Hop>),
}

/// The hops that `X-Forwarded-For` names.
pub(crate) fn x_forwarded_for(headers: &HeaderMap) -> Hops {
    hops(headers, &X_FORWARDED_FOR, |line, hops| {
        for part in line.split(',') {
            hops.push(address(part.trim()));
        }
        Some(())
    })
}

/// The hops that `Forwarded` names.
pub(crate) fn forwarded(headers: &HeaderMap) -> Hops {
    hops(headers, &header::FORWARDED, |line, hops| {
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

fn hops(
    headers: &HeaderMap,
    name: &HeaderName,
    read: impl Fn(&str, &mut Vec<Hop>) -> Option<()>,
) -> Hops {
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Hops::None;
    }
    let mut hops = Vec::new();
    let all = lines.try_for_each(|line: &HeaderValue| read(line.to_str().ok()?, &mut hops));
    if all.is_none() {
        return Hops::Unclear;
    }
    hops.reverse();
    Hops::These(hops)
}

/// Reads `for=192.0.2.1;proto=https` up to the comma behind it or the end.
fn element(text: &str) -> Option<(Hop, &str)> {
    let mut hop = None;
    let mut rest = text;
    loop {
        let (name, after) = rest.trim_start_matches([' ', '\t']).split_once('=')?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let (value, after) = value(after)?;
        if name.eq_ignore_ascii_case("for") {
            // Twice is once too often.
            if hop.replace(address(&value)).is_some() {
                return None;
            }
        }
        let after = after.trim_start_matches([' ', '\t']);
        match after.strip_prefix(';') {
            Some(more) => rest = more,
            // An element without `for` hides who was there.
            None => return Some((hop.flatten(), after)),
        }
    }
}

/// Reads a token or a quoted string; what it means, and what follows.
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

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:4711`.
fn address(text: &str) -> Hop {
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

    fn these(hops: &[&str]) -> Hops {
        Hops::These(hops.iter().map(|hop| hop.parse().ok()).collect())
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
            assert_eq!(found, these(expected), "{lines:?}");
        }
        assert_eq!(x_forwarded_for(&HeaderMap::new()), Hops::None);
    }

    #[test]
    fn forwarded_is_read_as_it_is_written_in_rfc_7239() {
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
            // A comma within quotes ends nothing.
            (&["for=192.0.2.1;host=\"a,for=6.6.6.6\""], &["192.0.2.1"]),
            (
                &["for=192.0.2.1;host=\"a\\\",for=6.6.6.6\""],
                &["192.0.2.1"],
            ),
        ] {
            let found = forwarded(&headers("forwarded", lines));
            assert_eq!(found, these(expected), "{lines:?}");
        }
    }

    #[test]
    fn whoever_leaves_a_quote_open_hides_nobody() {
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
            assert_eq!(found, Hops::Unclear, "{line:?}");
        }
        let open = ["host=\"a", "for=192.0.2.1"];
        assert_eq!(forwarded(&headers("forwarded", &open)), Hops::Unclear);
    }
}
