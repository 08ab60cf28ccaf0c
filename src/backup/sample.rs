//! Sample documents: made-up contents, as large and as varied as those of a real user, in the shape
//! in which each app writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::app::App;
use super::document::{
    Contact, Contents, DistributionList, Group, Info, Link, List, Settings, User,
};
use super::field::{Field, SecretString};
use super::id::ThreemaId;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A small profile picture, JPEG.
const PICTURE: &[u8] = include_bytes!("sample.jpg");
const FIRST_NAMES: [&str; 13] = [
    "Aline",
    "Björn",
    "Chiara",
    "Dmitri",
    "Elif",
    "François",
    "Greta",
    "Hồng",
    "Ida",
    "Jürg",
    "Kofi",
    "Łucja",
    "Mehmet",
];
const LAST_NAMES: [&str; 11] = [
    "Ammann",
    "Bianchi",
    "Çelik",
    "Dubois",
    "Eriksen",
    "Fässler",
    "García",
    "Hofer",
    "Ivanova",
    "Jørgensen",
    "Keller",
];

impl Contents {
    /// Creates a document as `app` would write it for the user `identity`, with the given number of
    /// contacts, a tenth as many groups and, on Android, a fiftieth as many distribution lists. The
    /// keys are random. The newest entry is an hour older than `now`.
    ///
    /// # Panics
    /// When the operating system provides no random bytes.
    #[must_use]
    pub fn sample(identity: &ThreemaId, contacts: u32, app: App, now: SystemTime) -> Self {
        let sample = Sample {
            identity: identity.as_str(),
            contacts,
            app,
            now,
        };
        let contacts = sample.list(contacts, |number| sample.contact(number));
        let groups = sample.list(sample.contacts / 10, |number| sample.group(number));
        let lists = sample.list(sample.contacts / 50, |number| {
            sample.distribution_list(number)
        });
        let device = match app {
            App::Android => "6.4.2A/de_CH",
            App::Ios => "ios",
        };
        Self {
            info: Field::Is(Info {
                version: Field::Is(1),
                device: device.into(),
                ..Info::default()
            }),
            user: Field::Is(sample.user()),
            contacts,
            groups,
            distribution_lists: match app {
                App::Android => lists,
                App::Ios => Field::Absent,
            },
            settings: Field::Is(sample.settings()),
            ..Self::default()
        }
    }
}

/// The parameters of a sample document.
struct Sample<'a> {
    identity: &'a str,
    contacts: u32,
    app: App,
    now: SystemTime,
}

impl Sample<'_> {
    /// A list of `count` items; iOS omits an empty list.
    fn list<T>(&self, count: u32, item: impl Fn(u32) -> T) -> Field<List<Box<T>>> {
        if count == 0 && self.app == App::Ios {
            return Field::Absent;
        }
        Field::Is(
            (0..count)
                .map(|number| Field::Is(Box::new(item(number))))
                .collect(),
        )
    }

    fn user(&self) -> User {
        // Telephone number and email address are from the ranges reserved for examples.
        let link = |kind: &str, value: &str| {
            Field::Is(Box::new(Link {
                kind: kind.into(),
                value: value.into(),
                name: self.ios(String::new()),
                ..Link::default()
            }))
        };
        User {
            private_key: Field::Is(SecretString::new(random_key())),
            nickname: "Sample".into(),
            profile_picture: Field::Is(BASE64_STANDARD.encode(PICTURE)),
            profile_picture_release: Field::Is(vec!["*".into()]),
            links: Field::Is(vec![
                link("mobile", "447700900123"),
                link("email", "sample@example.org"),
            ]),
            ..User::default()
        }
    }

    fn contact(&self, number: u32) -> Contact {
        let verification = match number % 5 {
            0 => 2,
            1 | 2 => 1,
            _ => 0,
        };
        let last_name = (!number.is_multiple_of(7)).then(|| pick(&LAST_NAMES, number));
        Contact {
            identity: Field::Is(contact_id(number)),
            public_key: present((verification == 2).then(random_key)),
            created_at: Field::Is(self.days_ago(30 + number % 1_000)),
            verification: Field::Is(verification),
            work_verified: Field::Is(verification == 1),
            hidden: Field::Is(false),
            first_name: pick(&FIRST_NAMES, number).into(),
            last_name: self.name(last_name),
            nickname: self.name((!number.is_multiple_of(3)).then(|| pick(&FIRST_NAMES, number))),
            last_update: present((!number.is_multiple_of(4)).then(|| self.days_ago(number % 400))),
            typing_indicators: Field::Is(u64::from(number.is_multiple_of(50)) * 2),
            read_receipts: Field::Is(0),
            private: Field::Is(false),
            ..Contact::default()
        }
    }

    fn group(&self, number: u32) -> Group {
        let others =
            (0..3 + number % 15).map(|offset| contact_id((number + offset) % self.contacts));
        let members = [self.identity.to_owned()].into_iter().chain(others);
        Group {
            id: Field::Is(hex::encode(
                (u64::from(number) + 1).wrapping_mul(SPREAD).to_le_bytes(),
            )),
            creator: if number.is_multiple_of(2) {
                self.identity.into()
            } else {
                Field::Is(contact_id(number % self.contacts))
            },
            name: Field::Is(format!("{} & Co. 🎉", pick(&LAST_NAMES, number))),
            created_at: Field::Is(match self.app {
                App::Android => self.days_ago(200 + number),
                App::Ios => 0,
            }),
            members: Field::Is(members.map(Field::Is).collect()),
            deleted: Field::Is(false),
            last_update: Field::Is(self.days_ago(number % 100)),
            private: Field::Is(false),
            ..Group::default()
        }
    }

    fn distribution_list(&self, number: u32) -> DistributionList {
        let members = (0..20).map(|offset| contact_id((number + offset) % self.contacts));
        DistributionList {
            id: Field::Is(hex::encode((u64::from(number) + 1).to_le_bytes())),
            name: Field::Is(format!("Newsletter {}", number + 1)),
            created_at: Field::Is(self.days_ago(300)),
            members: Field::Is(members.map(Field::Is).collect()),
            last_update: Field::Is(self.days_ago(14)),
            private: Field::Is(false),
            ..DistributionList::default()
        }
    }

    fn settings(&self) -> Settings {
        let excluded: List<String> = Vec::new();
        let (android, ios) = match self.app {
            App::Android => (Field::Is(excluded), Field::Absent),
            App::Ios => (Field::Absent, Field::Is(excluded)),
        };
        Settings {
            sync_contacts: Field::Is(false),
            block_unknown: Field::Is(false),
            send_typing: Field::Is(true),
            read_receipts: Field::Is(true),
            calls: Field::Is(true),
            relay_calls: Field::Is(false),
            disable_screenshots: self.android(false),
            incognito_keyboard: self.android(false),
            blocked_contacts: Field::Is(vec![]),
            sync_excluded_ids: android,
            sync_excluded_ids_ios: ios,
            recent_emojis: self.android(vec!["👍".into(), "😀".into()]),
            ..Settings::default()
        }
    }

    /// A field that only Android writes.
    fn android<T>(&self, value: T) -> Field<T> {
        present((self.app == App::Android).then_some(value))
    }

    /// A field that only iOS writes.
    fn ios<T>(&self, value: T) -> Field<T> {
        present((self.app == App::Ios).then_some(value))
    }

    /// A name that may be unknown: Android then omits it, iOS writes an empty string.
    fn name(&self, name: Option<&str>) -> Field<String> {
        name.map_or_else(|| self.ios(String::new()), Field::from)
    }

    /// The time `days` days and one hour before now, in milliseconds since 1970.
    fn days_ago(&self, days: u32) -> u64 {
        let time = self.now.checked_sub(DAY * days + DAY / 24);
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

fn present<T>(value: Option<T>) -> Field<T> {
    value.map_or(Field::Absent, Field::Is)
}

/// Multiplier that scatters consecutive numbers; coprime to all powers of 2 and of 36.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The Threema ID of the made-up contact with this number. No two numbers have the same one.
fn contact_id(number: u32) -> String {
    const ALPHABET: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut rest = u128::from(number) * u128::from(SPREAD) % 36_u128.pow(8);
    let digit = |_| {
        let digit = ALPHABET.get(usize::try_from(rest % 36).unwrap_or_default());
        rest /= 36;
        char::from(*digit.unwrap_or(&b'0'))
    };
    (0..8).map(digit).collect()
}

fn pick<'a>(names: &[&'a str], number: u32) -> &'a str {
    names
        .iter()
        .cycle()
        .nth(number as usize % names.len())
        .copied()
        .unwrap_or_default()
}

fn random_key() -> String {
    let mut key = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(&mut *key).expect("the operating system provides random bytes");
    BASE64_STANDARD.encode(*key)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::finding::Effect;
    use super::*;

    fn sample(contacts: u32, app: App) -> Contents {
        let now = UNIX_EPOCH + DAY * 20_000;
        Contents::sample(&"ECHOECHO".parse().unwrap(), contacts, app, now)
    }

    #[test]
    fn each_app_would_restore_its_sample_completely() {
        for contacts in [0, 1, 9, 10, 137, 1_000] {
            for app in App::ALL {
                let findings = sample(contacts, app).validate();
                let own = findings.iter().filter(|finding| match app {
                    App::Android => finding.android != Effect::Fine,
                    App::Ios => finding.ios != Effect::Fine,
                });
                assert_eq!(own.count(), 0, "{app} {contacts}: {findings:?}");
            }
        }
    }

    #[test]
    fn a_sample_has_the_requested_number_of_entries() {
        let contents = sample(5_000, App::Android);

        let contacts = contents.contacts.items().filter_map(Field::get);
        let ids: HashSet<_> = contacts
            .filter_map(|contact| contact.identity.get())
            .collect();
        assert_eq!(ids.len(), 5_000);
        assert_eq!(contents.groups.items().count(), 500);
        assert_eq!(contents.distribution_lists.items().count(), 100);
        let newest = contents.newest_entry().unwrap();
        assert_eq!(newest, (20_000 * 24 - 1) * 3_600_000);
    }

    /// Sizes of real backups: about 40 kB without the picture for 100 contacts with 20 groups,
    /// about 335 kB for 1000 contacts.
    #[test]
    fn a_sample_is_as_large_as_a_real_backup() {
        for (contacts, range) in [
            (0, 1_000..2_000),
            (100, 25_000..50_000),
            (1_000, 270_000..400_000),
        ] {
            let size = sample(contacts, App::Android).to_document().json().len();
            assert!(range.contains(&size), "{contacts} contacts: {size} bytes");
        }
    }

    #[test]
    fn the_apps_write_different_shapes() {
        let text = |app| String::from_utf8(sample(0, app).to_document().json().to_vec()).unwrap();
        let (android, ios) = (text(App::Android), text(App::Ios));
        for (key, on_android, on_ios) in [
            ("\"contacts\":[]", true, false),
            ("\"distributionlists\":[]", true, false),
            ("\"syncExcludedIds\":[]", true, false),
            ("\"syncExcludedIDs\":[]", false, true),
            ("\"device\":\"ios\"", false, true),
            ("\"device\":\"6.4.2A\\/de_CH\"", true, false),
            ("\"incognitoKeyboard\":", true, false),
            ("\"name\":\"\"", false, true),
        ] {
            assert_eq!(android.contains(key), on_android, "{key}");
            assert_eq!(ios.contains(key), on_ios, "{key}");
        }
    }
}
