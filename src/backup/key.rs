//! Key derivation: scrypt over password and Threema ID gives the backup id and the encryption key
//! (docs/FORMAT.md §2).
//!
//! The keys cannot be printed, cloned or compared, and are wiped from memory when dropped.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::id::{BackupId, ThreemaId};
use super::password::Password;

/// Base-2 logarithm of scrypt's cost parameter: N = 2^16 = 65536 (docs/FORMAT.md §2; Android
/// `LibthreemaJavaBridge` log cost 16, iOS `Scrypt.c` 65536).
const LOG_N: u8 = 16;
/// scrypt's block size parameter r (docs/FORMAT.md §2).
const R: u32 = 8;
/// scrypt's parallelisation parameter p (docs/FORMAT.md §2).
const P: u32 = 1;

/// The 64-byte scrypt output for a password and a Threema ID: 32 bytes of backup id, then 32 bytes
/// of encryption key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 64]);

impl MasterKey {
    /// Derives the master key: scrypt (RFC 7914) with N = 65536, r = 8, p = 1, 64 bytes of output,
    /// and the 8 bytes of the Threema ID as salt. Takes 64 MiB of memory and about an eighth of a
    /// second.
    #[must_use]
    pub fn derive(password: &Password, id: &ThreemaId) -> Self {
        Self::derive_with_salt(password, id.as_bytes())
    }

    /// Derives the master key with any 8 bytes as salt. The apps convert an ID to upper case before
    /// they derive; another spelling gives another key.
    ///
    /// # Panics
    /// Never: the parameters are constants that scrypt accepts.
    #[must_use]
    pub fn derive_with_salt(password: &Password, salt: &[u8; 8]) -> Self {
        let parameters =
            scrypt::Params::new(LOG_N, R, P).expect("the constants are valid scrypt parameters");
        let mut key = Self([0; 64]);
        scrypt::scrypt(password.as_bytes(), salt, &parameters, &mut key.0)
            .expect("64 bytes are a valid scrypt output length");
        key
    }

    /// The backup id, under which a server stores the backup: bytes 0 to 31.
    #[must_use]
    pub fn backup_id(&self) -> BackupId {
        BackupId::from_bytes(*self.0.first_chunk().expect("64 bytes have a first half"))
    }

    /// The encryption key of the backup: bytes 32 to 63.
    #[must_use]
    pub fn backup_key(&self) -> BackupKey {
        BackupKey(*self.0.last_chunk().expect("64 bytes have a last half"))
    }
}

/// The 32-byte XSalsa20-Poly1305 key of a backup.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct BackupKey([u8; 32]);

impl BackupKey {
    /// Creates a key from its 32 bytes, for test vectors that start from the key.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threema's published test vector (Android `ThreemaSafeServiceTest.kt`, iOS
    /// `SafeTests.swift`).
    #[test]
    fn the_published_vector_derives() {
        let key = MasterKey::derive(&"shootdeathstar".into(), &"ECHOECHO".parse().unwrap());

        assert_eq!(
            key.backup_id().to_hex(),
            "066384d3695fbbd9f31a7d533900fd0cd8d1373beb6a28678522d2a49980c9c3"
        );
        assert_eq!(
            hex::encode(key.backup_key().as_bytes()),
            "51c3d8d752fb6e1fd3199ead7f0895d6e3893ff691f2a5ee1976ed0897fc2f66"
        );
    }
}
