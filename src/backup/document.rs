//! The document inside a backup: its JSON to the byte ([`Document`]), and typed ([`Contents`]).
//!
//! Any JSON object is a document, also one that no app could restore: whoever holds the password gets
//! back what is there. What the apps make of it is told by `validate.rs`.
//!
//! The schema is `https://safe.threema.ch/schema/1.json`, as Threema for Android 6.4.2 and Threema for
//! iOS 7.2 write and read it. Times are milliseconds since 1970-01-01 UTC. Base64 is the standard
//! alphabet with padding, without line breaks. A Threema ID matches `[0-9A-Z*][0-9A-Z]{7}`. Fields
//! stand in the order in which Android writes them; iOS has no order.

use std::io::{self, Write};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::field::{Field, Json, SecretString, Unknown};

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
    /// Arrays and objects within each other, more than a parser should have to remember.
    #[error("nested deeper than {MAX_LEVELS} levels")]
    TooDeep,
}

/// The most levels of a document, itself the first (RFC 8259 §9 allows a bound). The parser keeps a byte
/// for each, and a small bomb inflates to millions.
const MAX_LEVELS: usize = 16_384;

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
    /// When they are not a JSON object, or one that is nested deeper than 16,384 levels.
    pub fn from_json(json: Zeroizing<Vec<u8>>) -> Result<Self, DocumentError> {
        let text = str::from_utf8(&json).map_err(|error| {
            let (line, column) = position(&json, error.valid_up_to());
            DocumentError::NotJson { line, column }
        })?;
        // Most documents have fewer brackets than that, and counting those is quick.
        if count(&json, is_bracket) > MAX_LEVELS && nesting_depth(&json) > MAX_LEVELS {
            return Err(DocumentError::TooDeep);
        }
        // Nothing is kept of it: reading allocates a byte for each level.
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

    /// The document, typed. Where a key stands twice, the last one counts, as on Android. A whole number
    /// beyond 64 bits becomes the nearest double. (The parser's own buffer, through which a text with `\/`
    /// goes, is not wiped.)
    ///
    /// # Errors
    /// When it holds more than a million values or cannot be held: nested deeper than 127 levels, a
    /// number beyond what a double can hold, or half a character (a lone surrogate) in a text. No app
    /// writes such a document.
    pub fn contents(&self) -> Result<Contents, ContentsError> {
        // Each value but the first stands behind one of these. Counted first, because a small bomb
        // inflates to millions of values, each of which takes hundreds of bytes here. The names of a
        // person's contacts may hold them too.
        let is_separator = |byte| is_bracket(byte) || byte == b',';
        if count(&self.json, is_separator) > MAX_VALUES
            && outside_strings(&self.json)
                .filter(|&byte| is_separator(byte))
                .count()
                > MAX_VALUES
        {
            return Err(ContentsError::TooMany);
        }
        serde_json::from_slice(&self.json)
            .and_then(|value: Value| serde_json::from_value(value))
            .map_err(|error| ContentsError::Unreadable {
                line: error.line(),
                column: error.column(),
            })
    }
}

/// The most values in contents. A person with 50,000 contacts has about 750,000.
const MAX_VALUES: usize = 1_000_000;

/// Why a document cannot be taken apart, though it is JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// More values than any app writes.
    #[error("more than {MAX_VALUES} values")]
    TooMany,
    /// Something that this program cannot hold.
    #[error(
        "nested deeper than 127 levels, a number beyond all bounds, or half a character (line {line}, column {column})"
    )]
    Unreadable {
        /// Line of the first error, from 1.
        line: usize,
        /// Column of the first error, from 1.
        column: usize,
    },
}

/// Declares objects of the schema: every field may be absent, `null` or of another type, and fields
/// that are not listed are kept.
macro_rules! objects {
    ($(
        $(#[$about:meta])*
        $object:ident {
            $( $(#[$attribute:meta])* $name:ident: $type:ty, )*
        }
    )*) => {$(
        $(#[$about])*
        #[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $object {
            $(
                $(#[$attribute])*
                #[serde(skip_serializing_if = "Field::is_absent")]
                pub $name: Field<$type>,
            )*
            /// What is not in the schema. Both apps ignore it.
            #[serde(flatten)]
            pub unknown: Unknown,
        }

        impl Json for $object {
            const TYPE: &'static str = "an object";
            fn has_type_of(value: &Value) -> bool {
                value.is_object()
            }
        }
    )*};
}

/// A list whose items may have a wrong type.
pub type List<T> = Vec<Field<T>>;

objects! {
    /// The whole document. `info`, `user` and `settings` are required.
    Contents {
        /// Which schema this is.
        info: Info,
        /// The person.
        user: User,
        /// Android always writes the list and restores no groups without it; iOS omits an empty one.
        contacts: List<Box<Contact>>,
        /// iOS omits an empty one.
        groups: List<Box<Group>>,
        /// Android only.
        #[serde(rename = "distributionlists")]
        distribution_lists: List<Box<DistributionList>>,
        /// Switches, and lists of Threema IDs.
        settings: Settings,
    }

    /// Which schema this is, and who wrote it.
    Info {
        /// Required: 1. Android refuses a higher one, iOS any other.
        version: u64,
        /// Android: version, `A/` and locale, such as `6.4.2A/de_CH`. iOS: `ios`. No app reads it.
        device: String,
    }

    /// The person.
    User {
        /// Required: the identity's private key, base64 of 32 bytes.
        #[serde(rename = "privatekey")]
        private_key: SecretString,
        /// The name that the person chose, at most 32 bytes of UTF-8.
        nickname: String,
        /// The profile picture, base64 of a JPEG of at most 400 × 400 pixels (iOS: or as it was).
        #[serde(rename = "profilePic")]
        profile_picture: String,
        /// Who gets the picture: `["*"]` everyone, `[null]` nobody, otherwise Threema IDs. Android
        /// writes it only beside a picture; iOS leaves it out for nobody.
        #[serde(rename = "profilePicRelease")]
        profile_picture_release: List<String>,
        /// Telephone number and email address that are linked to the identity. iOS omits an empty list.
        links: List<Box<Link>>,
        /// iOS, in backups for linking a device only: the device group key, base64.
        #[serde(rename = "temporaryDeviceGroupKeyTodoRemove")]
        device_group_key: SecretString,
    }

    /// A telephone number or an email address that is linked to the identity.
    Link {
        /// `mobile` or `email`.
        #[serde(rename = "type")]
        kind: String,
        /// iOS only, always empty.
        name: String,
        /// The number in E.164 without `+`, or the address.
        value: String,
    }

    /// A contact.
    Contact {
        /// The Threema ID.
        identity: String,
        /// Base64 of 32 bytes; only where `verification` is 2, or the identity was revoked.
        #[serde(rename = "publickey")]
        public_key: String,
        /// When it was added; 0 if that is not known.
        #[serde(rename = "createdAt")]
        created_at: u64,
        /// 0 unverified, 1 verified by the server, 2 verified in person.
        verification: u64,
        /// Whether it belongs to the same Threema Work organisation.
        #[serde(rename = "workVerified")]
        work_verified: bool,
        /// Whether the list of contacts leaves it out.
        hidden: bool,
        /// First name, as the person entered it.
        #[serde(rename = "firstname")]
        first_name: String,
        /// Last name, as the person entered it.
        #[serde(rename = "lastname")]
        last_name: String,
        /// The nickname that the contact chose.
        nickname: String,
        /// When something was last written to or by it; `null` or absent: never.
        #[serde(rename = "lastUpdate")]
        last_update: u64,
        /// 0 as set for all, 1 send, 2 do not send.
        #[serde(rename = "typingIndicators")]
        typing_indicators: u64,
        /// 0 as set for all, 1 send, 2 do not send.
        #[serde(rename = "readReceipts")]
        read_receipts: u64,
        /// Whether the chat is protected by the app's PIN.
        private: bool,
    }

    /// A group.
    Group {
        /// 16 lowercase hexadecimal digits: 8 bytes.
        id: String,
        /// The Threema ID of who made it.
        creator: String,
        /// Its name.
        #[serde(rename = "groupname")]
        name: String,
        /// When it was made; iOS always writes 0.
        #[serde(rename = "createdAt")]
        created_at: u64,
        /// Threema IDs. The person's own is among them unless they left.
        members: List<String>,
        /// Always false; Android skips the group if not.
        deleted: bool,
        /// When something was last written; `null` or absent: never.
        #[serde(rename = "lastUpdate")]
        last_update: u64,
        /// Whether the chat is protected by the app's PIN.
        private: bool,
    }

    /// A distribution list: messages to several people, one by one. Android only.
    DistributionList {
        /// 16 lowercase hexadecimal digits: an unsigned number of 8 bytes, little end first.
        id: String,
        /// Its name.
        name: String,
        /// When it was made.
        #[serde(rename = "createdAt")]
        created_at: u64,
        /// Threema IDs.
        members: List<String>,
        /// When something was last written; `null` or absent: never.
        #[serde(rename = "lastUpdate")]
        last_update: u64,
        /// Whether the chat is protected by the app's PIN.
        private: bool,
    }

    /// Settings of the app. What is absent is false, except where it says true.
    Settings {
        /// Whether the address book is matched with the directory. iOS requires it.
        #[serde(rename = "syncContacts")]
        sync_contacts: bool,
        /// Whether messages of strangers are dropped.
        #[serde(rename = "blockUnknown")]
        block_unknown: bool,
        /// Whether others see that one types (absent: true).
        #[serde(rename = "sendTyping")]
        send_typing: bool,
        /// Whether others see that one has read (absent: true).
        #[serde(rename = "readReceipts")]
        read_receipts: bool,
        /// Whether calls are possible (absent: true).
        #[serde(rename = "threemaCalls")]
        calls: bool,
        /// Whether calls always go through a server.
        #[serde(rename = "relayThreemaCalls")]
        relay_calls: bool,
        /// Android only.
        #[serde(rename = "disableScreenshots")]
        disable_screenshots: bool,
        /// Android only.
        #[serde(rename = "incognitoKeyboard")]
        incognito_keyboard: bool,
        /// Threema IDs.
        #[serde(rename = "blockedContacts")]
        blocked_contacts: List<String>,
        /// Threema IDs, as Android spells the key.
        #[serde(rename = "syncExcludedIds")]
        sync_excluded_ids: List<String>,
        /// Threema IDs, as iOS spells the key. Neither app reads the other's.
        #[serde(rename = "syncExcludedIDs")]
        sync_excluded_ids_ios: List<String>,
        /// Android only.
        #[serde(rename = "recentEmojis")]
        recent_emojis: List<String>,
    }
}

impl Contents {
    /// The document of these contents, compact and with `\/` for `/`, as both apps write it.
    ///
    /// # Panics
    /// Never: everything in it can be written as JSON.
    #[must_use]
    pub fn to_document(&self) -> Document {
        // Measured first: a buffer that grows leaves copies of the private key behind.
        let mut counter = ByteCounter(0);
        self.write(&mut counter);
        let mut json = Zeroizing::new(Vec::with_capacity(counter.0));
        self.write(&mut *json);
        Document { json }
    }

    fn write(&self, into: impl Write) {
        let mut serializer = serde_json::Serializer::with_formatter(into, EscapeSlashes);
        self.serialize(&mut serializer)
            .expect("strings, numbers and lists can be written into memory");
    }

    /// Takes out what nobody else may know: the private key, and the device group key.
    pub fn redact(&mut self) {
        match &mut self.user {
            Field::Is(user) => {
                user.private_key = Field::Absent;
                user.device_group_key = Field::Absent;
            }
            // Whatever stands there instead of a user may be the key.
            Field::Absent | Field::Null | Field::Other(_) => self.user = Field::Absent,
        }
    }

    /// The latest time in it, in milliseconds since 1970: of a contact, a group or a distribution list.
    #[must_use]
    pub fn newest_entry(&self) -> Option<u64> {
        let contacts = self.contacts.items().filter_map(Field::get);
        let groups = self.groups.items().filter_map(Field::get);
        let lists = self.distribution_lists.items().filter_map(Field::get);
        let times = contacts
            .map(|contact| [&contact.created_at, &contact.last_update])
            .chain(groups.map(|group| [&group.created_at, &group.last_update]))
            .chain(lists.map(|list| [&list.created_at, &list.last_update]));
        times
            .flatten()
            .filter_map(Field::get)
            .copied()
            .max()
            .filter(|&time| time > 0)
    }
}

/// Counts what is written.
struct ByteCounter(usize);

impl Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compact JSON with `\/` for `/`.
struct EscapeSlashes;

impl serde_json::ser::Formatter for EscapeSlashes {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for (number, part) in fragment.split('/').enumerate() {
            if number > 0 {
                writer.write_all(br"\/")?;
            }
            writer.write_all(part.as_bytes())?;
        }
        Ok(())
    }
}

/// Whether a level of arrays and objects begins here, outside texts.
fn is_bracket(byte: u8) -> bool {
    matches!(byte, b'[' | b'{')
}

fn count(json: &[u8], is_one: impl Fn(u8) -> bool) -> usize {
    json.iter().filter(|byte| is_one(**byte)).count()
}

/// How many arrays and objects stand within each other at the most.
fn nesting_depth(json: &[u8]) -> usize {
    let (mut level, mut deepest) = (0_usize, 0);
    for byte in outside_strings(json) {
        if is_bracket(byte) {
            level += 1;
            deepest = deepest.max(level);
        } else if matches!(byte, b']' | b'}') {
            level = level.saturating_sub(1);
        }
    }
    deepest
}

/// The bytes of JSON that are not part of a text.
fn outside_strings(json: &[u8]) -> impl Iterator<Item = u8> {
    let (mut in_string, mut is_escaped) = (false, false);
    json.iter().copied().filter(move |&byte| {
        let is_outside = !in_string && byte != b'"';
        if byte == b'"' && !is_escaped {
            in_string = !in_string;
        }
        is_escaped = in_string && byte == b'\\' && !is_escaped;
        is_outside
    })
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
    fn what_is_unknown_absent_null_or_wrong_survives_at_every_level() {
        let json = r#"{
            "info": {"version": "1", "new": [1, {"a": null}]},
            "user": {"privatekey": 7, "links": [{"type": null, "x": 1.5}, null, 3], "profilePicRelease": [null]},
            "contacts": [{"identity": "ECHOECHO", "lastUpdate": null, "later": {"b": [-1]}}, "odd"],
            "groups": {"not": "a list"},
            "distributionlists": [{"members": [null, 1, "ECHOECHO"], "y": ""}],
            "settings": {"syncContacts": 0, "locationPreviews": false},
            "another": 18446744073709551615
        }"#;
        let document = parse(json.as_bytes()).unwrap();

        let written = document.contents().unwrap().to_document();

        let value = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap();
        assert_eq!(value(written.json()), value(json.as_bytes()));
    }

    #[test]
    fn contents_are_written_compactly_with_escaped_slashes_in_androids_order() {
        let json = r#"{"z":"/","user":{"nickname":"a/b","privatekey":"/"},"info":{"device":"6A/de","version":1}}"#;

        let written = parse(json.as_bytes()).unwrap().contents().unwrap();

        assert_eq!(
            str::from_utf8(written.to_document().json()).unwrap(),
            r#"{"info":{"version":1,"device":"6A\/de"},"user":{"privatekey":"\/","nickname":"a\/b"},"z":"\/"}"#
        );
    }

    #[test]
    fn redacting_takes_the_keys_out_and_nothing_else() {
        for (json, expected) in [
            (
                r#"{"user":{"privatekey":"k","nickname":"n","temporaryDeviceGroupKeyTodoRemove":"k"}}"#,
                r#"{"user":{"nickname":"n"}}"#,
            ),
            (r#"{"user":{"private\u006bey":["k"]}}"#, r#"{"user":{}}"#),
            (r#"{"user":"k","a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
        ] {
            let mut contents = parse(json.as_bytes()).unwrap().contents().unwrap();
            contents.redact();
            let redacted = contents.to_document();
            assert_eq!(str::from_utf8(redacted.json()).unwrap(), expected);
        }
    }

    #[test]
    fn contents_that_cannot_be_held_are_an_error() {
        for json in [
            "{\"a\":1e400}".to_owned(),
            format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)),
        ] {
            let contents = parse(json.as_bytes()).unwrap().contents();
            assert!(matches!(
                contents.err(),
                Some(ContentsError::Unreadable { .. })
            ));
        }
    }

    #[test]
    fn contents_have_a_bound() {
        let zeros = |count: usize| format!("{{\"contacts\":[{}0]}}", "0,".repeat(count - 1));
        let contents = |json: String| parse(json.as_bytes()).unwrap().contents();
        assert!(contents(zeros(MAX_VALUES - 1)).is_ok());
        assert_eq!(
            contents(zeros(MAX_VALUES)).err(),
            Some(ContentsError::TooMany)
        );
    }

    #[test]
    fn commas_and_brackets_in_a_text_are_no_values_and_no_levels() {
        let text = r#",[{\\\","#.repeat(MAX_VALUES);
        let document = parse(format!("{{\"user\":{{\"nickname\":\"{text}\"}}}}").as_bytes());
        let contents = document.unwrap().contents().unwrap();
        let nickname = &contents.user.get().unwrap().nickname;
        assert!(nickname.get().unwrap().starts_with(",[{\\\",,[{"));
    }

    #[test]
    fn levels_have_a_bound() {
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
            parse(format!("{{\"a\":[{{}},\"\\\"[\"],\"b\":{open}{close}}}").as_bytes())
        };
        assert!(nested(MAX_LEVELS).is_ok());
        assert_eq!(nested(MAX_LEVELS + 1).err(), Some(DocumentError::TooDeep));
        // Side by side they are no levels.
        let flat = format!("{{\"a\":[{}0]}}", "[],".repeat(2 * MAX_LEVELS));
        assert!(parse(flat.as_bytes()).is_ok());
    }

    #[test]
    fn the_newest_entry_is_the_latest_time_anywhere() {
        let newest = |json: &str| {
            parse(json.as_bytes())
                .unwrap()
                .contents()
                .unwrap()
                .newest_entry()
        };
        for (json, expected) in [
            (
                r#"{"contacts":[{"createdAt":5,"lastUpdate":null},{"createdAt":3,"lastUpdate":4}]}"#,
                Some(5),
            ),
            (
                r#"{"contacts":[{"createdAt":5}],"groups":[{"lastUpdate":6}]}"#,
                Some(6),
            ),
            (
                r#"{"distributionlists":[{"lastUpdate":7}],"groups":[{"lastUpdate":6}]}"#,
                Some(7),
            ),
            (r#"{"contacts":[{"createdAt":0}],"groups":[3]}"#, None),
            ("{}", None),
        ] {
            assert_eq!(newest(json), expected, "{json}");
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
