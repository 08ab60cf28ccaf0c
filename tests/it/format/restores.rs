//! Restoring a document of which a field is missing, `null` or of another type, by each app.
//!
//! `restores.txt` has one line for each case: a changed rule shows as a change of that file.

use std::fmt::Write;

use serde_json::{Value, json};
use threema_safe_server::backup::Contents;

const EXPECTED: &str = include_str!("restores.txt");

/// A document with every field of the schema, with which both apps are happy but for what only one
/// knows.
fn whole() -> Value {
    json!({
        "info": { "version": 1, "device": "ios" },
        "user": {
            "privatekey": "AQIDBAUGBwhkZWZnaGlqawECAwQFBgcIZGVmZ2hpams=",
            "nickname": "Zoë",
            "profilePic": "/9j/2Q==",
            "profilePicRelease": ["ECHOECHO"],
            "links": [{ "type": "mobile", "value": "41791234567", "name": "" }],
            "temporaryDeviceGroupKeyTodoRemove": "AA==",
        },
        "contacts": [{
            "identity": "ECHOECHO",
            "publickey": "AQIDBAUGBwhkZWZnaGlqawECAwQFBgcIZGVmZ2hpams=",
            "createdAt": 1, "verification": 2, "workVerified": false, "hidden": false,
            "firstname": "", "lastname": "", "nickname": "", "lastUpdate": 1,
            "typingIndicators": 0, "readReceipts": 0, "private": false,
        }],
        "groups": [{
            "id": "0100000000000000", "creator": "*THREEMA", "groupname": "", "createdAt": 0,
            "members": ["ECHOECHO"], "deleted": false, "lastUpdate": 1, "private": false,
        }],
        "distributionlists": [{
            "id": "0100000000000000", "name": "", "createdAt": 0, "members": ["ECHOECHO"],
            "lastUpdate": 1, "private": false,
        }],
        "settings": {
            "syncContacts": true, "blockUnknown": false, "sendTyping": true, "readReceipts": true,
            "threemaCalls": true, "relayThreemaCalls": false, "disableScreenshots": false,
            "incognitoKeyboard": false, "blockedContacts": ["ECHOECHO"], "syncExcludedIds": ["ECHOECHO"],
            "syncExcludedIDs": ["ECHOECHO"], "recentEmojis": ["😀"],
        },
    })
}

/// The places of all values below `value`, as JSON pointers (RFC 6901).
fn pointers(value: &Value, pointer: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| (at.to_string(), item))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for (key, child) in children {
        let pointer = format!("{pointer}/{key}");
        found.push(pointer.clone());
        pointers(child, &pointer, found);
    }
}

/// The document with one value replaced, or removed.
fn changed(pointer: &str, value: Option<Value>) -> Value {
    let mut document = whole();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match (document.pointer_mut(parent).unwrap(), value) {
        (Value::Object(fields), Some(value)) => drop(fields.insert(key.into(), value)),
        (Value::Object(fields), None) => drop(fields.shift_remove(key)),
        (Value::Array(items), Some(value)) => items[key.parse::<usize>().unwrap()] = value,
        (Value::Array(items), None) => drop(items.remove(key.parse::<usize>().unwrap())),
        (other, _) => panic!("{other}"),
    }
    document
}

/// What is found in a document and not in the whole one.
fn findings(document: Value) -> String {
    let all = |document| -> Vec<String> {
        let contents: Contents = serde_json::from_value(document).unwrap();
        contents
            .validate()
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let usual = all(whole());
    let found: Vec<_> = all(document)
        .into_iter()
        .filter(|line| !usual.contains(line))
        .collect();
    if found.is_empty() {
        "fine".to_owned()
    } else {
        found.join(" | ")
    }
}

#[test]
fn every_field_that_is_not_what_it_should_be_is_restored_as_it_is_written_down() {
    let mut places = Vec::new();
    pointers(&whole(), "", &mut places);
    let mut table = String::new();
    for place in &places {
        // An object where something else should be, and a list where an object should be: nothing
        // that any app would take for what it means.
        let wrong = if whole().pointer(place).unwrap().is_object() {
            json!([])
        } else {
            json!({})
        };
        for (word, value) in [
            ("missing", None),
            ("null", Some(Value::Null)),
            ("wrong", Some(wrong)),
        ] {
            writeln!(table, "{place} {word}: {}", findings(changed(place, value))).unwrap();
        }
    }

    for (line, expected) in table.lines().zip(EXPECTED.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(table.lines().count(), EXPECTED.lines().count(), "{table}");
}
