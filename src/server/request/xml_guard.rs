//! Limits on the XML of PROPFIND bodies, checked before the parser runs.
//!
//! The parser behind dav-server recurses for every nested element: a few kilobytes of them crash
//! the process (eminence/xmltree-rs#58). So this guard counts the depth on the bytes, and refuses
//! syntax that no PROPFIND needs (comments, CDATA, DOCTYPE).

/// The maximum nesting depth of elements. A PROPFIND needs three.
const MAX_DEPTH: usize = 16;

/// Whether the body is safe to parse.
pub(crate) fn is_harmless(body: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut bytes = body.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'<' {
            continue;
        }
        let opens = match bytes.peek() {
            Some(b'!') | None => return false,
            Some(b'?' | b'/') => false,
            Some(_) => true,
        };
        let closes = bytes.peek() == Some(&b'/');
        // Skips to the end of the tag; a quoted value may contain any character.
        let mut quote = None;
        let mut last = 0;
        loop {
            let Some(byte) = bytes.next() else {
                return false;
            };
            match quote {
                Some(open) if byte == open => quote = None,
                Some(_) => {}
                None if byte == b'"' || byte == b'\'' => quote = Some(byte),
                None if byte == b'<' => return false,
                None if byte == b'>' => break,
                None => {}
            }
            last = byte;
        }
        if closes {
            depth = depth.saturating_sub(1);
        } else if opens && last != b'/' {
            depth += 1;
        }
        if depth > MAX_DEPTH {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_real_clients_are_harmless() {
        for good in [
            "",
            r#"<?xml version="1.0"?><d:propfind xmlns:d='DAV:'><d:prop><d:displayname/><d:getetag /></d:prop></d:propfind>"#,
            &"<a></a>".repeat(100),
            r#"<a b="</>>" c='"'></a>"#,
        ] {
            assert!(is_harmless(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn deep_nesting_and_syntax_that_could_hide_it_are_refused() {
        for bad in [
            &"<a>".repeat(17) as &str,
            &r#"<a b="/>">"#.repeat(17),
            &"<a b='/'>".repeat(17),
            "<!DOCTYPE a><a/>",
            "<a><!-- --></a>",
            "<a><![CDATA[</a>]]></a>",
            "<a <b>>",
            "<a",
            "<",
        ] {
            assert!(!is_harmless(bad.as_bytes()), "{bad}");
        }
    }
}
