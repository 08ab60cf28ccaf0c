//! Sealing and opening: JSON → gzip → XSalsa20-Poly1305 → bytes on the wire, and back.
//!
//! Layout: `nonce[24] ‖ tag[16] ‖ ciphertext` (NaCl secretbox order), no magic, no version, no
//! associated data (Android `ThreemaSafeServiceImpl`, iOS `SafeStore`). The gzip inside is written at
//! level 0, stored: since Android 4.84 and iOS 4.8.3 the apps do so against a compression side channel
//! (an attacker who makes you add contacts could watch the size). Any gzip is read.

use std::io::{Read, Write};

use bytes::Bytes;
use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{Key, KeyInit, Tag, XSalsa20Poly1305};
use zeroize::Zeroizing;

use super::document::{Document, DocumentError};
use super::key::BackupKey;

/// Length of the random nonce in front, in bytes.
pub const NONCE_LENGTH: usize = 24;
/// Length of the Poly1305 tag after it, in bytes.
pub const TAG_LENGTH: usize = 16;
/// What a sealed backup has more than its ciphertext, in bytes.
pub const OVERHEAD: usize = NONCE_LENGTH + TAG_LENGTH;
/// How large a document may become when it is inflated, in bytes (64 MiB): a small file cannot fill
/// the memory.
pub const INFLATE_LIMIT: usize = 64 << 20;

/// Where gzip notes how hard the compressor tried (XFL, RFC 1952 §2.3.1). Java, and so Android, writes 0.
const GZIP_EXTRA_FLAGS: usize = 8;

/// A nonce: 24 bytes, drawn at random for every sealing. Reusing one under the same key reveals both
/// documents.
#[derive(Clone, Copy)]
pub struct Nonce([u8; NONCE_LENGTH]);

impl Nonce {
    /// Draws a nonce from the operating system.
    ///
    /// # Panics
    /// When the operating system has no randomness; nothing can be sealed safely then.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; NONCE_LENGTH];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        Self(bytes)
    }

    /// A nonce of these bytes, for test vectors.
    #[must_use]
    pub fn from_bytes(bytes: [u8; NONCE_LENGTH]) -> Self {
        Self(bytes)
    }
}

/// Why a backup does not open. The texts are what the command line prints.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not longer than nonce and tag together.
    #[error("too short: {length} bytes, and a backup has more than {OVERHEAD}")]
    TooShort {
        /// How many bytes there are.
        length: usize,
    },
    /// The tag does not match. A wrong password and a changed byte look the same.
    #[error(
        "wrong password or damaged: the backup does not belong to this password and Threema ID, or it was changed"
    )]
    WrongPasswordOrDamaged,
    /// What was decrypted is not gzip, or its checksum is wrong.
    #[error("not gzip: the backup decrypts, but what is inside cannot be unpacked")]
    NotGzip,
    /// The document is larger than the bound.
    #[error("too large: the document inside is larger than {limit} bytes")]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// What was unpacked is not a backup document.
    #[error("not a backup document: {0}")]
    NotADocument(#[from] DocumentError),
}

/// An encrypted backup as it goes over the wire and lies on disk. Always longer than [`OVERHEAD`].
#[derive(Clone, PartialEq, Eq)]
pub struct SealedBackup(Bytes);

impl SealedBackup {
    /// The bytes on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl TryFrom<Bytes> for SealedBackup {
    type Error = OpenError;

    fn try_from(bytes: Bytes) -> Result<Self, OpenError> {
        if bytes.len() <= OVERHEAD {
            return Err(OpenError::TooShort {
                length: bytes.len(),
            });
        }
        Ok(Self(bytes))
    }
}

/// Seals a document under a key, with a nonce that was never used under it before.
#[must_use]
pub fn seal(document: &Document, key: &BackupKey, nonce: Nonce) -> SealedBackup {
    // Room for all of it, so that growing leaves no plain copy behind; encryption is in place.
    let room = Vec::with_capacity(document.json().len() / 1_000 * 1_001 + 128);
    let mut gzip = flate2::GzBuilder::new()
        .operating_system(0)
        .write(room, flate2::Compression::none());
    gzip.write_all(document.json())
        .expect("writing to memory does not fail");
    let mut contents = gzip.finish().expect("writing to memory does not fail");
    if let Some(extra_flags) = contents.get_mut(GZIP_EXTRA_FLAGS) {
        *extra_flags = 0;
    }

    let tag = cipher(key)
        .encrypt_in_place_detached((&nonce.0).into(), b"", &mut contents)
        .expect("a document in memory is shorter than the cipher's limit");
    let mut sealed = Vec::with_capacity(OVERHEAD + contents.len());
    sealed.extend_from_slice(&nonce.0);
    sealed.extend_from_slice(&tag);
    sealed.extend_from_slice(&contents);
    SealedBackup(sealed.into())
}

/// Opens a sealed backup; the document inside may have at most `limit` bytes ([`INFLATE_LIMIT`]).
///
/// # Errors
/// One variant for each way in which the bytes can be wrong.
pub fn open(sealed: &SealedBackup, key: &BackupKey, limit: usize) -> Result<Document, OpenError> {
    let too_short = || OpenError::TooShort {
        length: sealed.0.len(),
    };
    let (nonce, rest) = sealed
        .0
        .split_first_chunk::<NONCE_LENGTH>()
        .ok_or_else(too_short)?;
    let (tag, ciphertext) = rest
        .split_first_chunk::<TAG_LENGTH>()
        .ok_or_else(too_short)?;

    let mut contents = Zeroizing::new(ciphertext.to_vec());
    cipher(key)
        .decrypt_in_place_detached(nonce.into(), b"", &mut contents, &Tag::from(*tag))
        .map_err(|_| OpenError::WrongPasswordOrDamaged)?;
    Ok(Document::from_json(inflate(&contents, limit)?)?)
}

fn cipher(key: &BackupKey) -> XSalsa20Poly1305 {
    XSalsa20Poly1305::new(Key::from_slice(key.as_bytes()))
}

/// Unpacks one gzip file (of one or more members) of at most `limit` bytes of contents.
fn inflate(gzip: &[u8], limit: usize) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let mut contents = Zeroizing::new(Vec::new());
    let mut bounded = flate2::read::MultiGzDecoder::new(gzip).take(limit as u64 + 1);
    bounded
        .read_to_end(&mut contents)
        .map_err(|_| OpenError::NotGzip)?;
    if contents.len() > limit {
        return Err(OpenError::TooLarge { limit });
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"info":{"version":1,"device":"ios"},"user":{"privatekey":"AQIDBAUGBwhkZWZnaGlqawECAwQFBgcIZGVmZ2hpams="},"settings":{"syncContacts":false}}"#;

    fn key() -> BackupKey {
        BackupKey::from_bytes([7; 32])
    }

    fn document() -> Document {
        Document::from_json(Zeroizing::new(DOCUMENT.into())).unwrap()
    }

    /// Seals any bytes, gzip or not.
    fn seal_raw(contents: &[u8]) -> SealedBackup {
        let mut contents = contents.to_vec();
        let tag = cipher(&key())
            .encrypt_in_place_detached((&[1; NONCE_LENGTH]).into(), b"", &mut contents)
            .unwrap();
        let sealed = [&[1; NONCE_LENGTH][..], &tag, &contents].concat();
        Bytes::from(sealed).try_into().unwrap()
    }

    fn gzip(contents: &[u8], level: u32) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        gzip.write_all(contents).unwrap();
        gzip.finish().unwrap()
    }

    fn open_error(sealed: &SealedBackup, limit: usize) -> OpenError {
        open(sealed, &key(), limit).err().unwrap()
    }

    #[test]
    fn what_was_sealed_opens_to_the_same_bytes() {
        let sealed = seal(&document(), &key(), Nonce::random());

        let opened = open(&sealed, &key(), INFLATE_LIMIT).unwrap();

        assert_eq!(opened.json(), DOCUMENT.as_bytes());
    }

    #[test]
    fn sealing_does_not_compress_and_writes_androids_gzip_header() {
        let sealed = seal(&document(), &key(), Nonce::from_bytes([1; NONCE_LENGTH]));

        let mut contents = sealed.as_bytes()[OVERHEAD..].to_vec();
        let tag = Tag::from(*sealed.as_bytes()[NONCE_LENGTH..].first_chunk().unwrap());
        cipher(&key())
            .decrypt_in_place_detached((&[1; NONCE_LENGTH]).into(), b"", &mut contents, &tag)
            .unwrap();
        assert_eq!(contents[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0]);
        assert!(
            contents
                .windows(DOCUMENT.len())
                .any(|window| window == DOCUMENT.as_bytes())
        );
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let sealed = seal(&document(), &key(), Nonce::random());

        for position in 0..sealed.as_bytes().len() {
            let mut changed = sealed.as_bytes().to_vec();
            changed[position] ^= 1;
            let changed = Bytes::from(changed).try_into().unwrap();
            assert_eq!(
                open_error(&changed, INFLATE_LIMIT),
                OpenError::WrongPasswordOrDamaged
            );
        }
    }

    #[test]
    fn forty_bytes_are_too_short() {
        assert_eq!(
            SealedBackup::try_from(Bytes::from(vec![0; OVERHEAD])).err(),
            Some(OpenError::TooShort { length: OVERHEAD })
        );
        assert!(SealedBackup::try_from(Bytes::from(vec![0; OVERHEAD + 1])).is_ok());
    }

    #[test]
    fn contents_that_are_not_gzip_are_told_apart() {
        let whole = gzip(DOCUMENT.as_bytes(), 6);
        let mut wrong_checksum = whole.clone();
        let last = wrong_checksum.len() - 5;
        wrong_checksum[last] ^= 1;
        for contents in [
            DOCUMENT.as_bytes(),
            &whole[..whole.len() - 1],
            &wrong_checksum,
        ] {
            assert_eq!(
                open_error(&seal_raw(contents), INFLATE_LIMIT),
                OpenError::NotGzip
            );
        }
    }

    #[test]
    fn deflated_gzip_opens() {
        let sealed = seal_raw(&gzip(DOCUMENT.as_bytes(), 9));

        assert_eq!(
            open(&sealed, &key(), INFLATE_LIMIT).unwrap().json(),
            DOCUMENT.as_bytes()
        );
    }

    #[test]
    fn inflating_stops_at_the_limit() {
        let bomb = seal_raw(&gzip(&vec![b' '; 10_000_000], 9));
        assert!(bomb.as_bytes().len() < 20_000);

        assert_eq!(
            open_error(&bomb, 1_000_000),
            OpenError::TooLarge { limit: 1_000_000 }
        );

        let exact = seal_raw(&gzip(DOCUMENT.as_bytes(), 6));
        assert!(open(&exact, &key(), DOCUMENT.len()).is_ok());
        assert_eq!(
            open_error(&exact, DOCUMENT.len() - 1),
            OpenError::TooLarge {
                limit: DOCUMENT.len() - 1
            }
        );
    }

    #[test]
    fn contents_that_are_no_document_are_told_apart() {
        for contents in [
            &b"not json"[..],
            b"{}",
            b"[]",
            b"\xff",
            b"{\"info\":{\"version\":2}}",
        ] {
            assert!(matches!(
                open_error(&seal_raw(&gzip(contents, 0)), INFLATE_LIMIT),
                OpenError::NotADocument(_)
            ));
        }
    }
}
