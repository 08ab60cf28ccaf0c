//! Encryption and compression: JSON → gzip → XSalsa20-Poly1305 → bytes on the wire, and back
//! (docs/FORMAT.md §3 and §4).
//!
//! Layout: `nonce[24] ‖ tag[16] ‖ ciphertext` (NaCl secretbox order), no magic, no version, no
//! associated data (Android `ThreemaSafeServiceImpl`, iOS `SafeStore`). The gzip inside is written
//! at level 0 (stored): since Android 4.84 and iOS 4.8.3 the apps do so against a compression side
//! channel (an attacker who makes a user add contacts could observe the size). Any gzip is read.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{Key, KeyInit, Tag, XSalsa20Poly1305};
use flate2::Crc;
use flate2::bufread::GzDecoder;
use zeroize::{Zeroize, Zeroizing};

use super::document::{Document, DocumentError};
use super::key::BackupKey;

/// Length of the random nonce at the start, in bytes (docs/FORMAT.md §3).
pub const NONCE_LENGTH: usize = 24;
/// Length of the Poly1305 tag after the nonce, in bytes (docs/FORMAT.md §3).
pub const TAG_LENGTH: usize = 16;
/// Length of nonce and tag, by which a sealed backup is longer than its ciphertext, in bytes.
pub const OVERHEAD: usize = NONCE_LENGTH + TAG_LENGTH;
/// Default limit for the length of an inflated document, in bytes (64 MiB), so that a small file
/// cannot fill the memory.
pub const INFLATE_LIMIT: usize = 64 << 20;

/// The first bytes of a gzip member (RFC 1952 §2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The gzip header that Java, and so Android, writes: magic, deflate, and zeros for flags, time,
/// extra flags and operating system (docs/FORMAT.md §4).
const ANDROID_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0];
/// Length of the longest stored block of deflate, in bytes (RFC 1951 §3.2.4).
const MAX_BLOCK_LENGTH: usize = 0xffff;

/// A nonce: 24 random bytes, new for every sealing. Reusing a nonce under the same key reveals both
/// documents.
#[derive(Clone, Copy)]
pub struct Nonce([u8; NONCE_LENGTH]);

impl Nonce {
    /// Generates a nonce from the operating system's random bytes.
    ///
    /// # Panics
    /// When the operating system provides no random bytes; nothing can be sealed safely then.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; NONCE_LENGTH];
        getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
        Self(bytes)
    }

    /// Creates a nonce from its bytes, for test vectors.
    #[must_use]
    pub fn from_bytes(bytes: [u8; NONCE_LENGTH]) -> Self {
        Self(bytes)
    }
}

/// Why a backup cannot be opened. The command line prints these texts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The backup is not longer than nonce and tag together.
    #[error("too short: {length} bytes, expected more than {OVERHEAD}")]
    TooShort {
        /// Length of the backup, in bytes.
        length: usize,
    },
    /// The tag does not match. A wrong password and a changed byte cannot be told apart.
    #[error(
        "wrong password or damaged: the backup does not belong to this password and Threema ID, or it was changed"
    )]
    WrongPasswordOrDamaged,
    /// The decrypted contents do not begin with the magic of gzip.
    #[error("not gzip: the backup decrypts, but its contents are not gzip")]
    NotGzip,
    /// The gzip is truncated, or its data or checksum is wrong.
    #[error("broken gzip: the backup decrypts, but its contents cannot be unpacked")]
    BrokenGzip,
    /// The document is larger than the limit.
    #[error("too large: the document inside has more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The inflated contents are not a backup document.
    #[error("not a backup document")]
    NotADocument(#[from] DocumentError),
}

/// An encrypted backup, as on the wire and on disk: nonce, tag and ciphertext. Always longer than
/// [`OVERHEAD`].
#[derive(Clone, PartialEq, Eq)]
pub struct SealedBackup(Bytes);

impl SealedBackup {
    /// The bytes as on the wire.
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

/// Compresses and encrypts a document under a key, with a nonce that was never used with this key.
/// All work happens in the buffer that is returned: no plaintext copy is left in memory.
#[must_use]
pub fn seal(document: &Document, key: &BackupKey, nonce: Nonce) -> SealedBackup {
    let json = document.json();
    let mut sealed = Vec::with_capacity(OVERHEAD + gzip_length(json.len()));
    sealed.extend_from_slice(&nonce.0);
    sealed.extend_from_slice(&[0; TAG_LENGTH]);
    write_gzip(json, &mut sealed);

    let (_, tag, contents) = split(&mut sealed).expect("the buffer begins with nonce and tag");
    let computed = cipher(key)
        .encrypt_in_place_detached((&nonce.0).into(), b"", contents)
        .expect("a document in memory is shorter than the cipher's limit");
    tag.copy_from_slice(&computed);
    SealedBackup(sealed.into())
}

/// Decrypts and inflates a sealed backup; the document may have at most `limit` bytes
/// ([`INFLATE_LIMIT`]).
///
/// Decrypts in place if no other reference to the bytes exists, and then allocates the document and
/// nothing else of its size; otherwise it works on a copy. The plaintext is wiped in both cases.
/// (The inflater's window of 32 KiB is not.)
///
/// # Errors
/// One variant for each way in which the bytes can be wrong.
pub fn open(sealed: SealedBackup, key: &BackupKey, limit: usize) -> Result<Document, OpenError> {
    let length = sealed.0.len();
    let bytes = sealed.0.try_into_mut();
    let mut bytes = WipeOnDrop(bytes.unwrap_or_else(|shared| BytesMut::from(&*shared)));
    let (nonce, tag, contents) = split(&mut bytes.0).ok_or(OpenError::TooShort { length })?;

    cipher(key)
        .decrypt_in_place_detached((&*nonce).into(), b"", contents, &Tag::from(*tag))
        .map_err(|_| OpenError::WrongPasswordOrDamaged)?;
    Ok(Document::from_json(inflate(contents, limit)?)?)
}

/// A backup's bytes, decrypted in place and wiped when dropped.
struct WipeOnDrop<B: AsMut<[u8]>>(B);

impl<B: AsMut<[u8]>> Drop for WipeOnDrop<B> {
    fn drop(&mut self) {
        self.0.as_mut().zeroize();
    }
}

/// Splits a sealed backup into nonce, tag and ciphertext.
fn split(bytes: &mut [u8]) -> Option<(&mut [u8; NONCE_LENGTH], &mut [u8; TAG_LENGTH], &mut [u8])> {
    let (nonce, rest) = bytes.split_first_chunk_mut()?;
    let (tag, ciphertext) = rest.split_first_chunk_mut()?;
    Some((nonce, tag, ciphertext))
}

fn cipher(key: &BackupKey) -> XSalsa20Poly1305 {
    XSalsa20Poly1305::new(Key::from_slice(key.as_bytes()))
}

/// Appends contents as gzip with the fewest possible stored blocks (RFC 1952, RFC 1951 §3.2.4).
fn write_gzip(contents: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&ANDROID_HEADER);
    let mut rest = contents;
    loop {
        let (block, after) = rest.split_at(rest.len().min(MAX_BLOCK_LENGTH));
        let is_last = after.is_empty();
        let length = u16::try_from(block.len()).expect("the length of a block fits in 16 bits");
        into.push(u8::from(is_last));
        into.extend_from_slice(&length.to_le_bytes());
        into.extend_from_slice(&(!length).to_le_bytes());
        into.extend_from_slice(block);
        if is_last {
            break;
        }
        rest = after;
    }
    let mut checksum = Crc::new();
    checksum.update(contents);
    into.extend_from_slice(&checksum.sum().to_le_bytes());
    // The length modulo 2^32.
    let length = (contents.len() as u64).to_le_bytes();
    into.extend_from_slice(&length[..4]);
}

/// The length of the output of [`write_gzip`] for contents of this length, in bytes.
fn gzip_length(contents: usize) -> usize {
    let blocks = contents.div_ceil(MAX_BLOCK_LENGTH).max(1);
    ANDROID_HEADER.len() + 5 * blocks + contents + 8
}

/// Inflates gzip whose contents have at most `limit` bytes.
///
/// The gzip is read twice, first for its length, because the length in its trailer cannot be
/// trusted. Only a buffer of exactly the right size neither grows, which would leave copies in
/// memory, nor becomes huge through a gzip bomb.
fn inflate(gzip: &[u8], limit: usize) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    if !gzip.starts_with(&GZIP_MAGIC) {
        return Err(OpenError::NotGzip);
    }
    let bound = (limit as u64).saturating_add(1);
    let length = io::copy(&mut Members::of(gzip).take(bound), &mut io::sink())
        .map_err(|_| OpenError::BrokenGzip)?;
    let length = usize::try_from(length)
        .ok()
        .filter(|&length| length <= limit)
        .ok_or(OpenError::TooLarge { limit })?;

    let mut contents = Zeroizing::new(vec![0; length]);
    Members::of(gzip)
        .read_exact(&mut contents)
        .map_err(|_| OpenError::BrokenGzip)?;
    Ok(contents)
}

/// A reader of the joined contents of all gzip members (RFC 1952 §2.2). Bytes after the last member
/// that do not begin with the magic of a member are ignored, as in Java, and so on Android.
struct Members<'a>(GzDecoder<&'a [u8]>);

impl<'a> Members<'a> {
    fn of(gzip: &'a [u8]) -> Self {
        Self(GzDecoder::new(gzip))
    }
}

impl Read for Members<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.0.read(buffer)?;
            let rest = *self.0.get_ref();
            if length > 0 || buffer.is_empty() || !rest.starts_with(&GZIP_MAGIC) {
                return Ok(length);
            }
            *self = Self::of(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const DOCUMENT: &str = r#"{"info":{"version":1,"device":"ios"},"user":{"privatekey":"AQIDBAUGBwhkZWZnaGlqawECAwQFBgcIZGVmZ2hpams="},"settings":{"syncContacts":false}}"#;

    fn key() -> BackupKey {
        BackupKey::from_bytes([7; 32])
    }

    fn document() -> Document {
        Document::from_json(Zeroizing::new(DOCUMENT.into())).unwrap()
    }

    /// Encrypts any bytes, gzip or not.
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

    fn open_error(sealed: SealedBackup, limit: usize) -> OpenError {
        open(sealed, &key(), limit).err().unwrap()
    }

    #[test]
    fn a_sealed_document_opens_to_the_same_bytes() {
        let sealed = seal(&document(), &key(), Nonce::random());

        let opened = open(sealed, &key(), INFLATE_LIMIT).unwrap();

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
    fn written_gzip_is_readable_and_has_the_computed_length() {
        for length in [
            0_u32, 1, 65_534, 65_535, 65_536, 131_070, 131_071, 1_000_000,
        ] {
            let contents: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
            let mut packed = Vec::new();
            write_gzip(&contents, &mut packed);

            assert_eq!(packed.len(), gzip_length(contents.len()));
            assert_eq!(*inflate(&packed, contents.len()).unwrap(), contents);
        }
    }

    #[test]
    fn every_changed_byte_is_detected() {
        let sealed = seal(&document(), &key(), Nonce::random());

        for position in 0..sealed.as_bytes().len() {
            let mut changed = sealed.as_bytes().to_vec();
            changed[position] ^= 1;
            let changed = Bytes::from(changed).try_into().unwrap();
            assert_eq!(
                open_error(changed, INFLATE_LIMIT),
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
    fn contents_that_are_not_gzip_are_distinguished_from_broken_gzip() {
        let whole = gzip(DOCUMENT.as_bytes(), 6);
        let mut wrong_checksum = whole.clone();
        let last = wrong_checksum.len() - 5;
        wrong_checksum[last] ^= 1;
        for (contents, expected) in [
            (DOCUMENT.as_bytes(), OpenError::NotGzip),
            (b"", OpenError::NotGzip),
            (&whole[..1], OpenError::NotGzip),
            (&whole[..2], OpenError::BrokenGzip),
            (&whole[..whole.len() - 1], OpenError::BrokenGzip),
            (&wrong_checksum, OpenError::BrokenGzip),
            (
                &[whole.clone(), wrong_checksum.clone()].concat(),
                OpenError::BrokenGzip,
            ),
        ] {
            assert_eq!(inflate(contents, INFLATE_LIMIT).unwrap_err(), expected);
        }
    }

    #[test]
    fn gzip_members_are_joined_and_trailing_bytes_are_ignored() {
        let (first, second) = DOCUMENT.split_at(30);
        let joined = [gzip(first.as_bytes(), 0), gzip(second.as_bytes(), 9)].concat();
        let empty_at_the_end = [joined.clone(), gzip(b"", 0)].concat();
        let padded = [&joined[..], &[0; 512]].concat();
        for contents in [joined, empty_at_the_end, padded] {
            assert_eq!(
                &*inflate(&contents, DOCUMENT.len()).unwrap(),
                DOCUMENT.as_bytes()
            );
            assert_eq!(
                inflate(&contents, DOCUMENT.len() - 1).unwrap_err(),
                OpenError::TooLarge {
                    limit: DOCUMENT.len() - 1
                }
            );
        }
    }

    #[test]
    fn the_magic_of_gzip_inside_contents_begins_no_member() {
        // Stored: the compressed bytes begin with the magic wherever a read of the contents ends.
        let contents = GZIP_MAGIC.repeat(50_000);
        let packed = gzip(&contents, 0);

        assert_eq!(*inflate(&packed, contents.len()).unwrap(), contents);
    }

    #[test]
    fn decrypted_bytes_are_wiped_when_dropped() {
        let mut decrypted = *b"plaintext";

        drop(WipeOnDrop(&mut decrypted));

        assert_eq!(decrypted, [0; 9]);
    }

    #[test]
    fn deflated_gzip_opens() {
        let sealed = seal_raw(&gzip(DOCUMENT.as_bytes(), 9));

        assert_eq!(
            open(sealed, &key(), INFLATE_LIMIT).unwrap().json(),
            DOCUMENT.as_bytes()
        );
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = seal_raw(&gzip(&vec![b' '; 10_000_000], 9));
        assert!(bomb.as_bytes().len() < 20_000);

        assert_eq!(
            open_error(bomb, 1_000_000),
            OpenError::TooLarge { limit: 1_000_000 }
        );
    }

    #[test]
    fn the_limit_may_be_the_largest_number() {
        let contents = gzip(DOCUMENT.as_bytes(), 6);
        assert!(inflate(&contents, usize::MAX).is_ok());
    }

    #[test]
    fn opening_does_not_change_shared_bytes() {
        let sealed = seal(&document(), &key(), Nonce::random());
        let before = sealed.as_bytes().to_vec();

        open(sealed.clone(), &key(), INFLATE_LIMIT).unwrap();

        assert_eq!(sealed.as_bytes(), &before);
    }

    #[test]
    fn contents_that_are_no_document_are_distinguished() {
        for contents in [&b"not json"[..], b"[]", b"\xff", b"", b"{\"a\":\"\xff\"}"] {
            assert!(matches!(
                open_error(seal_raw(&gzip(contents, 0)), INFLATE_LIMIT),
                OpenError::NotADocument(_)
            ));
        }
    }
}
