//! Properties of the backup format, and the memory that opening takes.

use std::io::Write;
use std::time::UNIX_EPOCH;

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::Value;
use threema_safe_server::backup::{
    App, BackupKey, Contents, Document, INFLATE_LIMIT, MasterKey, NONCE_LENGTH, Nonce, OVERHEAD,
    OpenError, Password, SealedBackup, open, seal,
};
use zeroize::Zeroizing;

const KEY: [u8; 32] = [7; 32];

fn key() -> BackupKey {
    BackupKey::from_bytes(KEY)
}

fn document(value: &Value) -> Document {
    Document::from_json(Zeroizing::new(value.to_string().into_bytes())).unwrap()
}

/// Any JSON, with the keys of the schema among its keys.
fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop_oneof![
        prop::sample::select(vec![
            "info",
            "version",
            "device",
            "user",
            "privatekey",
            "nickname",
            "profilePic",
            "profilePicRelease",
            "links",
            "type",
            "name",
            "value",
            "contacts",
            "identity",
            "publickey",
            "createdAt",
            "verification",
            "lastUpdate",
            "groups",
            "id",
            "creator",
            "members",
            "deleted",
            "distributionlists",
            "settings",
            "syncContacts",
            "syncExcludedIds",
            "syncExcludedIDs",
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[0-9A-Z*/\\\\\"]{8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 128, 8, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::from),
            btree_map(keys.clone(), inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Any object of JSON.
fn any_document() -> impl Strategy<Value = Value> {
    btree_map(
        "(info|user|contacts|groups|distributionlists|settings|.{0,3})",
        any_json(),
        0..8,
    )
    .prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

/// Something that happens to bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Append(Vec<u8>),
    Swap(prop::sample::Index, prop::sample::Index),
    Fill(prop::sample::Index, u8),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1_u8..).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        at().prop_map(Mutation::Cut),
        at().prop_map(Mutation::Remove),
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        vec(any::<u8>(), 1..64).prop_map(Mutation::Append),
        (at(), at()).prop_map(|(one, other)| Mutation::Swap(one, other)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Fill(at, byte)),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        match self {
            _ if length == 0 => bytes.push(0),
            Self::Flip(at, bits) => bytes[at.index(length)] ^= bits,
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Remove(at) => drop(bytes.remove(at.index(length))),
            Self::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Self::Append(more) => bytes.extend_from_slice(more),
            Self::Swap(one, other) => bytes.swap(one.index(length), other.index(length)),
            Self::Fill(at, byte) => bytes[at.index(length)..].fill(*byte),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sealed_opens_to_the_same_bytes(
        value in any_document(),
        spaces in " {0,3}",
        key: [u8; 32],
        nonce: [u8; NONCE_LENGTH],
    ) {
        let key = BackupKey::from_bytes(key);
        let json = format!("{spaces}{value}{spaces}");
        let document = Document::from_json(Zeroizing::new(json.clone().into())).unwrap();

        let sealed = seal(&document, &key, Nonce::from_bytes(nonce));
        let opened = open(sealed, &key, json.len()).unwrap();

        prop_assert_eq!(opened.json(), json.as_bytes());
    }

    #[test]
    fn no_mutation_of_a_sealed_backup_opens(
        value in any_document(),
        mutations in vec(any_mutation(), 1..5),
    ) {
        let sealed = seal(&document(&value), &key(), Nonce::from_bytes([3; NONCE_LENGTH]));
        let mut mutated = sealed.as_bytes().to_vec();
        for mutation in &mutations {
            mutation.apply(&mut mutated);
        }
        prop_assume!(mutated != *sealed.as_bytes());

        let short = mutated.len() <= OVERHEAD;
        let error = SealedBackup::try_from(Bytes::from(mutated))
            .and_then(|mutated| open(mutated, &key(), INFLATE_LIMIT))
            .err()
            .unwrap();

        if short {
            prop_assert!(matches!(error, OpenError::TooShort { .. }), "{error}");
        } else {
            prop_assert_eq!(error, OpenError::WrongPasswordOrDamaged);
        }
    }

    #[test]
    fn anything_under_the_right_key_opens_or_says_why(contents: Vec<u8>, mutations in vec(any_mutation(), 0..4)) {
        let mut gzip = gzip(&contents, 6);
        for mutation in &mutations {
            mutation.apply(&mut gzip);
        }
        for contents in [contents, gzip] {
            drop(open(seal_bytes(&contents), &key(), 100_000));
        }
    }

    #[test]
    fn reading_and_writing_a_document_changes_nothing(value in any_document()) {
        let contents = document(&value).contents().unwrap();

        let written = contents.to_document();

        let again: Value = serde_json::from_slice(written.json()).unwrap();
        prop_assert_eq!(again, value);
    }

    #[test]
    fn every_finding_has_a_place_and_a_problem(value in any_document()) {
        for finding in document(&value).contents().unwrap().validate() {
            prop_assert!(!finding.path.is_empty() && !finding.problem.is_empty());
            prop_assert!(finding.to_string().contains(&finding.path));
        }
    }

    #[test]
    fn a_long_password_of_different_characters_has_no_flaw(text in "[a-z]{4,2000}[0-9]{4}[A-Z!äß€]{1,92}") {
        prop_assert_eq!(Password::from(text.as_str()).concerns(), []);
    }
}

fn gzip(contents: &[u8], level: u32) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    gzip.write_all(contents).unwrap();
    gzip.finish().unwrap()
}

/// Encrypts any bytes, gzip or not.
fn seal_bytes(contents: &[u8]) -> SealedBackup {
    // An empty text cannot be sealed: it would be too short to be a backup.
    let contents = if contents.is_empty() { b"\0" } else { contents };
    let cipher = XSalsa20Poly1305::new_from_slice(&KEY).unwrap();
    let nonce = [1; NONCE_LENGTH];
    let sealed = [
        &nonce[..],
        &cipher.encrypt((&nonce).into(), contents).unwrap(),
    ]
    .concat();
    Bytes::from(sealed).try_into().unwrap()
}

/// What opening these contents allocates at most at one time, in bytes, and the document's length.
fn peak(contents: &[u8], limit: usize) -> (u64, Option<u64>) {
    let sealed = seal_bytes(contents);
    let mut length = None;
    let AllocationInfo { bytes_max, .. } = measure(|| {
        length = open(sealed, &key(), limit)
            .ok()
            .map(|document| document.json().len() as u64);
    });
    (bytes_max, length)
}

/// What opening may allocate beside the document: state and window of the inflater, at most two of
/// them.
const CONSTANT: u64 = 128 << 10;

#[test]
fn opening_allocates_the_document_and_a_constant() {
    for contacts in [0, 150, 1_500, 15_000] {
        let sample = Contents::sample(
            &"ECHOECHO".parse().unwrap(),
            contacts,
            App::Android,
            UNIX_EPOCH,
        );
        let sample = sample.to_document();
        let (first, second) = sample.json().split_at(sample.json().len() / 3);
        let members = [gzip(first, 0), gzip(second, 9)].concat();
        for contents in [gzip(sample.json(), 0), gzip(sample.json(), 9), members] {
            let (peak, length) = peak(&contents, INFLATE_LIMIT);
            let length = length.unwrap();
            assert!(peak >= length, "measured nothing: {peak} of {length}");
            assert!(
                peak <= length + CONSTANT,
                "{peak} bytes for a document of {length}"
            );
        }
    }
}

#[test]
fn opening_shared_bytes_allocates_a_copy_too() {
    let sealed = seal_bytes(&gzip(&[b"{}".to_vec(), vec![b' '; 1 << 20]].concat(), 0));
    let mut length = 0;
    let AllocationInfo { bytes_max, .. } = measure(|| {
        let document = open(sealed.clone(), &key(), INFLATE_LIMIT).unwrap();
        length = (document.json().len() + sealed.as_bytes().len()) as u64;
    });
    assert!(
        (length..=length + CONSTANT).contains(&bytes_max),
        "{bytes_max} of {length}"
    );
}

#[test]
fn a_bomb_allocates_the_constant_alone() {
    let bomb = gzip(&vec![b' '; 8 << 20], 9);
    for limit in [0, 1_000, (8 << 20) - 1] {
        let (peak, length) = peak(&bomb, limit);
        assert_eq!(length, None);
        assert!(peak <= CONSTANT, "{peak} bytes");
    }
}

/// What a parser remembers of arrays within each other has no bound of its own.
#[test]
fn a_nest_allocates_the_document_and_a_constant() {
    for (levels, is_bomb) in [(16_380, false), (8 << 20, true)] {
        let close = if is_bomb { 0 } else { levels };
        let nest = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(close));
        let (peak, opened) = peak(&gzip(nest.as_bytes(), 9), INFLATE_LIMIT);
        let length = nest.len() as u64;
        assert_eq!(opened.is_none(), is_bomb);
        assert!(
            (length..=length + CONSTANT).contains(&peak),
            "{peak} bytes for a document of {length}"
        );
    }
}

/// As many values as contents may have: contacts without fields, which a small bomb can hold, and
/// fields that neither app knows, which take the most memory.
#[test]
fn taking_apart_allocates_what_the_documentation_says() {
    let fields: Vec<_> = (0..999_998).map(|key| format!("\"{key}\":0")).collect();
    for (json, bound) in [
        (
            format!("{{\"contacts\":[{}{{}}]}}", "{},".repeat(499_998)),
            200 << 20,
        ),
        (format!("{{{}}}", fields.join(",")), 600 << 20),
    ] {
        let document = Document::from_json(Zeroizing::new(json.into())).unwrap();
        let AllocationInfo { bytes_max, .. } = measure(|| drop(document.contents().unwrap()));
        assert!((bound / 2..=bound).contains(&bytes_max), "{bytes_max}");
    }
}

#[test]
fn a_wrong_key_allocates_nothing_of_the_backups_size() {
    let sealed = seal_bytes(&gzip(&vec![b' '; 4 << 20], 0));
    let AllocationInfo { bytes_max, .. } = measure(|| {
        let wrong = BackupKey::from_bytes([8; 32]);
        assert!(open(sealed, &wrong, INFLATE_LIMIT).is_err());
    });
    assert!(bytes_max <= CONSTANT, "{bytes_max} bytes");
}

/// The text of the fenced block of docs/FORMAT.md with these words behind the fence.
fn block(name: &str) -> &'static str {
    const PAGE: &str = include_str!("../../../docs/FORMAT.md");
    let (_, rest) = PAGE.split_once(&format!("```{name}\n")).expect(name);
    rest.split_once("\n```").expect(name).0
}

fn hex_block(name: &str) -> Vec<u8> {
    hex::decode(block(&format!("hex {name}")).replace([' ', '\n'], "")).unwrap()
}

#[test]
fn the_worked_example_of_the_documentation_is_what_comes_out() {
    assert_eq!(hex_block("password"), b"shootdeathstar");
    assert_eq!(hex_block("salt"), b"ECHOECHO");
    let json = block("json document").as_bytes();
    let document = Document::from_json(Zeroizing::new(json.to_vec())).unwrap();
    assert_eq!(document.contents().unwrap().validate(), []);

    let derived = MasterKey::derive(&"shootdeathstar".into(), &"ECHOECHO".parse().unwrap());
    let nonce = hex_block("nonce").try_into().unwrap();
    let sealed = seal(&document, &derived.backup_key(), Nonce::from_bytes(nonce));

    let parts = [
        hex_block("nonce"),
        hex_block("tag"),
        hex_block("ciphertext"),
    ];
    assert_eq!(sealed.as_bytes(), &parts.concat());
    assert_eq!(sealed.as_bytes().len(), json.len() + 63);
    let master_key = hex_block("master key");
    let (id, key) = master_key.split_at(32);
    assert_eq!(derived.backup_id().to_hex(), hex::encode(id));
    // The key as it stands on the page opens it, and inside is the gzip that stands there.
    let cipher = XSalsa20Poly1305::new_from_slice(key).unwrap();
    let contents = cipher
        .decrypt((&nonce).into(), &*parts[1..].concat())
        .unwrap();
    assert_eq!(contents, hex_block("gzip"));
}
