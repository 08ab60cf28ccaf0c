//! Unit tests of the validation of documents.

use serde_json::{Value, json};

use super::*;

/// A document that both apps restore completely, with every field that both know.
fn whole() -> Value {
    json!({
        "info": { "version": 1, "device": "ios" },
        "user": {
            "privatekey": "AQIDBAUGBwhkZWZnaGlqawECAwQFBgcIZGVmZ2hpams=",
            "nickname": "Zoë",
            "profilePic": "/9j/2Q==",
            "profilePicRelease": ["*"],
            "links": [{ "type": "mobile", "name": "", "value": "41791234567" }],
            "temporaryDeviceGroupKeyTodoRemove": "AA==",
        },
        "contacts": [{
            "identity": "ECHOECHO",
            "publickey": "AQIDBAUGBwhkZWZnaGlqawECAwQFBgcIZGVmZ2hpams=",
            "createdAt": 1_700_000_000_000_u64,
            "verification": 2,
            "workVerified": false,
            "hidden": false,
            "firstname": "Echo",
            "lastname": "Echo",
            "nickname": "echo",
            "lastUpdate": null,
            "typingIndicators": 0,
            "readReceipts": 2,
            "private": false,
        }],
        "groups": [{
            "id": "0100000000000000",
            "creator": "*THREEMA",
            "groupname": "Group",
            "createdAt": 0,
            "members": ["ECHOECHO"],
            "deleted": false,
            "lastUpdate": 1_700_000_000_000_u64,
            "private": true,
        }],
        "distributionlists": [],
        "settings": {
            "syncContacts": true,
            "blockUnknown": false,
            "blockedContacts": ["ECHOECHO"],
            "syncExcludedIds": ["ECHOECHO"],
            "syncExcludedIDs": ["ECHOECHO"],
            "recentEmojis": [],
        },
    })
}

fn findings(document: Value) -> Vec<String> {
    let contents: Contents = serde_json::from_value(document).unwrap();
    let findings = contents.validate();
    findings.iter().map(Finding::to_string).collect()
}

/// The document with one value replaced, or removed.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut document = whole();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match (document.pointer_mut(parent).unwrap(), value) {
        (Value::Object(fields), Some(value)) => drop(fields.insert(key.into(), value)),
        (Value::Object(fields), None) => drop(fields.shift_remove(key)),
        (Value::Array(items), Some(value)) => items[key.parse::<usize>().unwrap()] = value,
        (other, _) => panic!("{other}"),
    }
    document
}

#[test]
fn a_whole_document_has_no_findings() {
    assert_eq!(findings(whole()), Vec::<String>::new());
}

#[test]
fn each_flaw_is_found_with_what_each_app_does() {
    const BOTH: &str = "Android and iOS: cannot restore the backup";
    const IOS: &str = "iOS: cannot restore the backup";
    for (pointer, value, expected) in [
        ("/info", None, format!("error: info: missing; {BOTH}")),
        ("/info", Some(json!([])), format!("error: info: not an object; {BOTH}")),
        ("/info/version", None, format!("error: info.version: missing; {BOTH}")),
        ("/info/version", Some(json!(2)), format!("error: info.version: version 2 is unsupported, expected 1; {BOTH}")),
        ("/info/version", Some(json!(0)), format!("error: info.version: version 0 is unsupported, expected 1; {IOS}")),
        ("/info/version", Some(json!("1")), format!("error: info.version: not an unsigned integer; {IOS}")),
        ("/info/version", Some(json!("2")), format!("error: info.version: not an unsigned integer; {BOTH}")),
        ("/info/version", Some(json!(1.5)), format!("error: info.version: not an unsigned integer; {IOS}")),
        ("/info/version", Some(json!(-1)), format!("error: info.version: not an unsigned integer; {IOS}")),
        ("/info/version", Some(json!("inf")), format!("error: info.version: not an unsigned integer; {BOTH}")),
        ("/info/version", Some(json!(true)), format!("error: info.version: not an unsigned integer; {BOTH}")),
        ("/info/device", Some(json!(1)), format!("error: info.device: not a string; {IOS}")),
        ("/user", Some(json!(null)), format!("error: user: null; {BOTH}")),
        ("/user/privatekey", None, format!("error: user.privatekey: missing; {BOTH}")),
        ("/user/privatekey", Some(json!("AQID")), format!("error: user.privatekey: not the base64 of 32 bytes; {BOTH}")),
        ("/user/nickname", Some(json!("x".repeat(32))), String::new()),
        ("/user/nickname", Some(json!("x".repeat(33))), "warning: user.nickname: longer than 32 bytes; Android: truncates it".into()),
        ("/user/nickname", Some(json!(null)), "warning: user.nickname: null; Android: uses the word null".into()),
        ("/user/profilePic", Some(json!("%")), "warning: user.profilePic: not base64; Android and iOS: ignores the picture".into()),
        ("/user/profilePicRelease", Some(json!([null, "ECHOECHO"])), "warning: user.profilePicRelease[0]: null; Android: gives the picture to nobody; iOS: ignores the entry".into()),
        ("/user/profilePicRelease", Some(json!(["ECHOECHO", "*"])), "warning: user.profilePicRelease[1]: * beside other entries; Android: gives the picture to everyone; iOS: ignores the entry".into()),
        ("/user/profilePicRelease", Some(json!(["me"])), "warning: user.profilePicRelease[0]: not a Threema ID; Android and iOS: ignores the entry".into()),
        ("/user/profilePicRelease", Some(json!(["NULL"])), "warning: user.profilePicRelease[0]: the word null; Android: gives the picture to nobody; iOS: ignores the entry".into()),
        ("/user/profilePicRelease", Some(json!([12_345_678])), format!("error: user.profilePicRelease[0]: not a string; {IOS}")),
        ("/user/links/0/value", Some(json!(41_791_234_567_u64)), format!("error: user.links[0].value: not a string; {IOS}")),
        ("/user/links/0/value", Some(json!(1.5)), format!("error: user.links[0].value: not a string; Android: cannot link it; {IOS}")),
        ("/user/links/0/type", Some(json!(1)), format!("error: user.links[0].type: not a string; Android: ignores the link; {IOS}")),
        ("/user/links/0", Some(json!(null)), format!("error: user.links[0]: null; Android: ignores the link; {IOS}")),
        ("/user/links/0/type", Some(json!("Mobile")), "warning: user.links[0].type: neither mobile nor email; Android and iOS: ignores the link".into()),
        ("/user/links/0/value", Some(json!("by post")), "warning: user.links[0].value: not a telephone number in E.164; Android and iOS: cannot link it".into()),
        ("/user/links/0", Some(json!({"type": "email", "value": "me"})), "warning: user.links[0].value: not an email address; Android and iOS: cannot link it".into()),
        ("/user/temporaryDeviceGroupKeyTodoRemove", Some(json!(1)), format!("error: user.temporaryDeviceGroupKeyTodoRemove: not a string; {IOS}")),
        ("/contacts", None, "warning: contacts: missing; Android: restores no groups and no distribution lists".into()),
        ("/contacts", Some(json!({})), format!("error: contacts: not a list; Android: restores no contacts, groups and distribution lists; {IOS}")),
        ("/contacts/0", Some(json!("ECHOECHO")), format!("error: contacts[0]: not an object; Android: skips the contact; {IOS}")),
        ("/contacts/0/identity", None, "warning: contacts[0].identity: missing; Android and iOS: skips the contact".into()),
        ("/contacts/0/identity", Some(json!("echoecho")), "warning: contacts[0].identity: lowercase letters; Android: skips the contact".into()),
        ("/contacts/0/identity", Some(json!(12_345_678)), format!("error: contacts[0].identity: not a string; {IOS}")),
        ("/contacts/0/identity", Some(json!(5)), format!("error: contacts[0].identity: not a string; Android: skips the contact; {IOS}")),
        ("/contacts/0/identity", Some(json!("?")), "warning: contacts[0].identity: not a Threema ID; Android and iOS: skips the contact".into()),
        ("/contacts/0/publickey", None, "warning: contacts[0].publickey: missing; Android: restores the contact as unverified".into()),
        ("/contacts/0/publickey", Some(json!("AA==")), "warning: contacts[0].publickey: not the base64 of 32 bytes; Android: skips the contact".into()),
        ("/contacts/0/verification", Some(json!(3)), "warning: contacts[0].verification: neither 0, 1 nor 2; Android and iOS: restores the contact as unverified".into()),
        ("/contacts/0/verification", Some(json!(i64::MAX)), "warning: contacts[0].verification: neither 0, 1 nor 2; Android and iOS: restores the contact as unverified".into()),
        ("/contacts/0/verification", Some(json!(u64::MAX)), format!("error: contacts[0].verification: more than 63 bits; Android: restores the contact as unverified; {IOS}")),
        ("/contacts/0/typingIndicators", Some(json!(i64::MAX as u64 + 1)), format!("error: contacts[0].typingIndicators: more than 63 bits; {IOS}")),
        ("/contacts/0/readReceipts", Some(json!(u64::MAX)), format!("error: contacts[0].readReceipts: more than 63 bits; {IOS}")),
        ("/contacts/0/createdAt", Some(json!(u64::MAX)), String::new()),
        ("/contacts/0/createdAt", Some(json!("today")), format!("error: contacts[0].createdAt: not an unsigned integer; Android: uses its default; {IOS}")),
        ("/contacts/0/createdAt", Some(json!(1.0)), "warning: contacts[0].createdAt: an integer with a fraction; iOS: may not be able to read it".into()),
        ("/contacts/0/createdAt", Some(json!(-1)), format!("error: contacts[0].createdAt: not an unsigned integer; {IOS}")),
        ("/contacts/0/createdAt", Some(json!("5")), format!("error: contacts[0].createdAt: not an unsigned integer; {IOS}")),
        ("/contacts/0/verification", Some(json!(-1)), "warning: contacts[0].verification: neither 0, 1 nor 2; Android and iOS: restores the contact as unverified".into()),
        ("/contacts/0/publickey", Some(json!("")), "warning: contacts[0].publickey: empty; Android: restores the contact as unverified".into()),
        ("/groups/0/id", Some(json!(null)), "warning: groups[0].id: null; Android: creates a group that no other member has; iOS: skips the group".into()),
        ("/groups/0/members", Some(json!(["echoecho"])), "warning: groups[0].members[0]: lowercase letters; Android: ignores the entry".into()),
        ("/settings/syncExcludedIDs", Some(json!([])), "warning: settings.syncExcludedIds: IDs for Android only; iOS: uses another key and ignores this one".into()),
        ("/contacts/0/lastUpdate", Some(json!("x")), format!("error: contacts[0].lastUpdate: not an unsigned integer; Android: skips the contact; {IOS}")),
        ("/contacts/0/hidden", Some(json!(1)), format!("error: contacts[0].hidden: not a boolean; Android: uses its default; {IOS}")),
        ("/contacts/0/firstname", Some(json!(null)), "warning: contacts[0].firstname: null; Android: uses the word null".into()),
        ("/contacts/0/lastname", Some(json!(5)), format!("error: contacts[0].lastname: not a string; {IOS}")),
        ("/contacts/0/readReceipts", Some(json!(3)), "warning: contacts[0].readReceipts: neither 0, 1 nor 2; iOS: uses its default".into()),
        ("/groups", Some(json!("")), format!("error: groups: not a list; Android: ignores the list; {IOS}")),
        ("/groups/0/id", Some(json!("1")), "error: groups[0].id: an odd number of digits; Android: creates a group that no other member has; iOS: cannot restore the backup".into()),
        ("/groups/0/id", Some(json!("01")), "warning: groups[0].id: not 16 digits; Android and iOS: creates a group that no other member has".into()),
        ("/groups/0/id", Some(json!("g100000000000000")), "warning: groups[0].id: not hexadecimal; Android: creates a group that no other member has; iOS: skips the group".into()),
        ("/groups/0/creator", Some(json!("echoecho")), "warning: groups[0].creator: lowercase letters; Android: skips the group".into()),
        ("/groups/0/id", Some(json!(true)), format!("error: groups[0].id: not a string; Android: skips the group; {IOS}")),
        ("/groups/0/creator", Some(json!(true)), format!("error: groups[0].creator: not a string; Android: skips the group; {IOS}")),
        ("/groups/0/members", None, "warning: groups[0].members: missing; Android: restores the group without members; iOS: skips the group".into()),
        ("/groups/0/members", Some(json!([1])), format!("error: groups[0].members[0]: not a string; Android: ignores the entry; {IOS}")),
        ("/groups/0/deleted", Some(json!(true)), "warning: groups[0].deleted: a deleted group; Android: skips the group".into()),
        ("/distributionlists", Some(json!([{"name": "List", "members": []}])), "warning: distributionlists: distribution lists; iOS: has no distribution lists and ignores them".into()),
        ("/settings", None, format!("error: settings: missing; Android: keeps its own settings; {IOS}")),
        ("/settings/syncContacts", None, format!("error: settings.syncContacts: missing; {IOS}")),
        ("/settings/syncContacts", Some(json!(null)), format!("error: settings.syncContacts: null; {IOS}")),
        ("/settings/syncContacts", Some(json!("true")), format!("error: settings.syncContacts: not a boolean; {IOS}")),
        ("/settings/syncContacts", Some(json!("yes")), format!("error: settings.syncContacts: not a boolean; Android: uses its default; {IOS}")),
        ("/settings/disableScreenshots", Some(json!(true)), "warning: settings.disableScreenshots: enabled; iOS: has no such setting and ignores it".into()),
        ("/settings/disableScreenshots", Some(json!(false)), String::new()),
        ("/settings/incognitoKeyboard", Some(json!("true")), "warning: settings.incognitoKeyboard: not a boolean; iOS: has no such setting and ignores it".into()),
        ("/settings/recentEmojis", Some(json!(["😀"])), "warning: settings.recentEmojis: emojis; iOS: has no such setting and ignores it".into()),
        ("/settings/blockedContacts/0", Some(json!(12_345_678)), format!("error: settings.blockedContacts[0]: not a string; {IOS}")),
        ("/settings/blockedContacts/0", Some(json!(null)), format!("error: settings.blockedContacts[0]: null; Android: ignores the entry; {IOS}")),
        ("/settings/syncExcludedIds", None, "warning: settings.syncExcludedIDs: IDs for iOS only; Android: uses another key and ignores this one".into()),
        ("/settings/syncExcludedIDs", None, "warning: settings.syncExcludedIds: IDs for Android only; iOS: uses another key and ignores this one".into()),
        ("/settings/recentEmojis", Some(json!(1)), "warning: settings.recentEmojis: not a list; Android: ignores the list".into()),
    ] {
        assert_eq!(findings(with(pointer, value)).join("\n"), expected, "{pointer}");
    }
}

#[test]
fn fields_outside_the_schema_are_found_at_every_level() {
    let ignored = "not in the schema; Android and iOS: ignores it";
    let long = format!("/settings/{}", "ë".repeat(33));
    let cut = format!("settings.{}…", "ë".repeat(32));
    for (pointer, path) in [
        ("/colour", "colour"),
        ("/info/build", "info.build"),
        ("/user/mood", "user.mood"),
        ("/user/links/0/x", "user.links[0].x"),
        ("/contacts/0/firstName", "contacts[0].firstName"),
        ("/groups/0/name", "groups[0].name"),
        ("/settings/locationPreviews", "settings.locationPreviews"),
        ("/", "[\"\"]"),
        ("/user/a.b", "user[\"a.b\"]"),
        ("/user/\u{1b}[2J", "user[\"\\u{1b}[2J\"]"),
        (&long, &cut),
    ] {
        let found = findings(with(pointer, Some(json!(null))));
        assert_eq!(found, [format!("warning: {path}: {ignored}")]);
    }
    let list = json!([{ "id": "0100000000000000", "name": "", "members": [], "x": 1 }]);
    let found = findings(with("/distributionlists", Some(list)));
    assert_eq!(
        found[1..],
        [format!("warning: distributionlists[0].x: {ignored}")]
    );
}

#[test]
fn android_ignores_the_entries_after_the_first_for_all_or_none() {
    let release = |entries| {
        let found = findings(with("/user/profilePicRelease", Some(entries)));
        let strip = |line: &String| line.replace("warning: user.profilePicRelease", "");
        found.iter().map(strip).collect::<Vec<_>>()
    };
    let ignored = "Android and iOS: ignores the entry";
    let (nobody, everyone) = (
        "Android: gives the picture to nobody",
        "Android: gives the picture to everyone",
    );
    let ios = "iOS: ignores the entry";
    assert_eq!(
        release(json!([null, "*"])),
        [
            format!("[0]: null; {nobody}; {ios}"),
            format!("[1]: * beside other entries; {ignored}")
        ]
    );
    assert_eq!(
        release(json!(["ECHOECHO", "*", null, "null", "*"])),
        [
            format!("[1]: * beside other entries; {everyone}; {ios}"),
            format!("[2]: null; {ignored}"),
            format!("[3]: the word null; {ignored}"),
            format!("[4]: * beside other entries; {ignored}"),
        ]
    );
    assert_eq!(release(json!([null])), Vec::<String>::new());
    assert_eq!(
        release(json!(["Null", "*"]))[0],
        format!("[0]: the word null; {nobody}; {ios}")
    );
}

/// `verification` 2 in every spelling that Android understands.
#[test]
fn the_key_of_a_contact_that_was_verified_in_person_is_checked() {
    for verification in [json!(2), json!(2.0), json!("2"), json!(2.5)] {
        let mut document = with("/contacts/0/publickey", Some(json!("AA==")));
        document["contacts"][0]["verification"] = verification;
        assert_eq!(
            findings(document)[0],
            "warning: contacts[0].publickey: not the base64 of 32 bytes; Android: skips the contact"
        );
    }
}

#[test]
fn distribution_lists_affect_android_only() {
    let lists = json!([
        { "id": "1", "members": 1 },
        { "name": "List", "lastUpdate": "x", "members": ["?"] },
        { "id": "g100000000000000", "name": "", "members": [] },
        3,
    ]);
    assert_eq!(
        findings(with("/distributionlists", Some(lists))),
        [
            "warning: distributionlists: distribution lists; iOS: has no distribution lists and ignores them",
            "warning: distributionlists[0].id: not 16 hexadecimal digits; Android: assigns a new id to the list",
            "warning: distributionlists[0].name: missing; Android: skips the list",
            "warning: distributionlists[0].members: not a list; Android: restores the list without members",
            "warning: distributionlists[1].members[0]: not a Threema ID; Android: ignores the entry",
            "warning: distributionlists[1].lastUpdate: not an unsigned integer; Android: skips the list",
            "warning: distributionlists[2].id: not 16 hexadecimal digits; Android: assigns a new id to the list",
            "warning: distributionlists[3]: not an object; Android: skips the list",
        ]
    );
}

#[test]
fn all_flaws_are_found_at_once_in_the_order_of_the_document() {
    let empty = findings(json!({}));
    assert_eq!(empty.len(), 3, "{empty:?}");

    let many = json!({ "user": {}, "info": { "version": "1" }, "settings": { "syncContacts": 0 }, "contacts": [{}, {}] });
    let places: Vec<_> = findings(many)
        .iter()
        .map(|finding| finding.split(": ").nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(
        places,
        [
            "info.version",
            "user.privatekey",
            "contacts[0].identity",
            "contacts[1].identity",
            "settings.syncContacts"
        ]
    );
}

/// A number in another spelling gives a warning, and its value is still checked.
#[test]
fn a_number_with_a_fraction_is_checked_by_its_value() {
    for (number, is_wrong) in [(json!(1.0), false), (json!(2.0), true), (json!(-0.0), true)] {
        let found = findings(with("/info/version", Some(number)));
        assert!(found[0].ends_with("an integer with a fraction; iOS: may not be able to read it"));
        assert_eq!(found.len(), 1 + usize::from(is_wrong), "{found:?}");
    }
    let found = findings(with("/info/version", Some(json!(1.5))));
    assert_eq!(
        found,
        ["error: info.version: not an unsigned integer; iOS: cannot restore the backup"]
    );
}

#[test]
fn a_duplicate_id_is_found() {
    let spelt = |identities: &[&str]| {
        let mut document = whole();
        let contact = document["contacts"][0].clone();
        let contacts = identities.iter().map(|identity| {
            let mut contact = contact.clone();
            contact["identity"] = json!(identity);
            contact
        });
        document["contacts"] = contacts.collect();
        findings(document)
    };
    let already = |number: usize, app: &str| {
        format!(
            "warning: contacts[{number}].identity: duplicate Threema ID; {app}: uses the first only"
        )
    };
    let small = |number: usize| {
        format!(
            "warning: contacts[{number}].identity: lowercase letters; Android: skips the contact"
        )
    };
    let both = "Android and iOS";
    assert_eq!(spelt(&["ECHOECHO", "ECHOECHO"]), [already(1, both)]);
    // Android skips the one in lowercase letters, and so uses the other.
    assert_eq!(
        spelt(&["ECHOECHo", "ECHOECHO"]),
        [small(0), already(1, "iOS")]
    );
    assert_eq!(
        spelt(&["ECHOECHO", "ECHOECHo", "ECHOECHO"]),
        [small(1), already(1, "iOS"), already(2, both)]
    );
}
