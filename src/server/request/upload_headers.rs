//! Headers of an upload: whether its body is the whole backup, as the app will read it again.
//!
//! The server stores the bytes of the body. Where a header says that they are a part of the backup
//! (RFC 9110 §14.5), or another form of it (RFC 9110 §8.4), a restore would return what no app can
//! open, with a status that the app takes for success. No app sends any of these headers.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use crate::server::request::reply::Reject;

/// Headers of which any value means a part: `Content-Range` (RFC 9110 §14.5), `X-Content-Range`
/// (nginx's upload module), `X-Update-Range` (SabreDAV), tus and its successor at the IETF,
/// ownCloud's two kinds of chunks.
const PARTIAL: [&str; 8] = [
    "content-range",
    "x-content-range",
    "x-update-range",
    "upload-offset",
    "upload-defer-length",
    "tus-resumable",
    "oc-chunked",
    "oc-chunk-offset",
];

/// Headers with the length of the whole, in bytes, which the body has to have: tus, ownCloud,
/// Google, Amazon.
const TOTAL_LENGTH: [&str; 4] = [
    "upload-length",
    "oc-total-length",
    "x-upload-content-length",
    "x-amz-decoded-content-length",
];

/// Whether the body of an upload of `length` bytes is the whole backup, unencoded.
///
/// # Errors
/// [`Reject::Partial`] if it is a part or may be one, [`Reject::UnsupportedMedia`] if it has a
/// content coding or is an envelope of other bodies.
pub(super) fn check(headers: &HeaderMap, length: Option<u64>) -> Result<(), Reject> {
    if PARTIAL.iter().any(|name| headers.contains_key(*name)) {
        return Err(Reject::Partial);
    }
    let is_total = |value: &HeaderValue| {
        let number = value.to_str().ok().and_then(|text| text.parse().ok());
        length.is_none() || number == length
    };
    let mut totals = TOTAL_LENGTH.iter().flat_map(|name| headers.get_all(*name));
    if !totals.all(is_total) {
        return Err(Reject::Partial);
    }
    // `Upload-Incomplete` is the name in the first drafts of the IETF's resumable uploads.
    for (name, complete) in [("upload-complete", true), ("upload-incomplete", false)] {
        let mut values = headers.get_all(name).iter();
        match (values.next().map(boolean), values.next()) {
            (None, _) => {}
            (Some(Some(value)), None) if value == complete => {}
            // Also two lines, which are no boolean (RFC 9651 §4.2).
            (Some(_), _) => return Err(Reject::Partial),
        }
    }
    let is_plain = |element: &[u8]| element.is_empty() || element == b"identity";
    let is_binary = |element: &[u8]| [&b"binary"[..], b"8bit", b"7bit"].contains(&element);
    let plain = elements(headers, CONTENT_ENCODING.as_str()).all(|coding| is_plain(&coding))
        // A header of MIME that HTTP does not have, but some senders do.
        && elements(headers, "content-transfer-encoding").all(|coding| is_binary(&coding))
        && !elements(headers, CONTENT_TYPE.as_str()).any(|media| is_envelope(&media));
    if plain {
        Ok(())
    } else {
        Err(Reject::UnsupportedMedia)
    }
}

/// The comma-separated elements of all lines of a header, trimmed and in lower case.
fn elements(headers: &HeaderMap, name: &str) -> impl Iterator<Item = Vec<u8>> {
    let lines = headers.get_all(name).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|element| element.trim_ascii().to_ascii_lowercase())
}

/// Whether a body of this media type contains the backup, or a part of it, besides other bytes.
fn is_envelope(media: &[u8]) -> bool {
    let end = media.iter().position(|byte| *byte == b';');
    let name = media.split_at(end.unwrap_or(media.len())).0.trim_ascii();
    name.starts_with(b"multipart/")
        || [
            &b"application/partial-upload"[..],
            b"application/x-sabredav-partialupdate",
            b"message/byteranges",
            b"message/external-body",
            b"message/partial",
        ]
        .contains(&name)
}

/// Parses a boolean item of a structured field (RFC 9651 §4.2.8), whose parameters are ignored;
/// `None` if it is none.
fn boolean(value: &HeaderValue) -> Option<bool> {
    let text = value.to_str().ok()?.trim_matches(' ');
    let (item, parameters) = text
        .split_once(';')
        .map_or((text, None), |(item, rest)| (item, Some(rest.split(';'))));
    let is_key = |key: &str| {
        key.starts_with(|first: char| first.is_ascii_lowercase() || first == '*')
            && key.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
            })
    };
    let is_parameter = |parameter: &str| {
        let parameter = parameter.trim_start_matches(' ');
        match parameter.split_once('=') {
            None => is_key(parameter),
            Some((key, value)) => is_key(key) && !value.is_empty() && !value.contains(' '),
        }
    };
    if !parameters.into_iter().flatten().all(is_parameter) {
        return None;
    }
    match item {
        "?1" => Some(true),
        "?0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn checked(lines: &[(&str, &str)]) -> Result<(), Reject> {
        let lines = lines.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        check(&headers, Some(3))
    }

    #[test]
    fn what_apps_and_ordinary_clients_send_is_the_whole_backup() {
        for lines in [
            &[][..],
            &[("content-type", "application/octet-stream")],
            &[("content-type", "application/octet-stream; charset=UTF-8")],
            // curl --data-binary.
            &[("content-type", "application/x-www-form-urlencoded")],
            &[("content-type", "")],
            &[("content-encoding", "identity")],
            &[("content-encoding", "Identity, , identity")],
            &[("content-encoding", "")],
            &[("content-transfer-encoding", "BINARY")],
            &[("upload-complete", "?1")],
            &[("upload-complete", " ?1;a;b=2; *c=\"x\" ")],
            &[("upload-incomplete", "?0")],
            &[
                ("upload-complete", "?1"),
                ("upload-draft-interop-version", "6"),
                ("upload-length", "3"),
            ],
            &[("x-oc-mtime", "1700000000"), ("oc-total-length", "3")],
            &[("accept-encoding", "gzip"), ("expect", "100-continue")],
        ] {
            assert_eq!(checked(lines), Ok(()), "{lines:?}");
        }
    }

    #[test]
    fn an_encoded_body_or_an_envelope_is_no_supported_media() {
        for line in [
            ("content-encoding", "gzip"),
            ("content-encoding", "GZIP"),
            ("content-encoding", "identity, br"),
            ("content-encoding", "identity;q=1"),
            ("content-encoding", "aws-chunked"),
            ("content-encoding", "\u{e9}"),
            ("content-transfer-encoding", "base64"),
            ("content-type", "multipart/form-data"),
            ("content-type", "Multipart/Form-Data; boundary=x"),
            ("content-type", "multipart/byteranges; boundary=x"),
            ("content-type", " multipart/x-unknown ;a=b"),
            (
                "content-type",
                "application/octet-stream, multipart/form-data",
            ),
            ("content-type", "application/partial-upload"),
            ("content-type", "APPLICATION/PARTIAL-UPLOAD;v=1"),
            ("content-type", "application/x-sabredav-partialupdate"),
            ("content-type", "message/byteranges"),
            ("content-type", "message/partial; number=1"),
        ] {
            assert_eq!(checked(&[line]), Err(Reject::UnsupportedMedia), "{line:?}");
            // Not only in the first line.
            let (name, _) = line;
            let plain = if name == "content-type" {
                "application/octet-stream"
            } else if name == "content-encoding" {
                "identity"
            } else {
                "binary"
            };
            assert_eq!(
                checked(&[(name, plain), line]),
                Err(Reject::UnsupportedMedia),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_part_or_what_cannot_be_told_from_one_is_refused() {
        for lines in [
            &[("content-range", "bytes 0-2/3")][..],
            &[("x-content-range", "bytes 0-2/9")],
            &[("x-update-range", "append")],
            &[("upload-offset", "0")],
            &[("upload-defer-length", "1")],
            &[("tus-resumable", "1.0.0")],
            &[("oc-chunked", "1")],
            &[("oc-chunk-offset", "0")],
            &[("upload-length", "4")],
            &[("oc-total-length", "x")],
            &[("upload-length", "3"), ("upload-length", "4")],
            &[("upload-complete", "?0")],
            &[("upload-complete", "?0;a")],
            &[("upload-incomplete", "?1")],
            &[("upload-complete", "?1"), ("upload-incomplete", "?1")],
            &[("upload-complete", "?1"), ("upload-complete", "?0")],
            &[("upload-complete", "?1"), ("upload-complete", "?1")],
        ] {
            assert_eq!(checked(lines), Err(Reject::Partial), "{lines:?}");
        }
        for invalid in [
            "", "1", "true", "?", "?2", "?1?1", "?1, ?1", "? 1", "(?1)", "?1;", "?1;A", "?1 x",
            "?1;a=", "?1 ;a", "\"?1\"", "?1\u{e9}",
        ] {
            for name in ["upload-complete", "upload-incomplete"] {
                assert_eq!(
                    checked(&[(name, invalid)]),
                    Err(Reject::Partial),
                    "{name}: {invalid}"
                );
            }
        }
    }
}
