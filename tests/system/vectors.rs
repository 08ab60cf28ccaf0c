//! Backup format compared with an independent implementation in Python.
//!
//! `tests/vectors/README.md` explains the files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use threema_safe_server::backup::{
    BackupKey, Document, INFLATE_LIMIT, MasterKey, Nonce, OpenError, SealedBackup, open, seal,
};
use zeroize::Zeroizing;

tests! {
    the_vectors_are_what_their_program_makes: blocking [PYNACL];
    what_the_other_implementation_seals_opens_here: blocking [PYNACL];
    what_is_sealed_here_opens_in_the_other_implementation: blocking [PYNACL];
    both_implementations_have_the_same_limit: blocking [PYNACL];
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn the_vectors_are_what_their_program_makes() {
    let output = Command::new("python3")
        .arg(folder().join("make.py"))
        .arg("--check")
        .stdin(Stdio::null())
        .output()
        .unwrap();

    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The independent implementation, with a password, an ID and a folder of its own.
struct Other {
    folder: tempfile::TempDir,
    key: BackupKey,
}

impl Other {
    const PASSWORD: &str = " p\u{fc}ssiK\u{f6}sch-e\u{301} \u{1f512}";
    const THREEMA_ID: &str = "*THREEMA";

    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("password"), Self::PASSWORD).unwrap();
        let id = Self::THREEMA_ID.parse().unwrap();
        let key = MasterKey::derive(&Self::PASSWORD.into(), &id).backup_key();
        Self { folder, key }
    }

    /// Runs a command of `safe_backup.py`; input and password are files, so that nothing waits for
    /// anything and no secret is an argument.
    fn run(&self, command: &str, level: &[&str], input: &[u8]) -> Output {
        let file = self.folder.path().join("input");
        fs::write(&file, input).unwrap();
        Command::new("python3")
            .arg(folder().join("safe_backup.py"))
            .arg(command)
            .arg(self.folder.path().join("password"))
            .arg(Self::THREEMA_ID)
            .args(level)
            .stdin(fs::File::open(file).unwrap())
            .output()
            .unwrap()
    }

    fn done(&self, command: &str, level: &[&str], input: &[u8]) -> Bytes {
        let output = self.run(command, level, input);
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout.into()
    }

    fn opened_here(&self, sealed: Bytes) -> Result<Document, OpenError> {
        open(SealedBackup::try_from(sealed)?, &self.key, INFLATE_LIMIT)
    }
}

/// Documents of all sizes; the last needs more than one stored block.
fn documents() -> Vec<Document> {
    let contact = |number: u32| {
        let digest = Sha256::digest(number.to_le_bytes());
        serde_json::json!({ "publickey": hex::encode(digest), "nickname": "t\u{e9}st \u{1f600}" })
    };
    let documents = [0, 1, 20, 2_000].map(|contacts| {
        let contacts: Vec<_> = (0..contacts).map(contact).collect();
        let json = serde_json::json!({ "info": { "version": 1 }, "contacts": contacts });
        Document::from_json(Zeroizing::new(json.to_string().into())).unwrap()
    });
    assert!(documents[3].json().len() > 3 * 65_535);
    documents.into()
}

fn what_the_other_implementation_seals_opens_here() {
    let other = Other::new();
    let documents = documents();
    let levels = ["0", "1", "6", "9"].into_iter();
    let large_and_stored = (documents.last().unwrap(), "0");
    for (document, level) in documents.iter().zip(levels).chain([large_and_stored]) {
        let sealed = other.done("seal", &[level], document.json());
        let opened = other.opened_here(sealed).unwrap();
        assert!(opened.json() == document.json(), "level {level}");
    }
}

fn what_is_sealed_here_opens_in_the_other_implementation() {
    let other = Other::new();
    for document in documents() {
        let sealed = seal(&document, &other.key, Nonce::random());
        let opened = other.done("open", &[], sealed.as_bytes());
        assert!(opened == document.json());
    }
    let wrong = seal(
        &documents()[0],
        &BackupKey::from_bytes([7; 32]),
        Nonce::random(),
    );
    let refused = other.run("open", &[], wrong.as_bytes());
    assert_eq!(text(&refused.stderr), "wrong password or damaged\n");
}

fn both_implementations_have_the_same_limit() {
    let other = Other::new();
    let mut largest = b"{}".to_vec();
    largest.resize(INFLATE_LIMIT, b' ');
    let sealed = other.done("seal", &["9"], &largest);
    assert!(sealed.len() < 100_000);
    assert!(other.opened_here(sealed.clone()).unwrap().json() == largest);
    assert!(other.done("open", &[], &sealed) == largest);

    largest.push(b' ');
    let sealed = other.done("seal", &["9"], &largest);
    let limit = INFLATE_LIMIT;
    let error = other.opened_here(sealed.clone()).err();
    assert_eq!(error, Some(OpenError::TooLarge { limit }));
    let refused = other.run("open", &[], &sealed);
    assert_eq!(text(&refused.stderr), "too large\n");
}
