//! Conditional requests (RFC 9110 §13): the supported headers, and their validation.

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::server::request::if_header::IF;

/// The headers that are passed on to dav-server. Not among them: Range (every response is
/// complete), Content-Range and X-Update-Range (every upload is complete),
/// X-Expected-Entity-Length, X-Litmus, If (`if_header.rs`).
pub(crate) const CONDITIONAL: [HeaderName; 4] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];

/// Whether a request has a condition.
pub(crate) fn is_conditional(headers: &HeaderMap) -> bool {
    CONDITIONAL.iter().any(|name| headers.contains_key(name)) || headers.contains_key(IF)
}

/// The value of a valid condition as dav-server has to see it, which compares weak tags with none:
/// `If-None-Match` compares without regard to weakness (RFC 9110 §13.1.2), and a proxy that
/// compresses responses makes their tags weak.
pub(crate) fn for_dav_server(name: &HeaderName, value: &HeaderValue) -> HeaderValue {
    let is_weakness_ignored = name == IF_NONE_MATCH;
    let text = value.to_str().ok().filter(|_| is_weakness_ignored);
    let strong = text.and_then(|text| {
        let tags = text.split(',').map(str::trim);
        let tags: Vec<_> = tags
            .map(|tag| tag.strip_prefix("W/").unwrap_or(tag))
            .collect();
        tags.join(", ").parse().ok()
    });
    strong.unwrap_or_else(|| value.clone())
}

/// Whether `If-Match` and `If-None-Match` are `*` or lists of entity tags (RFC 9110 §13.1), in one
/// line or several. dav-server panics on a single quotation mark, splits a tag at its commas (the
/// tags of this server have none), and ignores a condition that it cannot parse.
pub(crate) fn are_valid(headers: &HeaderMap) -> bool {
    let is_tag = |tag: &str| {
        let quoted = tag.strip_prefix("W/").unwrap_or(tag);
        let opaque = quoted
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        opaque.is_some_and(|opaque| !opaque.contains('"'))
    };
    let is_list = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').all(|tag| is_tag(tag.trim())))
    };
    [IF_MATCH, IF_NONE_MATCH].iter().all(|name| {
        let mut lines = headers.get_all(name).iter();
        let is_star = |line: &HeaderValue| line.as_bytes().trim_ascii() == b"*";
        match (lines.next(), lines.next()) {
            (Some(line), None) if is_star(line) => true,
            _ => headers.get_all(name).iter().all(is_list),
        }
    })
}
