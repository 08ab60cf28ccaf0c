//! The JSON inside a backup: identity, contacts, groups, settings.
//!
//! A document is kept as the bytes it was read from, so that nothing an app wrote is ever lost or
//! reordered; parsing only makes sure that it is one (schema `https://safe.threema.ch/schema/1.json`).

use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

/// The one version of the schema that exists; both apps refuse a higher one.
const SCHEMA_VERSION: u64 = 1;

/// Why some bytes are not a backup document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON at all, or a required part is missing or of another type.
    #[error("not the JSON of a backup (line {line}, column {column})")]
    Json {
        /// Line of the first error, from 1.
        line: usize,
        /// Column of the first error, from 1; 0 at the end of the text.
        column: usize,
    },
    /// `info.version` is not 1.
    #[error("schema version {0}, and version 1 is the one that is known")]
    Version(u64),
}

/// A backup document: the JSON text of one person's backup. Holds a private key; wiped when dropped,
/// and cannot be printed.
#[derive(Clone)]
pub struct Document {
    json: Zeroizing<Vec<u8>>,
}

/// The parts without which no app would restore a backup (all three roots and the private key are
/// required by the schema).
#[derive(Deserialize)]
struct Required {
    info: Info,
    #[serde(rename = "user")]
    _user: User,
    #[serde(rename = "settings")]
    _settings: std::collections::BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
struct Info {
    version: u64,
}

#[derive(Deserialize)]
struct User {
    #[serde(rename = "privatekey")]
    _private_key: IgnoredString,
}

/// A JSON string whose contents are not kept: the private key is not copied around.
struct IgnoredString;

impl<'de> Deserialize<'de> for IgnoredString {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = IgnoredString;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<IgnoredString, E> {
                Ok(IgnoredString)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl Document {
    /// Takes over the UTF-8 bytes of a document's JSON.
    ///
    /// # Errors
    /// When they are not JSON, or `info`, `user.privatekey` or `settings` is missing, or `info.version`
    /// is not 1.
    pub fn from_json(json: Zeroizing<Vec<u8>>) -> Result<Self, DocumentError> {
        let required: Required =
            serde_json::from_slice(&json).map_err(|error| DocumentError::Json {
                line: error.line(),
                column: error.column(),
            })?;
        if required.info.version != SCHEMA_VERSION {
            return Err(DocumentError::Version(required.info.version));
        }
        Ok(Self { json })
    }

    /// The JSON, exactly the bytes it was made from.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Document, DocumentError> {
        Document::from_json(Zeroizing::new(json.into()))
    }

    #[test]
    fn unknown_parts_are_kept_to_the_byte() {
        let json = r#" { "future": [1, 2.50], "settings": {}, "user": {"privatekey": "AA=="}, "info": {"version": 1} } "#;
        assert_eq!(parse(json).unwrap().json(), json.as_bytes());
    }

    #[test]
    fn a_missing_part_or_a_newer_version_is_an_error() {
        let whole = r#"{"info":{"version":1},"user":{"privatekey":"AA=="},"settings":{}}"#;
        assert!(parse(whole).is_ok());
        for part in [
            r#""info":{"version":1},"#,
            r#""privatekey":"AA==""#,
            r#","settings":{}"#,
        ] {
            let missing = whole.replace(part, "");
            assert!(
                matches!(parse(&missing), Err(DocumentError::Json { .. })),
                "{missing}"
            );
        }
        assert_eq!(
            parse(&whole.replace(":1}", ":2}")).err(),
            Some(DocumentError::Version(2))
        );
    }
}
