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
#[path = "validate_tests.rs"]
mod tests;
