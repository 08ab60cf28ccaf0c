//! Strict parser of HTTP/1.1 responses, to compare them with the statuses in the server's log.

use crate::log::Line;

/// Checks that `bytes` are the responses to these requests, in order, followed by at most one
/// response of the HTTP library to a malformed request. With `cut`, the bytes may end anywhere.
///
/// # Panics
/// When the bytes are anything else.
pub fn check(bytes: &[u8], lines: &[Line], cut: bool) {
    let mut rest = bytes;
    for line in lines {
        let Some(status) = line.status else { continue };
        let Some(answer) = next(&mut rest, line.method == "HEAD") else {
            assert!(cut, "responses are missing: {}", printable(bytes));
            return;
        };
        assert_eq!(answer, status, "log and response differ: {}", printable(bytes));
    }
    if rest.is_empty() {
        return;
    }
    let refusal = next(&mut rest, false);
    assert!(
        refusal.is_some_and(|status| [400, 414, 431].contains(&status)) || cut,
        "a response without a request: {}",
        printable(bytes)
    );
    assert!(
        rest.is_empty(),
        "more bytes than responses: {}",
        printable(bytes)
    );
}

/// Takes the next final response from `rest` and returns its status; `None` if it is incomplete.
fn next(rest: &mut &[u8], to_head: bool) -> Option<u16> {
    loop {
        let (head, body) = split_once(rest, b"\r\n\r\n")?;
        let head = str::from_utf8(head).expect("the header of a response is text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(status_of);
        let status = status.unwrap_or_else(|| panic!("no status line: {head:?}"));
        assert!((100..600).contains(&status), "no status: {status}");
        let mut length = None;
        let mut chunked = false;
        for line in lines {
            let (name, value) = line
                .split_once(": ")
                .expect("a header has a name and a value");
            match name {
                "content-length" => length = value.parse::<usize>().ok(),
                "transfer-encoding" => chunked = value == "chunked",
                _ => {}
            }
        }
        *rest = body;
        if status < 200 {
            continue;
        }
        if to_head || [204, 304].contains(&status) {
            return Some(status);
        }
        *rest = match length {
            Some(length) => rest.get(length..)?,
            None if chunked => after_chunks(rest)?,
            // The body ends with the connection, for clients of HTTP/1.0.
            None => &[],
        };
        return Some(status);
    }
}

fn status_of(line: &str) -> Option<u16> {
    let rest = line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    rest.get(..3)?.parse().ok()
}

fn after_chunks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (size, data) = split_once(rest, b"\r\n")?;
        let size = str::from_utf8(size).ok()?;
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk is a number");
        rest = data.get(size..)?.strip_prefix(b"\r\n")?;
        if size == 0 {
            return Some(rest);
        }
    }
}

fn split_once<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let position = bytes.windows(mark.len()).position(|found| found == mark)?;
    Some((&bytes[..position], &bytes[position + mark.len()..]))
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
