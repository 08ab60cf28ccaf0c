//! The JSON document in a backup: its exact bytes ([`Document`]) and its typed form ([`Contents`]).
//!
//! Any JSON object is a document, even one that no app could restore, so that a user with the
//! password can read any backup. `validate.rs` describes how the apps read it.
//!
//! The schema is `https://safe.threema.ch/schema/1.json`, as Threema for Android 6.4.2 and Threema
//! for iOS 7.2 write and read it (docs/FORMAT.md §5). Times are milliseconds since 1970-01-01 UTC.
//! Base64 is the standard alphabet with padding, without line breaks. A Threema ID matches
//! `[0-9A-Z*][0-9A-Z]{7}`. Fields are in the order in which Android writes them; iOS has no order.

use std::io::{self, Write};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::field::{Field, Json, SecretString, Unknown};

/// Why some bytes are not a backup document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The bytes are not JSON in UTF-8 (RFC 8259).
    #[error("not JSON (line {line}, column {column})")]
    NotJson {
        /// Line of the first error, from 1.
        line: usize,
        /// Column of the first error, from 1; 0 at the end of the text.
        column: usize,
    },
    /// An array, a string, a number, `true`, `false` or `null` instead of an object.
    #[error("JSON, but not an object")]
    NotAnObject,
    /// Arrays and objects are nested deeper than the limit.
    #[error("nested deeper than {MAX_LEVELS} levels")]
    TooDeep,
}

/// The most levels of nesting in a document, the document itself being the first (RFC 8259 §9
/// allows a limit). The parser allocates a byte for each level, and a small gzip bomb inflates to
/// millions.
const MAX_LEVELS: usize = 16_384;

/// A backup document: the JSON text of one user's backup. Contains a private key: it is wiped from
/// memory when dropped, and has no `Debug` and no `Display`.
#[derive(Clone)]
pub struct Document {
    json: Zeroizing<Vec<u8>>,
}

impl Document {
    /// Takes ownership of a document's JSON, in UTF-8.
    ///
    /// # Errors
    /// When the bytes are not a JSON object, or one that is nested deeper than 16,384 levels.
    pub fn from_json(json: Zeroizing<Vec<u8>>) -> Result<Self, DocumentError> {
        let text = str::from_utf8(&json).map_err(|error| {
            let (line, column) = position(&json, error.valid_up_to());
            DocumentError::NotJson { line, column }
        })?;
        // Fast path: most documents have fewer brackets than that.
        if count(&json, is_bracket) > MAX_LEVELS && nesting_depth(&json) > MAX_LEVELS {
            return Err(DocumentError::TooDeep);
        }
        // The values are discarded: the parser allocates only a byte for each level.
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

    /// The JSON, byte for byte as the document was created from it.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Parses the document into its typed form. Of a duplicate key the last value counts, as on
    /// Android. An integer of more than 64 bits becomes the nearest double. (The parser's own
    /// buffer, which it uses for strings with `\/`, is not wiped.)
    ///
    /// # Errors
    /// When the document has more than a million values, is nested deeper than 127 levels, or
    /// contains a number beyond the range of a double or a lone surrogate in a string. No app
    /// writes such a document.
    pub fn contents(&self) -> Result<Contents, ContentsError> {
        // Each value but the first follows one of these bytes. They are counted first, because a
        // small gzip bomb inflates to millions of values, each of which takes hundreds of bytes
        // here. Names of contacts may contain these bytes too, so strings are excluded.
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

/// The most values in a typed document. 50,000 contacts make about 750,000 values.
const MAX_VALUES: usize = 1_000_000;

/// Why a document cannot be parsed into its typed form although it is JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// The document has more values than any app writes.
    #[error("more than {MAX_VALUES} values")]
    TooMany,
    /// The document contains a value that this program cannot represent.
    #[error(
        "nested deeper than 127 levels, a number out of range, or a lone surrogate (line {line}, column {column})"
    )]
    Unreadable {
        /// Line of the first error, from 1.
        line: usize,
        /// Column of the first error, from 1.
        column: usize,
    },
}

/// Declares objects of the schema. Every field may be absent, `null` or of another type, and fields
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
            /// Fields that are not in the schema. Both apps ignore them.
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
        /// Schema version and origin.
        info: Info,
        /// The user.
        user: User,
        /// Contacts. Android always writes the list and restores no groups without it; iOS omits an
        /// empty list.
        contacts: List<Box<Contact>>,
        /// Groups. iOS omits an empty list.
        groups: List<Box<Group>>,
        /// Distribution lists; Android only.
        #[serde(rename = "distributionlists")]
        distribution_lists: List<Box<DistributionList>>,
        /// Booleans, and lists of Threema IDs.
        settings: Settings,
    }

    /// Schema version, and the app that wrote the document.
    Info {
        /// Schema version, required: 1. Android rejects a higher one, iOS any other.
        version: u64,
        /// Android: app version, `A/` and locale, such as `6.4.2A/de_CH`. iOS: `ios`. No app reads
        /// it.
        device: String,
    }

    /// The user.
    User {
        /// The private key of the Threema ID, required: base64 of 32 bytes.
        #[serde(rename = "privatekey")]
        private_key: SecretString,
        /// The name that the user chose, at most 32 bytes of UTF-8.
        nickname: String,
        /// The profile picture: base64 of a JPEG of at most 400 × 400 pixels (iOS: scaled down only
        /// if larger, otherwise the original bytes).
        #[serde(rename = "profilePic")]
        profile_picture: String,
        /// The contacts that receive the picture: `["*"]` all, `[null]` none, otherwise Threema
        /// IDs. Android writes it only together with a picture; iOS omits it for none.
        #[serde(rename = "profilePicRelease")]
        profile_picture_release: List<String>,
        /// Telephone number and email address linked to the Threema ID. iOS omits an empty list.
        links: List<Box<Link>>,
        /// The device group key, base64; only iOS writes it, in backups for linking a device.
        #[serde(rename = "temporaryDeviceGroupKeyTodoRemove")]
        device_group_key: SecretString,
    }

    /// A telephone number or an email address that is linked to the Threema ID.
    Link {
        /// `mobile` or `email`.
        #[serde(rename = "type")]
        kind: String,
        /// Always empty; iOS only.
        name: String,
        /// The telephone number in E.164 format without `+`, or the email address.
        value: String,
    }

    /// A contact.
    Contact {
        /// The Threema ID.
        identity: String,
        /// Base64 of 32 bytes; only if `verification` is 2 or the Threema ID was revoked.
        #[serde(rename = "publickey")]
        public_key: String,
        /// When the contact was added; 0 if unknown.
        #[serde(rename = "createdAt")]
        created_at: u64,
        /// 0 unverified, 1 verified by the server, 2 verified in person.
        verification: u64,
        /// Whether the contact belongs to the same Threema Work organisation.
        #[serde(rename = "workVerified")]
        work_verified: bool,
        /// Whether the contact list omits the contact.
        hidden: bool,
        /// First name, as the user entered it.
        #[serde(rename = "firstname")]
        first_name: String,
        /// Last name, as the user entered it.
        #[serde(rename = "lastname")]
        last_name: String,
        /// The nickname that the contact chose.
        nickname: String,
        /// Time of the last activity in the chat; `null` or absent: never.
        #[serde(rename = "lastUpdate")]
        last_update: u64,
        /// 0 default setting, 1 send, 2 do not send.
        #[serde(rename = "typingIndicators")]
        typing_indicators: u64,
        /// 0 default setting, 1 send, 2 do not send.
        #[serde(rename = "readReceipts")]
        read_receipts: u64,
        /// Whether the chat is protected by the app's PIN.
        private: bool,
    }

    /// A group.
    Group {
        /// 16 lowercase hexadecimal digits: 8 bytes.
        id: String,
        /// The creator's Threema ID.
        creator: String,
        /// The group's name.
        #[serde(rename = "groupname")]
        name: String,
        /// When the group was created; iOS always writes 0.
        #[serde(rename = "createdAt")]
        created_at: u64,
        /// Threema IDs, with the user's own unless the user left the group.
        members: List<String>,
        /// Always false; Android skips a group with true.
        deleted: bool,
        /// Time of the last activity in the chat; `null` or absent: never.
        #[serde(rename = "lastUpdate")]
        last_update: u64,
        /// Whether the chat is protected by the app's PIN.
        private: bool,
    }

    /// A distribution list: sends messages to several contacts individually. Android only.
    DistributionList {
        /// 16 lowercase hexadecimal digits: an unsigned 64-bit number, little-endian.
        id: String,
        /// The list's name.
        name: String,
        /// When the list was created.
        #[serde(rename = "createdAt")]
        created_at: u64,
        /// Threema IDs.
        members: List<String>,
        /// Time of the last activity in the chat; `null` or absent: never.
        #[serde(rename = "lastUpdate")]
        last_update: u64,
        /// Whether the chat is protected by the app's PIN.
        private: bool,
    }

    /// Settings of the app. An absent boolean is false, unless its comment states true.
    Settings {
        /// Whether the address book is matched with the directory. iOS requires the field.
        #[serde(rename = "syncContacts")]
        sync_contacts: bool,
        /// Whether messages from unknown senders are dropped.
        #[serde(rename = "blockUnknown")]
        block_unknown: bool,
        /// Whether typing indicators are sent (absent: true).
        #[serde(rename = "sendTyping")]
        send_typing: bool,
        /// Whether read receipts are sent (absent: true).
        #[serde(rename = "readReceipts")]
        read_receipts: bool,
        /// Whether calls are enabled (absent: true).
        #[serde(rename = "threemaCalls")]
        calls: bool,
        /// Whether calls always use a relay server.
        #[serde(rename = "relayThreemaCalls")]
        relay_calls: bool,
        /// Whether screenshots are blocked; Android only.
        #[serde(rename = "disableScreenshots")]
        disable_screenshots: bool,
        /// Whether the keyboard is asked not to learn; Android only.
        #[serde(rename = "incognitoKeyboard")]
        incognito_keyboard: bool,
        /// Threema IDs of blocked contacts.
        #[serde(rename = "blockedContacts")]
        blocked_contacts: List<String>,
        /// Threema IDs, with the key of Android.
        #[serde(rename = "syncExcludedIds")]
        sync_excluded_ids: List<String>,
        /// Threema IDs, with the key of iOS. Neither app reads the other's key.
        #[serde(rename = "syncExcludedIDs")]
        sync_excluded_ids_ios: List<String>,
        /// Recently used emojis; Android only.
        #[serde(rename = "recentEmojis")]
        recent_emojis: List<String>,
    }
}

impl Contents {
    /// Serialises the contents as compact JSON with `\/` for `/`. Both apps escape `/` in this way.
    ///
    /// # Panics
    /// Never: all contents can be written as JSON.
    #[must_use]
    pub fn to_document(&self) -> Document {
        // The length is counted first: a growing buffer leaves copies of the private key in memory.
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

    /// Removes the secrets: the private key and the device group key.
    pub fn redact(&mut self) {
        match &mut self.user {
            Field::Is(user) => {
                user.private_key = Field::Absent;
                user.device_group_key = Field::Absent;
            }
            // A value of another type in place of the user may contain the key.
            Field::Absent | Field::Null | Field::Other(_) => self.user = Field::Absent,
        }
    }

    /// The latest time of a contact, group or distribution list, in milliseconds since 1970. `None`
    /// if there is no time after 1970.
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

/// A writer that counts the bytes and discards them.
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

/// A JSON formatter that writes compactly and escapes `/` as `\/`.
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

/// Whether the byte, outside a string, opens an array or an object.
fn is_bracket(byte: u8) -> bool {
    matches!(byte, b'[' | b'{')
}

fn count(json: &[u8], is_one: impl Fn(u8) -> bool) -> usize {
    json.iter().filter(|byte| is_one(**byte)).count()
}

/// The deepest nesting of arrays and objects.
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

/// The bytes of JSON that are not part of a string.
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

/// Line and column of the byte at `offset`, each counted from 1.
fn position(text: &[u8], offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let lines = before.split(|&byte| byte == b'\n');
    lines.fold((0, 0), |(line, _), last| (line + 1, last.len() + 1))
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
