//! Conditions of requests (RFC 9110 §13): which there are, and whether one can be read.

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The headers that reach dav-server. Not among them: Range (every answer is whole), Content-Range and
/// X-Update-Range (every upload is whole), X-Expected-Entity-Length, X-Litmus, If (there are no locks).
pub(crate) const FORWARDED: [HeaderName; 4] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];

/// Whether a request is to be carried out under a condition only.
pub(crate) fn is_conditional(headers: &HeaderMap) -> bool {
    FORWARDED.iter().any(|name| headers.contains_key(name))
}

/// Whether `If-Match` and `If-None-Match` are `*` or lists of entity tags (RFC 9110 §13.1). dav-server panics on a
/// single quotation mark, divides a tag at its commas (this server's have none), and carries out a request as if there
/// were no condition if it cannot read one.
pub(crate) fn are_clear(headers: &HeaderMap) -> bool {
    let is_tag = |tag: &str| {
        let quoted = tag.strip_prefix("W/").unwrap_or(tag);
        let opaque = quoted
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        opaque.is_some_and(|opaque| !opaque.contains('"'))
    };
    let is_clear = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|text| text.trim() == "*" || text.split(',').all(|tag| is_tag(tag.trim())))
    };
    [IF_MATCH, IF_NONE_MATCH]
        .iter()
        .flat_map(|name| headers.get_all(name))
        .all(is_clear)
}
