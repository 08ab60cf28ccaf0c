//! Opening of backups that are encrypted with the right key: gzip, JSON, and the typed document.
//!
//! The first byte of the input gives the kind of the rest: `0` the plaintext as it is, `1` JSON
//! that is wrapped in valid gzip, `2` a sealed backup as on the wire, `3` deflate data that is
//! wrapped in the header and the trailer of gzip. Any other byte counts by its remainder modulo 4.

#![no_main]

use std::io::{Read, Write};

use bytes::Bytes;
use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{Key, KeyInit, XSalsa20Poly1305};
use flate2::read::DeflateDecoder;
use flate2::{Compression, Crc};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use threema_safe_server::backup::{
    BackupKey, ContentsError, Document, Nonce, OpenError, SealedBackup, open, seal,
};

const KEY: [u8; 32] = [7; 32];
const NONCE: [u8; 24] = [1; 24];
/// Limit for the length of a document here, in bytes.
const LIMIT: usize = 1 << 16;
/// The header of a gzip member: deflate, no flags, no time, no operating system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0];

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let sealed = match kind % 4 {
        0 => encrypt(rest),
        1 => encrypt(&gzip(rest)),
        2 => Bytes::copy_from_slice(rest),
        _ => encrypt(&gzip_around(rest)),
    };
    let Some(document) = open_within(&sealed, LIMIT) else {
        return;
    };

    let length = document.json().len();
    assert!(length <= LIMIT, "larger than the limit: {length}");
    let exact = open_within(&sealed, length).expect("a document of the limit's length opens");
    assert_eq!(exact.json(), document.json(), "opened twice, and different");
    let less = sealed_backup(&sealed).map(|sealed| open(sealed, &key(), length - 1));
    assert!(
        matches!(less, Some(Err(OpenError::TooLarge { limit })) if limit == length - 1),
        "a document that is larger than the limit opens"
    );

    let again = seal(&document, &key(), Nonce::from_bytes(NONCE));
    let again = open(again, &key(), LIMIT).expect("what was sealed opens");
    assert_eq!(
        again.json(),
        document.json(),
        "sealed and opened, and different"
    );

    check_contents(&document);
});

/// Checks that the typed document, written again, has the same value: nothing may be lost.
fn check_contents(document: &Document) {
    let value = serde_json::from_slice::<Value>(document.json()).ok();
    let contents = match document.contents() {
        Ok(contents) => contents,
        Err(ContentsError::TooMany) => return,
        Err(ContentsError::Unreadable { .. }) => {
            assert!(value.is_none(), "a valid document is not parsed");
            return;
        }
    };
    let written = contents.to_document();
    let again = serde_json::from_slice::<Value>(written.json()).ok();
    assert_eq!(again, value, "read and written, and different");

    for finding in contents.validate() {
        assert!(!finding.to_string().is_empty(), "a finding has no text");
    }
    let _ = contents.newest_entry();
    let mut redacted = contents;
    redacted.redact();
    let text = String::from_utf8(redacted.to_document().json().to_vec());
    let value: Value =
        serde_json::from_str(&text.expect("JSON is UTF-8")).expect("what was written is JSON");
    let user = value.get("user");
    for key in ["privatekey", "temporaryDeviceGroupKeyTodoRemove"] {
        let found = user.and_then(|user| user.get(key));
        assert!(found.is_none(), "{key} is still there");
    }
}

fn key() -> BackupKey {
    BackupKey::from_bytes(KEY)
}

fn sealed_backup(bytes: &Bytes) -> Option<SealedBackup> {
    SealedBackup::try_from(bytes.clone()).ok()
}

fn open_within(bytes: &Bytes, limit: usize) -> Option<Document> {
    open(sealed_backup(bytes)?, &key(), limit).ok()
}

/// Encrypts any contents: nonce, tag, ciphertext.
fn encrypt(contents: &[u8]) -> Bytes {
    let mut contents = contents.to_vec();
    let tag = XSalsa20Poly1305::new(Key::from_slice(&KEY))
        .encrypt_in_place_detached((&NONCE).into(), b"", &mut contents)
        .expect("the input is shorter than the cipher's limit");
    [&NONCE[..], &tag, &contents].concat().into()
}

fn gzip(contents: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(contents).expect("memory can be written");
    gzip.finish().expect("memory can be written")
}

/// Wraps deflate data in gzip with the right checksum, which no mutation would ever find.
fn gzip_around(deflate: &[u8]) -> Vec<u8> {
    let mut decoder = DeflateDecoder::new(deflate);
    let mut contents = Vec::new();
    // The checksum does not matter beyond the limit or after invalid data.
    let _ = decoder
        .by_ref()
        .take(LIMIT as u64 + 1)
        .read_to_end(&mut contents);
    let used = usize::try_from(decoder.total_in()).expect("the input is in memory");
    let deflate = deflate.get(..used).unwrap_or(deflate);
    let mut checksum = Crc::new();
    checksum.update(&contents);
    [
        &GZIP_HEADER,
        deflate,
        &checksum.sum().to_le_bytes(),
        &checksum.amount().to_le_bytes(),
    ]
    .concat()
}
