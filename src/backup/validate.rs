//! Document validation: what each app would not restore, and its effect (docs/FORMAT.md §5).
//!
//! Android parses entry by entry and uses defaults where it can. iOS decodes the whole document
//! with fixed types, and one wrong type anywhere ends the restore. Sources: Threema for Android
//! 6.4.2 (`ThreemaSafeServiceImpl`) and Threema for iOS 7.2 (`SafeJsonParser`, `SafeStore`).

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::document::{
    Contact, Contents, DistributionList, Group, Info, Link, List, Settings, User,
};
use super::field::Field;
use super::finding::Effect::{self, Fails, Fine, Loses};
use super::finding::{BOOL, Effects, Finding, LIST, NUMBER, REQUIRED, Rule, STRING, Walker};
use super::id::ThreemaId;

/// Length of a public or private key, in bytes (docs/FORMAT.md §5).
const KEY_LENGTH: usize = 32;
/// Length to which Android truncates a nickname, in bytes of UTF-8 (docs/FORMAT.md §5).
const NICKNAME_LENGTH: usize = 32;

impl Contents {
    /// All parts that an app would not restore as they are, in document order. Two things are not
    /// checked, because they are not in the document: the user's own ID, and whether the contacts
    /// exist in Threema's directory.
    #[must_use]
    pub fn validate(&self) -> Vec<Finding> {
        let mut walk = Walker::default();
        walk.field("info", &self.info, REQUIRED, Info::check);
        walk.field("user", &self.user, REQUIRED, User::check);
        let has_groups = self.groups.items().next().is_some()
            || self.distribution_lists.items().next().is_some();
        let without = if has_groups {
            Loses("restores no groups and no distribution lists")
        } else {
            Fine
        };
        let contacts = Rule {
            absent: (without, Fine),
            null: (without, Fine),
            wrong: (
                Loses("restores no contacts, groups and distribution lists"),
                Fails,
            ),
        };
        walk.field("contacts", &self.contacts, contacts, |contacts, walk| {
            let mut seen = HashMap::new();
            let item = Rule::entry(Loses("skips the contact"));
            walk.items(contacts, item, |contact, walk| {
                contact.check(walk, &mut seen);
            });
        });
        walk.field("groups", &self.groups, LIST, |groups, walk| {
            let item = Rule::entry(Loses("skips the group"));
            walk.items(groups, item, |group, walk| group.check(walk));
        });
        let lists = LIST.android_only();
        walk.field(
            "distributionlists",
            &self.distribution_lists,
            lists,
            |lists, walk| {
                if !lists.is_empty() {
                    walk.note(
                        "distribution lists",
                        (Fine, Loses("has no distribution lists and ignores them")),
                    );
                }
                let item = Rule::entry(Loses("skips the list")).android_only();
                walk.items(lists, item, |list, walk| list.check(walk));
            },
        );
        let kept = Loses("keeps its own settings");
        walk.field(
            "settings",
            &self.settings,
            Rule::same((kept, Fails)),
            Settings::check,
        );
        walk.unknown(&self.unknown);
        walk.findings
    }
}

impl Info {
    fn check(&self, walk: &mut Walker) {
        walk.field("version", &self.version, REQUIRED, |&version, walk| {
            let problem = format!("version {version} is unsupported, expected 1");
            match version {
                0 => walk.note(problem, (Fine, Fails)),
                1 => {}
                2.. => walk.note(problem, (Fails, Fails)),
            }
        });
        walk.field("device", &self.device, STRING.ios_only(), Walker::accept);
        walk.unknown(&self.unknown);
    }
}

impl User {
    fn check(&self, walk: &mut Walker) {
        walk.field("privatekey", &self.private_key, REQUIRED, |key, walk| {
            if !is_key(key.reveal()) {
                walk.note("not the base64 of 32 bytes", (Fails, Fails));
            }
        });
        walk.field("nickname", &self.nickname, STRING, |nickname, walk| {
            if nickname.len() > NICKNAME_LENGTH {
                walk.note("longer than 32 bytes", (Loses("truncates it"), Fine));
            }
        });
        let ignored = Loses("ignores the picture");
        let picture = Rule::wrong((ignored, Fails));
        walk.field(
            "profilePic",
            &self.profile_picture,
            picture,
            |picture, walk| {
                if BASE64_STANDARD.decode(picture).is_err() {
                    walk.note("not base64", (ignored, ignored));
                }
            },
        );
        let release = &self.profile_picture_release;
        walk.field("profilePicRelease", release, LIST, |release, walk| {
            check_release(release, walk);
        });
        walk.field("links", &self.links, LIST, |links, walk| {
            let item = Rule::entry(Loses("ignores the link"));
            walk.items(links, item, |link, walk| link.check(walk));
        });
        let group_key = &self.device_group_key;
        walk.field(
            "temporaryDeviceGroupKeyTodoRemove",
            group_key,
            STRING.ios_only(),
            Walker::accept,
        );
        walk.unknown(&self.unknown);
    }
}

/// Checks `profilePicRelease`: `["*"]`, `[null]`, or Threema IDs.
fn check_release(release: &List<String>, walk: &mut Walker) {
    let ignored = Loses("ignores the entry");
    let nobody = Loses("gives the picture to nobody");
    let everyone = Loses("gives the picture to everyone");
    let among_others = release.len() > 1;
    // Android ignores the entries after the first `*` or `null`.
    let mut is_decided = false;
    let is_null_word = |entry: &str| entry.eq_ignore_ascii_case("null");
    for (number, item) in release.iter().enumerate() {
        let decides = |effect| if is_decided { ignored } else { effect };
        let null = (decides(nobody), ignored);
        let item_rule = Rule {
            null: if among_others { null } else { (Fine, Fine) },
            ..Rule::entry(ignored)
        };
        walk.field(&format!("[{number}]"), item, item_rule, |entry, walk| {
            if entry == "*" {
                if among_others {
                    walk.note("* beside other entries", (decides(everyone), ignored));
                }
            } else if is_null_word(entry) {
                walk.note("the word null", (decides(nobody), ignored));
            } else if entry.chars().count() != 8 {
                // Neither app checks more than the length.
                walk.note("not a Threema ID", (ignored, ignored));
            }
        });
        is_decided |= match item {
            Field::Null => true,
            Field::Is(entry) => entry == "*" || is_null_word(entry),
            Field::Absent | Field::Other(_) => false,
        };
    }
}

impl Link {
    fn check(&self, walk: &mut Walker) {
        let ignored = Loses("ignores the link");
        let rule = Rule {
            wrong: (ignored, Fails),
            ..Rule::same((ignored, ignored))
        };
        walk.field("type", &self.kind, rule, |kind, walk| {
            if kind != "mobile" && kind != "email" {
                walk.note("neither mobile nor email", (ignored, ignored));
            }
        });
        walk.field("value", &self.value, rule, |value, walk| {
            let kind = self.kind.get().map(String::as_str);
            let digits = value.strip_prefix('+').unwrap_or(value);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let cannot = Loses("cannot link it");
            if kind == Some("mobile") && !is_number {
                walk.note("not a telephone number in E.164", (cannot, cannot));
            }
            if kind == Some("email") && !value.contains('@') {
                walk.note("not an email address", (cannot, cannot));
            }
        });
        walk.field("name", &self.name, STRING.ios_only(), Walker::accept);
        walk.unknown(&self.unknown);
    }
}

impl Contact {
    /// `seen` has the IDs of the contacts before this one, converted to upper case, each with
    /// whether the document contains it in upper case.
    fn check(&self, walk: &mut Walker, seen: &mut HashMap<String, bool>) {
        let skipped = Loses("skips the contact");
        let identity = Rule {
            wrong: (skipped, Fails),
            ..Rule::same((skipped, skipped))
        };
        walk.field("identity", &self.identity, identity, |identity, walk| {
            let uppercase = identity.to_ascii_uppercase();
            if !is_id(&uppercase) {
                walk.note("not a Threema ID", (skipped, skipped));
                return;
            }
            let is_uppercase = *identity == uppercase;
            if !is_uppercase {
                walk.note("lowercase letters", (skipped, Fine));
            }
            let earlier = seen.get(&uppercase).copied();
            if let Some(has_uppercase) = earlier {
                let first = Loses("uses the first only");
                let is_second = is_uppercase && has_uppercase;
                let android = if is_second { first } else { Fine };
                walk.note("duplicate Threema ID", (android, first));
            }
            seen.insert(uppercase, is_uppercase || earlier == Some(true));
        });
        self.check_key(walk);
        walk.field("createdAt", &self.created_at, NUMBER, Walker::accept);
        let unverified = Loses("restores the contact as unverified");
        check_choice(
            walk,
            "verification",
            &self.verification,
            (unverified, unverified),
        );
        walk.field("workVerified", &self.work_verified, BOOL, Walker::accept);
        walk.field("hidden", &self.hidden, BOOL, Walker::accept);
        walk.field("firstname", &self.first_name, STRING, Walker::accept);
        walk.field("lastname", &self.last_name, STRING, Walker::accept);
        walk.field(
            "nickname",
            &self.nickname,
            Rule::wrong((Fine, Fails)),
            Walker::accept,
        );
        let last_update = Rule::wrong((skipped, Fails));
        walk.field("lastUpdate", &self.last_update, last_update, Walker::accept);
        let default = (Fine, Loses("uses its default"));
        check_choice(walk, "typingIndicators", &self.typing_indicators, default);
        check_choice(walk, "readReceipts", &self.read_receipts, default);
        walk.field("private", &self.private, BOOL, Walker::accept);
        walk.unknown(&self.unknown);
    }

    /// Only Android uses the key, and only for a contact that was verified in person; iOS requests
    /// all keys from the directory.
    fn check_key(&self, walk: &mut Walker) {
        let mut rule = Rule::wrong((Fine, Fails));
        let in_person = self.verification.on_android() == Some(2);
        let skipped = Loses("skips the contact");
        if in_person {
            let unverified = Loses("restores the contact as unverified");
            rule.absent = (unverified, Fine);
            rule.null = (skipped, Fine);
            rule.wrong = (skipped, Fails);
        }
        walk.field("publickey", &self.public_key, rule, |key, walk| {
            if in_person && key.is_empty() {
                walk.note("empty", rule.absent);
            } else if in_person && !is_key(key) {
                walk.note("not the base64 of 32 bytes", (skipped, Fine));
            }
        });
    }
}

impl Group {
    fn check(&self, walk: &mut Walker) {
        let skipped = Loses("skips the group");
        let needed = Rule {
            wrong: (skipped, Fails),
            ..Rule::same((skipped, skipped))
        };
        let foreign = Loses("creates a group that no other member has");
        let id = Rule {
            // Android converts null to the string "null".
            null: (foreign, skipped),
            ..needed
        };
        walk.field("id", &self.id, id, |id, walk| {
            if !id.len().is_multiple_of(2) {
                walk.note("an odd number of digits", (foreign, Fails));
            } else if hex::decode(id).is_err() {
                walk.note("not hexadecimal", (foreign, skipped));
            } else if id.len() != 16 {
                walk.note("not 16 digits", (foreign, foreign));
            }
        });
        walk.field("creator", &self.creator, needed, |creator, walk| {
            if !is_id(&creator.to_ascii_uppercase()) {
                walk.note("not a Threema ID", (skipped, skipped));
            } else if !is_id(creator) {
                walk.note("lowercase letters", (skipped, Fine));
            }
        });
        walk.field("groupname", &self.name, STRING, Walker::accept);
        walk.field("createdAt", &self.created_at, NUMBER, Walker::accept);
        let alone = Loses("restores the group without members");
        let members = Rule {
            absent: (alone, skipped),
            null: (alone, skipped),
            wrong: (alone, Fails),
        };
        walk.field("members", &self.members, members, |members, walk| {
            let ignored = Loses("ignores the entry");
            walk.items(members, Rule::entry(ignored), |id, walk| {
                if !is_id(&id.to_ascii_uppercase()) {
                    walk.note("not a Threema ID", (ignored, ignored));
                } else if !is_id(id) {
                    walk.note("lowercase letters", (ignored, Fine));
                }
            });
        });
        walk.field("deleted", &self.deleted, BOOL, |&deleted, walk| {
            if deleted {
                walk.note("a deleted group", (skipped, Fine));
            }
        });
        let last_update = Rule::wrong((skipped, Fails));
        walk.field("lastUpdate", &self.last_update, last_update, Walker::accept);
        walk.field("private", &self.private, BOOL, Walker::accept);
        walk.unknown(&self.unknown);
    }
}

impl DistributionList {
    fn check(&self, walk: &mut Walker) {
        let skipped = Loses("skips the list");
        let another = Loses("assigns a new id to the list");
        let id = Rule::wrong((another, Fine));
        walk.field("id", &self.id, id, |id, walk| {
            if id.len() != 16 || hex::decode(id).is_err() {
                walk.note("not 16 hexadecimal digits", (another, Fine));
            }
        });
        let name = Rule {
            absent: (skipped, Fine),
            ..STRING.android_only()
        };
        walk.field("name", &self.name, name, Walker::accept);
        walk.field(
            "createdAt",
            &self.created_at,
            NUMBER.android_only(),
            Walker::accept,
        );
        let empty = Loses("restores the list without members");
        let members = Rule::same((empty, Fine));
        walk.field("members", &self.members, members, |members, walk| {
            check_ids(walk, members, Fine);
        });
        let last_update = Rule::wrong((skipped, Fine));
        walk.field("lastUpdate", &self.last_update, last_update, Walker::accept);
        walk.field(
            "private",
            &self.private,
            BOOL.android_only(),
            Walker::accept,
        );
        walk.unknown(&self.unknown);
    }
}

impl Settings {
    fn check(&self, walk: &mut Walker) {
        let needed = Rule {
            absent: (Fine, Fails),
            null: (Fine, Fails),
            ..BOOL
        };
        walk.field("syncContacts", &self.sync_contacts, needed, Walker::accept);
        for (key, field) in [
            ("blockUnknown", &self.block_unknown),
            ("sendTyping", &self.send_typing),
            ("readReceipts", &self.read_receipts),
            ("threemaCalls", &self.calls),
            ("relayThreemaCalls", &self.relay_calls),
        ] {
            walk.field(key, field, BOOL, Walker::accept);
        }
        let android_alone = (Fine, Loses("has no such setting and ignores it"));
        for (key, field) in [
            ("disableScreenshots", &self.disable_screenshots),
            ("incognitoKeyboard", &self.incognito_keyboard),
        ] {
            walk.field(key, field, BOOL.android_only(), |&is_on, walk| {
                if is_on {
                    walk.note("enabled", android_alone);
                }
            });
        }
        walk.field(
            "blockedContacts",
            &self.blocked_contacts,
            LIST,
            |blocked, walk| {
                check_ids(walk, blocked, Fails);
            },
        );
        let other_key = Loses("uses another key and ignores this one");
        let (android, ios) = (&self.sync_excluded_ids, &self.sync_excluded_ids_ios);
        let has_more = |one: &Field<List<String>>, other: &Field<List<String>>| {
            one.items().any(|id| !other.items().any(|same| same == id))
        };
        walk.field(
            "syncExcludedIds",
            android,
            LIST.android_only(),
            |excluded, walk| {
                if has_more(android, ios) {
                    walk.note("IDs for Android only", (Fine, other_key));
                }
                check_ids(walk, excluded, Fine);
            },
        );
        walk.field("syncExcludedIDs", ios, LIST.ios_only(), |excluded, walk| {
            if has_more(ios, android) {
                walk.note("IDs for iOS only", (other_key, Fine));
            }
            check_ids(walk, excluded, Fails);
        });
        let emojis = LIST.android_only();
        walk.field(
            "recentEmojis",
            &self.recent_emojis,
            emojis,
            |emojis, walk| {
                if !emojis.is_empty() {
                    walk.note("emojis", android_alone);
                }
            },
        );
        walk.unknown(&self.unknown);
    }
}

/// Checks a number that should be 0, 1 or 2. Both apps also read others, iOS as signed 64-bit
/// numbers.
fn check_choice(walk: &mut Walker, key: &str, field: &Field<u64>, other: Effects) {
    let is_negative = matches!(field, Field::Other(value) if value.is_i64());
    let negative = Field::Is(3);
    let field = if is_negative { &negative } else { field };
    walk.field(key, field, NUMBER, |&choice, walk| {
        if i64::try_from(choice).is_err() {
            walk.note("more than 63 bits", (other.0, Fails));
        } else if choice > 2 {
            walk.note("neither 0, 1 nor 2", other);
        }
    });
}

/// Checks a list of Threema IDs.
fn check_ids(walk: &mut Walker, list: &List<String>, wrong_on_ios: Effect) {
    let ignored = Loses("ignores the entry");
    let item = Rule::same((ignored, wrong_on_ios));
    let ignored_on_ios = if wrong_on_ios == Fine { Fine } else { ignored };
    walk.items(list, item, |id, walk| {
        if !is_id(id) {
            walk.note("not a Threema ID", (ignored, ignored_on_ios));
        }
    });
}

fn is_id(text: &str) -> bool {
    text.parse::<ThreemaId>().is_ok()
}

fn is_key(text: &str) -> bool {
    let decoded = BASE64_STANDARD.decode(text).map(Zeroizing::new);
    decoded.is_ok_and(|bytes| bytes.len() == KEY_LENGTH)
}

#[cfg(test)]
mod tests {
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
            ("/groups/0/members", None, "warning: groups[0].members: missing; Android: restores the group without members; iOS: skips the group".into()),
            ("/groups/0/members", Some(json!([1])), format!("error: groups[0].members[0]: not a string; Android: ignores the entry; {IOS}")),
            ("/groups/0/deleted", Some(json!(true)), "warning: groups[0].deleted: a deleted group; Android: skips the group".into()),
            ("/distributionlists", Some(json!([{"name": "List", "members": []}])), "warning: distributionlists: distribution lists; iOS: has no distribution lists and ignores them".into()),
            ("/settings", None, format!("error: settings: missing; Android: keeps its own settings; {IOS}")),
            ("/settings/syncContacts", None, format!("error: settings.syncContacts: missing; {IOS}")),
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
                "warning: distributionlists[2]: not an object; Android: skips the list",
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
            assert!(
                found[0].ends_with("an integer with a fraction; iOS: may not be able to read it")
            );
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
}
