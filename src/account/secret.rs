//! Hashes of account secrets. Only the hashes are stored.
//!
//! A generated secret has 256 random bits, so its plain SHA-256 cannot be brute-forced and costs
//! next to nothing to verify. A chosen password is stored as argon2id.

use std::fmt;
use std::str::FromStr;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Prefix of the hash of a generated secret.
const SHA_256: &str = "sha256:";
/// Prefix of an argon2id hash in the PHC string format.
const ARGON2ID: &str = "$argon2id$";

/// The hash of a secret, as stored in the accounts file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Secret {
    /// `sha256:` and 64 hexadecimal digits: the SHA-256 of a generated secret's 43 characters.
    Sha256([u8; 32]),
    /// `$argon2id$…`: the argon2id (RFC 9106) hash of a chosen password, as a PHC string.
    Argon2id(String),
}

/// An error in hashing or parsing a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The string is neither a valid `sha256:` nor a valid `$argon2id$` hash.
    #[error("secret must be \"sha256:\" and 64 hexadecimal digits, or an argon2id PHC string")]
    Unknown,
    /// There was no memory, or no randomness from the operating system.
    #[error("the password could not be hashed")]
    Hash,
}

/// A newly generated secret: 32 random bytes as 43 characters of base64url. It is printed once and
/// not stored; wiped when dropped.
pub struct GeneratedSecret(Zeroizing<String>);

impl GeneratedSecret {
    /// The secret as text, to be typed into an app. The name makes each use stand out in a review.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Secret {
    /// Generates a secret of 256 random bits, and its hash.
    ///
    /// # Errors
    /// When the operating system provides no randomness.
    pub fn generate() -> Result<(GeneratedSecret, Self), SecretError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(|_| SecretError::Hash)?;
        let text = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*bytes));
        let hash = Self::Sha256(Sha256::digest(text.as_bytes()).into());
        Ok((GeneratedSecret(text), hash))
    }

    /// Hashes a chosen password with argon2id (RFC 9106): 19 MiB of memory, 2 passes, 1 lane.
    ///
    /// # Errors
    /// When there is no memory or no randomness.
    pub fn of_password(password: &str) -> Result<Self, SecretError> {
        let hash = Argon2::default()
            .hash_password(password.as_bytes())
            .map_err(|_| SecretError::Hash)?;
        Ok(Self::Argon2id(hash.to_string()))
    }

    /// True if the text has the form of a generated secret, which a chosen password practically
    /// never has.
    pub(super) fn looks_generated(text: &str) -> bool {
        let mut bytes = [0; 33];
        let decoded = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes);
        bytes.zeroize();
        decoded == Ok(32)
    }

    /// True for argon2id, which is slow by design.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self, Self::Argon2id(_))
    }

    /// True if `password` matches this hash. Takes about 15 ms if [`Secret::is_slow`].
    pub(super) fn verify(&self, password: &str) -> bool {
        match self {
            Self::Sha256(hash) => Sha256::digest(password.as_bytes()).ct_eq(hash).into(),
            Self::Argon2id(hash) => PasswordHash::new(hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            }),
        }
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        if let Some(digits) = text.strip_prefix(SHA_256) {
            let mut hash = [0; 32];
            hex::decode_to_slice(digits, &mut hash).map_err(|_| SecretError::Unknown)?;
            return Ok(Self::Sha256(hash));
        }
        if text.starts_with(ARGON2ID)
            && PasswordHash::new(text).is_ok_and(|hash| hash.hash.is_some())
        {
            return Ok(Self::Argon2id(text.into()));
        }
        Err(SecretError::Unknown)
    }
}

impl TryFrom<String> for Secret {
    type Error = SecretError;

    fn try_from(text: String) -> Result<Self, SecretError> {
        text.parse()
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        match secret {
            Secret::Sha256(hash) => format!("{SHA_256}{}", hex::encode(hash)),
            Secret::Argon2id(hash) => hash,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_verifies_and_survives_the_file() {
        let (text, hash) = Secret::generate().unwrap();
        assert_eq!(text.reveal().len(), 43);
        assert!(Secret::looks_generated(text.reveal()));

        let read: Secret = String::from(hash).parse().unwrap();

        assert!(!read.is_slow());
        assert!(read.verify(text.reveal()));
        assert!(!read.verify(&text.reveal().to_lowercase()));
    }

    #[test]
    fn a_chosen_password_verifies_and_survives_the_file() {
        let hash = String::from(Secret::of_password("korrekt Pferd").unwrap());
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );

        let read: Secret = hash.parse().unwrap();

        assert!(read.is_slow());
        assert!(read.verify("korrekt Pferd"));
        assert!(!read.verify("korrekt pferd"));
    }

    #[test]
    fn chosen_passwords_do_not_look_generated() {
        for chosen in [
            "",
            "password",
            &"a".repeat(42),
            &"A".repeat(44),
            &"ä".repeat(43),
            "correct horse battery staple correct horses",
        ] {
            assert!(!Secret::looks_generated(chosen), "{chosen}");
        }
    }

    #[test]
    fn other_texts_are_no_secrets() {
        for bad in [
            "",
            "password",
            "sha256:",
            "sha256:abcd",
            "$argon2id$",
            "$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aaaa",
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ",
        ] {
            assert!(bad.parse::<Secret>().is_err(), "{bad:?}");
        }
    }
}
