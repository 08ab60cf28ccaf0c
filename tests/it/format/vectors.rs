//! Test vectors of the backup format, which an independent implementation made.
//!
//! `tests/vectors/README.md` explains the files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use threema_safe_server::backup::{
    BackupId, BackupKey, Document, DocumentError, INFLATE_LIMIT, MasterKey, NONCE_LENGTH, Nonce,
    OpenError, Password, SealedBackup, ThreemaId, open, seal,
};
use zeroize::Zeroizing;

/// What the folder holds beside the vectors.
const OTHER_FILES: [&str; 3] = ["README.md", "make.py", "safe_backup.py"];
/// Digits in a line of a sealed backup.
const COLUMNS: usize = 80;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// The enum of outcomes and the list of all of them with their names, from one table.
macro_rules! outcomes {
    ($($outcome:ident = $name:literal,)*) => {
        /// What a vector says will happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        enum Outcome {
            $($outcome,)*
        }

        impl Outcome {
            const ALL: &[(Self, &str)] = &[$((Self::$outcome, $name),)*];
        }
    };
}

outcomes! {
    Derives = "derives",
    Success = "success",
    TooShort = "too short",
    WrongPasswordOrDamaged = "wrong password or damaged",
    NotGzip = "not gzip",
    BrokenGzip = "broken gzip",
    TooLarge = "too large",
    NotJson = "not json",
    NotAnObject = "not an object",
    TooDeep = "too deep",
}

impl Outcome {
    fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|(_, its)| *its == name)
            .map(|(outcome, _)| *outcome)
    }

    fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(outcome, _)| *outcome == self).unwrap().1
    }

    /// Without a wildcard: an error that is new needs a name, and then a vector.
    fn of(error: &OpenError) -> Self {
        match error {
            OpenError::TooShort { .. } => Self::TooShort,
            OpenError::WrongPasswordOrDamaged => Self::WrongPasswordOrDamaged,
            OpenError::NotGzip => Self::NotGzip,
            OpenError::BrokenGzip => Self::BrokenGzip,
            OpenError::TooLarge { .. } => Self::TooLarge,
            OpenError::NotADocument(DocumentError::NotJson { .. }) => Self::NotJson,
            OpenError::NotADocument(DocumentError::NotAnObject) => Self::NotAnObject,
            OpenError::NotADocument(DocumentError::TooDeep) => Self::TooDeep,
        }
    }
}

/// One file.
struct Vector {
    expect: Outcome,
    password: Vec<u8>,
    threema_id: [u8; 8],
    backup_id: BackupId,
    key: [u8; 32],
    limit: usize,
    /// With [`Outcome::Success`].
    document: Option<ExpectedDocument>,
    sealing_again: bool,
    /// Not with [`Outcome::Derives`].
    sealed: Option<Bytes>,
}

/// A document, or what is known of it.
enum ExpectedDocument {
    Text(String),
    Hash { sha256: [u8; 32], length: usize },
}

impl ExpectedDocument {
    fn are(&self, json: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.as_bytes() == json,
            Self::Hash { sha256, length } => {
                json.len() == *length && Sha256::digest(json)[..] == sha256[..]
            }
        }
    }
}

/// The keys of a file that were not yet asked for.
struct Keys<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Keys<'a> {
    fn of(header: &'a str) -> Result<Self, String> {
        let mut keys = BTreeMap::new();
        for line in header.lines() {
            let (key, value) = line
                .split_once(": ")
                .ok_or_else(|| format!("a line without key and value: {line:?}"))?;
            if value.is_empty() || value.trim() != value {
                return Err(format!("{key}: no value, or space around it"));
            }
            if keys.insert(key, value).is_some() {
                return Err(format!("{key}: twice"));
            }
        }
        Ok(Self(keys))
    }

    fn optional(&mut self, key: &str) -> Option<&'a str> {
        self.0.remove(key)
    }

    fn required(&mut self, key: &str) -> Result<&'a str, String> {
        self.optional(key).ok_or_else(|| format!("{key}: missing"))
    }

    fn number(&mut self, key: &str) -> Result<Option<usize>, String> {
        let parse = |text: &str| text.parse().map_err(|error| format!("{key}: {error}"));
        self.optional(key).map(parse).transpose()
    }

    /// One of two spellings, and not both.
    fn either(&mut self, one: &str, other: &str) -> Result<(Option<&'a str>, &'a str), String> {
        match (self.optional(one), self.optional(other)) {
            (Some(value), None) => Ok((Some(value), value)),
            (None, Some(value)) => Ok((None, value)),
            _ => Err(format!("{one}, {other}: one of the two, please")),
        }
    }

    fn end(self) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        let keys: Vec<&str> = self.0.into_keys().collect();
        Err(format!("keys that do not belong here: {}", keys.join(", ")))
    }
}

fn bytes<const LENGTH: usize>(key: &str, digits: &str) -> Result<[u8; LENGTH], String> {
    let bytes = lowercase_hex(digits).map_err(|error| format!("{key}: {error}"))?;
    bytes
        .try_into()
        .map_err(|_| format!("{key}: not {LENGTH} bytes"))
}

fn lowercase_hex(digits: &str) -> Result<Vec<u8>, String> {
    if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("digits in capitals".into());
    }
    hex::decode(digits).map_err(|error| error.to_string())
}

impl Vector {
    /// Reads a file; every key belongs to its kind, and none is there twice.
    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let (header, body) = match text.split_once("\n\n") {
            Some((header, body)) => (header, Some(body)),
            None => (
                text.strip_suffix('\n').ok_or("no line break at the end")?,
                None,
            ),
        };
        let mut keys = Keys::of(header)?;
        let expect = keys.required("expect")?;
        let expect = Outcome::named(expect).ok_or_else(|| format!("expect: unknown: {expect}"))?;
        if !name.starts_with(&format!("{}-", expect.name().replace(' ', "-"))) {
            return Err(format!(
                "expects {:?}, and its name says otherwise",
                expect.name()
            ));
        }
        keys.required("comment")?;
        let opens = expect != Outcome::Derives;
        let vector = Self {
            expect,
            password: parse_password(&mut keys)?,
            threema_id: keys
                .required("threema id")?
                .as_bytes()
                .try_into()
                .map_err(|_| "threema id: not 8 bytes")?,
            backup_id: keys
                .required("backup id")?
                .parse()
                .map_err(|error| format!("backup id: {error}"))?,
            key: bytes("key", keys.required("key")?)?,
            limit: opens
                .then(|| keys.number("limit"))
                .transpose()?
                .flatten()
                .unwrap_or(INFLATE_LIMIT),
            document: (expect == Outcome::Success)
                .then(|| parse_document(&mut keys))
                .transpose()?,
            sealing_again: expect == Outcome::Success
                && match keys.optional("sealing again") {
                    None => false,
                    Some("same bytes") => true,
                    Some(other) => return Err(format!("sealing again: unknown: {other}")),
                },
            sealed: match (opens, body) {
                (false, None) => None,
                (false, Some(_)) => return Err("a backup, and nothing to do with it".into()),
                (true, None) => return Err("no empty line before the backup".into()),
                (true, Some(body)) => Some(parse_sealed(&mut keys, body)?),
            },
        };
        keys.end()?;
        Ok(vector)
    }
}

fn parse_password(keys: &mut Keys<'_>) -> Result<Vec<u8>, String> {
    let (plain, value) = keys.either("password", "password hex")?;
    match plain {
        Some(text) if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => Ok(text.into()),
        Some(_) => Err("password: in hex, please, if it is not printable ASCII".into()),
        None => lowercase_hex(value).map_err(|error| format!("password hex: {error}")),
    }
}

fn parse_document(keys: &mut Keys<'_>) -> Result<ExpectedDocument, String> {
    let (plain, value) = keys.either("document", "document sha256")?;
    if let Some(text) = plain {
        return Ok(ExpectedDocument::Text(text.into()));
    }
    Ok(ExpectedDocument::Hash {
        sha256: bytes("document sha256", value)?,
        length: keys
            .number("document length")?
            .ok_or("document length: missing")?,
    })
}

fn parse_sealed(keys: &mut Keys<'_>, body: &str) -> Result<Bytes, String> {
    let length = keys
        .number("sealed length")?
        .ok_or("sealed length: missing")?;
    let lines: Vec<&str> = body.lines().collect();
    let (last, others) = lines.split_last().unwrap_or((&"", &[]));
    let whole = others.iter().all(|line| line.len() == COLUMNS)
        && last.len() <= COLUMNS
        && (body.is_empty() || (!last.is_empty() && body.ends_with('\n')));
    if !whole {
        return Err(format!(
            "the backup does not stand in lines of {COLUMNS} digits"
        ));
    }
    let sealed = lowercase_hex(&lines.concat())?;
    if sealed.len() != length {
        return Err(format!(
            "sealed length: {length}, but it is {}",
            sealed.len()
        ));
    }
    Ok(sealed.into())
}

/// Derives each password and ID once: it takes an eighth of a second.
#[derive(Default)]
struct Derived(HashMap<(Vec<u8>, [u8; 8]), MasterKey>);

impl Derived {
    fn master_key(&mut self, vector: &Vector) -> &MasterKey {
        let entry = self.0.entry((vector.password.clone(), vector.threema_id));
        entry.or_insert_with(|| {
            let password = Password::new(Zeroizing::new(vector.password.clone()));
            // As an app does where it is an ID, and with the bare salt where it is none.
            let id = str::from_utf8(&vector.threema_id).unwrap_or_default();
            match id.parse::<ThreemaId>() {
                Ok(id) => MasterKey::derive(&password, &id),
                Err(_) => MasterKey::derive_with_salt(&password, &vector.threema_id),
            }
        })
    }
}

/// Does what a vector says, and says what went otherwise.
fn run(vector: &Vector, derived: &mut Derived) -> Result<(), String> {
    let master_key = derived.master_key(vector);
    if master_key.backup_id() != vector.backup_id {
        let got = master_key.backup_id().to_hex();
        return Err(format!(
            "expected the backup id {}, got {got}",
            vector.backup_id.to_hex()
        ));
    }
    let key = master_key.backup_key();
    if !is_key(&key, vector.key) {
        return Err(format!(
            "expected the key {}, got another",
            hex::encode(vector.key)
        ));
    }
    let Some(sealed) = &vector.sealed else {
        return Ok(());
    };

    let result =
        SealedBackup::try_from(sealed.clone()).and_then(|sealed| open(sealed, &key, vector.limit));
    let got = match &result {
        Ok(_) => Outcome::Success,
        Err(error) => Outcome::of(error),
    };
    if got != vector.expect {
        let (expected, got) = (vector.expect.name(), got.name());
        return Err(format!("expected {expected:?}, got {got:?}"));
    }
    match result {
        Ok(document) => check_document(vector, sealed, &key, &document),
        Err(OpenError::TooShort { length }) if length != sealed.len() => {
            Err(format!("the error speaks of {length} bytes"))
        }
        Err(OpenError::TooLarge { limit }) if limit != vector.limit => {
            Err(format!("the error speaks of a limit of {limit} bytes"))
        }
        Err(_) => Ok(()),
    }
}

/// A key cannot be looked at; what it seals opens under the expected key and under no other.
fn is_key(key: &BackupKey, expected: [u8; 32]) -> bool {
    let document = Document::from_json(Zeroizing::new(b"{}".to_vec())).unwrap();
    let sealed = seal(&document, key, Nonce::random());
    open(sealed, &BackupKey::from_bytes(expected), INFLATE_LIMIT).is_ok()
}

fn check_document(
    vector: &Vector,
    sealed: &[u8],
    key: &BackupKey,
    document: &Document,
) -> Result<(), String> {
    if !vector.document.as_ref().unwrap().are(document.json()) {
        let got = document.json().len();
        return Err(format!(
            "expected another document than the one of {got} bytes"
        ));
    }
    let nonce: [u8; NONCE_LENGTH] = *sealed.first_chunk().unwrap();
    let again = seal(document, key, Nonce::from_bytes(nonce));
    if vector.sealing_again && again.as_bytes() != sealed {
        let pairs = again.as_bytes().iter().zip(sealed);
        let same = pairs.take_while(|(one, other)| one == other).count();
        return Err(format!("sealing gives other bytes, after {same} the same"));
    }
    Ok(())
}

/// The names and texts of all vectors.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".txt") {
            files.push((name, fs::read_to_string(path).unwrap()));
        } else {
            let known = path.is_dir() || OTHER_FILES.contains(&name.as_str());
            assert!(known, "{name} is not a vector, and no test reads it");
        }
    }
    files.sort();
    files
}

#[test]
fn every_vector_does_what_it_says() {
    let mut derived = Derived::default();
    let mut outcomes = BTreeSet::new();
    let mut failures = Vec::new();
    for (name, text) in files() {
        let result = Vector::parse(&name, &text).and_then(|vector| {
            outcomes.insert(vector.expect);
            run(&vector, &mut derived)
        });
        if let Err(failure) = result {
            failures.push(format!("{name}: {failure}"));
        }
    }
    for (outcome, name) in Outcome::ALL {
        if !outcomes.contains(outcome) {
            failures.push(format!("no vector expects {name:?}"));
        }
    }

    let list = failures.join("\n");
    assert!(list.is_empty(), "{} failures:\n{list}", failures.len());
}

#[test]
fn the_readme_of_the_vectors_counts_them_and_explains_what_they_expect() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let sentence = format!("There are {} vectors.", files().len());
    assert!(readme.contains(&sentence), "it does not say: {sentence}");
    for (_, name) in Outcome::ALL {
        assert!(
            readme.contains(&format!("| `{name}` |")),
            "nothing of {name:?}"
        );
    }
}

#[test]
fn a_vector_with_a_mistake_is_refused() {
    let good = fs::read_to_string(folder().join("success-stored.txt")).unwrap();
    let parse = |text: &str| Vector::parse("success-stored.txt", text).err();
    assert_eq!(parse(&good), None);

    for (from, to, expected) in [
        ("comment: ", "remark: ", "comment: missing"),
        (
            "expect: success",
            "expect: failure",
            "expect: unknown: failure",
        ),
        (
            "expect: success",
            "expect: not gzip",
            "its name says otherwise",
        ),
        (
            "key: ",
            "colour: green\nkey: ",
            "do not belong here: colour",
        ),
        ("key: ", "limit: 1\nlimit: 2\nkey: ", "limit: twice"),
        ("key: ", "limit: many\nkey: ", "limit: invalid digit"),
        ("key: ", "key: 00", "key: not 32 bytes"),
        ("key: 51", "key: 5Z", "key: digits in capitals"),
        (
            "threema id: ECHO",
            "threema id: ECO",
            "threema id: not 8 bytes",
        ),
        ("password: ", "password: \u{e9}", "password: in hex, please"),
        (
            "password: ",
            "password hex: 00\npassword: ",
            "one of the two",
        ),
        (
            "document: ",
            "document length: 1\ndocument: ",
            "here: document length",
        ),
        ("same bytes", "other bytes", "sealing again: unknown"),
        (
            "sealed length: 289",
            "sealed length: 288",
            "288, but it is 289",
        ),
        ("289\n\n00", "289\n\n", "in lines of 80 digits"),
        ("289\n\n00", "289\n00", "a line without key and value"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = parse(&good.replacen(from, to, 1)).unwrap_or_default();
        assert!(error.contains(expected), "{from:?} → {to:?}: {error:?}");
    }
}
