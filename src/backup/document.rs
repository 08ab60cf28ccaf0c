//! The JSON inside a backup, as the bytes it was read from: nothing that an app wrote is lost,
//! reordered or rounded.
//!
//! Any JSON object is a document, also one that no app could restore: whoever holds the password gets
//! back what is there. What the apps make of it is the business of `contents.rs` and `validate.rs`.

use serde::de::IgnoredAny;
use zeroize::Zeroizing;

/// Why some bytes are not a backup document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON in UTF-8 (RFC 8259).
    #[error("not JSON (line {line}, column {column})")]
    NotJson {
        /// Line of the first error, from 1.
        line: usize,
        /// Column of the first error, from 1; 0 at the end of the text.
        column: usize,
    },
    /// JSON, but an array, a string, a number, `true`, `false` or `null`.
    #[error("JSON, but not an object")]
    NotAnObject,
}

/// A backup document: the JSON text of one person's backup. Holds a private key; wiped when dropped,
/// and cannot be printed.
#[derive(Clone)]
pub struct Document {
    json: Zeroizing<Vec<u8>>,
}

impl Document {
    /// Takes over the UTF-8 bytes of a document's JSON.
    ///
    /// # Errors
    /// When they are not a JSON object.
    pub fn from_json(json: Zeroizing<Vec<u8>>) -> Result<Self, DocumentError> {
        let text = str::from_utf8(&json).map_err(|error| {
            let (line, column) = position(&json, error.valid_up_to());
            DocumentError::NotJson { line, column }
        })?;
        // Nothing is kept of it: reading allocates nothing.
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| DocumentError::NotJson {
            line: error.line(),
            column: error.column(),
        })?;
        if text.trim_ascii_start().starts_with('{') {
            Ok(Self { json })
        } else {
            Err(DocumentError::NotAnObject)
        }
    }

    /// The JSON, exactly the bytes it was made from.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

/// Line and column, each from 1, of the byte at `offset`.
fn position(text: &[u8], offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let lines = before.split(|&byte| byte == b'\n');
    lines.fold((0, 0), |(line, _), last| (line + 1, last.len() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &[u8]) -> Result<Document, DocumentError> {
        Document::from_json(Zeroizing::new(json.into()))
    }

    #[test]
    fn a_document_is_kept_to_the_byte() {
        for json in [
            r#" { "future": [1, 2.50, 1e400], "b": 1, "a": 2, "a": 3 } "#,
            "{}",
            "\n\t{}\r\n",
            &format!("{{\"deep\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000)),
        ] {
            assert_eq!(parse(json.as_bytes()).unwrap().json(), json.as_bytes());
        }
    }

    #[test]
    fn what_is_not_json_says_where() {
        for (json, line, column) in [
            (&b""[..], 1, 0),
            (b"{\n \"a\": nul }", 2, 10),
            (b"{} x", 1, 4),
            (b"{\n\"a\":\"\xff\"}", 2, 6),
            (b"\xff", 1, 1),
        ] {
            let error = parse(json).err().unwrap();
            assert_eq!(error, DocumentError::NotJson { line, column });
        }
    }

    #[test]
    fn other_json_is_not_a_document() {
        for json in ["[]", "1", "\"{}\"", "null", " true"] {
            let error = parse(json.as_bytes()).err();
            assert_eq!(error, Some(DocumentError::NotAnObject), "{json}");
        }
    }
}
