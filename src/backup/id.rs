//! Identifiers: a user's Threema ID, and the backup id under which a server stores the backup
//! (docs/FORMAT.md §1).
//!
//! Each has exactly one spelling. A backup id is a secret: it allows reading and deleting the
//! backup, and testing guesses of the password. Hence the ids have no `Display`, and their `Debug`
//! shows no contents.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

/// Why a string is not a valid id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Not 8 characters of `0-9 A-Z`, the first of which may be `*`.
    #[error(
        "invalid Threema ID: expected 8 characters of 0-9 and A-Z (a gateway ID begins with *)"
    )]
    ThreemaId,
    /// Not 64 lowercase hexadecimal digits.
    #[error("invalid backup id: expected exactly 64 lowercase hexadecimal digits")]
    BackupId,
}

/// A Threema ID: 8 ASCII bytes that match `[0-9A-Z*][0-9A-Z]{7}` (docs/FORMAT.md §1;
/// `safe-backup.schema.yml` in the sources of both apps).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ThreemaId([u8; 8]);

impl ThreemaId {
    /// A random ID for tests. A real user may have the same one.
    ///
    /// # Panics
    /// When the operating system provides no random bytes.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the operating system provides random bytes");
        Self(bytes.map(|byte| match byte % 36 {
            digit @ ..10 => b'0' + digit,
            letter => b'A' + letter - 10,
        }))
    }

    /// The ID as a string of 8 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("an ID is ASCII")
    }

    /// The 8 ASCII bytes: the salt of the key derivation.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl FromStr for ThreemaId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bytes: [u8; 8] = text
            .as_bytes()
            .try_into()
            .map_err(|_| ParseIdError::ThreemaId)?;
        let alphanumeric = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
        let [first, rest @ ..] = &bytes;
        if (*first == b'*' || alphanumeric(first)) && rest.iter().all(alphanumeric) {
            Ok(Self(bytes))
        } else {
            Err(ParseIdError::ThreemaId)
        }
    }
}

impl fmt::Debug for ThreemaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ThreemaId(…)")
    }
}

/// A backup id: 32 bytes, written as 64 lowercase hexadecimal digits on the wire and on disk
/// (docs/FORMAT.md §1; both apps write lowercase: Android `ThreemaSafeServerInfo`, iOS
/// `BytesUtility.toHexString`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackupId([u8; 32]);

impl BackupId {
    /// Creates an id from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 64 lowercase hexadecimal digits. The only way to print an id, with a name that stands
    /// out in a code review.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl FromStr for BackupId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ParseIdError::BackupId);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError::BackupId)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BackupId(…)")
    }
}

impl ConstantTimeEq for BackupId {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.0.ct_eq(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_backup_id_has_one_spelling() {
        let good = "066384d3695fbbd9f31a7d533900fd0cd8d1373beb6a28678522d2a49980c9c3";
        assert_eq!(good.parse::<BackupId>().unwrap().to_hex(), good);

        let shorter = good.get(..63).unwrap();
        let longer = format!("{good}0");
        let newline = format!("{good}\n");
        let upper = good.to_uppercase();
        let space = format!(" {shorter}");
        let letter = good.replace('d', "g");
        let wide = format!("{}é", good.get(..62).unwrap());
        for bad in [
            "", shorter, &longer, &newline, &upper, &space, &letter, &wide,
        ] {
            assert_eq!(
                bad.parse::<BackupId>(),
                Err(ParseIdError::BackupId),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_threema_id_is_eight_uppercase_characters_and_digits() {
        for good in ["ECHOECHO", "*THREEMA", "0ABCDEFG", "12345678"] {
            assert_eq!(
                good.parse::<ThreemaId>().unwrap().as_bytes(),
                good.as_bytes()
            );
        }
        for bad in [
            "",
            "echoecho",
            "ECHOECH",
            "ECHOECHO1",
            "ECHO*CHO",
            "ECHOECH\n",
            "ÄCHOECH",
        ] {
            assert_eq!(
                bad.parse::<ThreemaId>(),
                Err(ParseIdError::ThreemaId),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_made_up_id_is_an_id_of_any_digits_and_letters() {
        let mut seen = BTreeSet::new();
        for _ in 0..1_000 {
            let id = ThreemaId::random();
            assert_eq!(id.as_str().parse(), Ok(id));
            seen.extend(*id.as_bytes());
        }
        assert_eq!(seen.len(), 36);
    }

    #[test]
    fn debug_output_shows_no_id() {
        let id = BackupId::from_bytes([0xab; 32]);
        assert_eq!(
            format!("{id:?} {:?}", "ECHOECHO".parse::<ThreemaId>().unwrap()),
            "BackupId(…) ThreemaId(…)"
        );
    }
}
