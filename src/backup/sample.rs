//! A made-up document, as large and as detailed as a real one of so many contacts.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::document::Document;
use super::id::ThreemaId;

/// The first time in a sample, in milliseconds since 1970: 2024-01-01.
const FIRST_TIME: u64 = 1_704_067_200_000;
const DAY_MILLISECONDS: u64 = 24 * 60 * 60 * 1000;

impl Document {
    /// A document for `identity` with so many contacts and a tenth as many groups, in the shape in which
    /// Android writes it. Keys are random and belong to nobody.
    ///
    /// # Panics
    /// When the operating system has no randomness.
    #[must_use]
    pub fn sample(identity: &ThreemaId, contacts: u32) -> Self {
        let contact = |number: u32| {
            json!({
                "identity": sample_id(number),
                "publickey": random_key(),
                "createdAt": FIRST_TIME + u64::from(number) * DAY_MILLISECONDS,
                "verification": number % 3,
                "workVerified": number.is_multiple_of(2),
                "hidden": false,
                "firstname": "Sample",
                "lastname": format!("Contact {number}"),
                "nickname": format!("sample-{number}"),
                "lastUpdate": FIRST_TIME + u64::from(number) * DAY_MILLISECONDS,
                "private": false,
                "readReceipts": 0,
                "typingIndicators": 0,
            })
        };
        let group = |number: u32| {
            json!({
                "id": hex::encode(u64::from(number).to_le_bytes()),
                "creator": str::from_utf8(identity.as_bytes()).unwrap_or_default(),
                "groupname": format!("Group {number}"),
                "createdAt": FIRST_TIME,
                "lastUpdate": FIRST_TIME + DAY_MILLISECONDS,
                "members": (0..contacts.min(10)).map(sample_id).collect::<Vec<_>>(),
                "deleted": false,
                "private": false,
            })
        };
        let document = json!({
            "info": { "version": 1, "device": "threema-safe-server/en" },
            "user": { "privatekey": random_key(), "nickname": "Sample", "links": [] },
            "contacts": (0..contacts).map(contact).collect::<Vec<Value>>(),
            "groups": (0..contacts / 10).map(group).collect::<Vec<Value>>(),
            "distributionlists": [],
            "settings": {
                "syncContacts": false,
                "blockUnknown": false,
                "readReceipts": true,
                "sendTyping": true,
                "threemaCalls": true,
                "relayThreemaCalls": false,
                "disableScreenshots": false,
                "incognitoKeyboard": false,
                "blockedContacts": [],
                "syncExcludedIds": [],
                "recentEmojis": [],
            },
        });
        let json = Zeroizing::new(document.to_string().into_bytes());
        Self::from_json(json).expect("the sample has all that a document needs")
    }
}

fn sample_id(number: u32) -> String {
    format!("SAMPL{:03X}", number % 0x1000)
}

fn random_key() -> String {
    let mut key = [0; 32];
    getrandom::fill(&mut key).expect("the operating system gives random bytes");
    BASE64_STANDARD.encode(key)
}
