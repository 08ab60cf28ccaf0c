//! Conditional requests (RFC 9110 §13): the supported headers, and their validation.

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The headers that are passed on to dav-server. Not among them: Range (every response is
/// complete), Content-Range and X-Update-Range (every upload is complete),
/// X-Expected-Entity-Length, X-Litmus, If (there are no locks).
pub(crate) const CONDITIONAL: [HeaderName; 4] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];

/// Whether a request has a condition.
pub(crate) fn is_conditional(headers: &HeaderMap) -> bool {
    CONDITIONAL.iter().any(|name| headers.contains_key(name))
}

/// Whether `If-Match` and `If-None-Match` are `*` or lists of entity tags (RFC 9110 §13.1).
/// dav-server panics on a single quotation mark, splits a tag at its commas (the tags of this
/// server have none), and ignores a condition that it cannot parse.
pub(crate) fn are_valid(headers: &HeaderMap) -> bool {
    let is_tag = |tag: &str| {
        let quoted = tag.strip_prefix("W/").unwrap_or(tag);
        let opaque = quoted
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        opaque.is_some_and(|opaque| !opaque.contains('"'))
    };
    let is_valid = |value: &HeaderValue| {
        value
            .to_str()
            .is_ok_and(|text| text.trim() == "*" || text.split(',').all(|tag| is_tag(tag.trim())))
    };
    [IF_MATCH, IF_NONE_MATCH]
        .iter()
        .flat_map(|name| headers.get_all(name))
        .all(is_valid)
}
