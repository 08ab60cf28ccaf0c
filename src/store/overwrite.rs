//! Overwrites: which of them look wrong, and what becomes of the version that they replace.
//!
//! An upload that looks wrong is stored all the same, because only a person can tell; the version
//! that it replaces is then kept in the trash. The daily renewal of a phone does not look wrong,
//! and keeps nothing.

use sha2::{Digest, Sha256};

use crate::backup::BackupId;

/// The number of replaced versions of one backup in the trash. The oldest ones stay: repeated
/// overwrites must not push out the version that was there before the first one.
pub const MAX_KEPT_VERSIONS: usize = 3;

/// Separates these hashes from all other uses of SHA-256.
const LABEL: &[u8] = b"threema-safe-server uploader\0";

/// The uploader of one version of one backup: a tag that does not name the account. Two versions of
/// a backup have the same tag if the same account uploaded them; tags of different backups cannot
/// be compared. With a backup id, names of accounts can be tested against its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploader(pub(super) u64);

impl Uploader {
    /// The tag of the account with this name for the backup `id`; `None` is an upload without an
    /// account.
    #[must_use]
    pub fn of(id: BackupId, account: Option<&str>) -> Self {
        let mut hash = Sha256::new_with_prefix(LABEL);
        hash.update(id.to_hex());
        // No name is empty.
        hash.update(account.unwrap_or_default());
        let tag = hash.finalize();
        let first = tag.first_chunk().copied().unwrap_or_default();
        Self(u64::from_be_bytes(first))
    }
}

/// When the version that an upload replaces is kept in the trash, and the bounds of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepReplaced {
    /// Keep every replaced version, whether the change looks wrong or not.
    pub every: bool,
    /// The length of the largest version that is kept, in bytes.
    pub room: u64,
    /// The least free space on the storage with which a version is kept, in bytes.
    pub min_free: u64,
}

/// The replaced version, where the change looked wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Previous {
    /// It is in the trash, and takes so many bytes more there.
    InTrash(u64),
    /// It is gone: a bound was reached.
    Lost,
}

/// What is compared of two versions of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Length in bytes.
    pub length: u64,
    /// The uploader, if it is known.
    pub uploader: Option<Uploader>,
}

impl Traits {
    /// Whether it looks wrong that a version with these traits takes the place of `before`: it has
    /// less than half the length, or another account uploaded it. An unknown uploader is no reason.
    #[must_use]
    pub fn look_wrong_after(&self, before: &Self) -> bool {
        let is_much_smaller = self.length < before.length.div_ceil(2);
        let uploaders = self.uploader.zip(before.uploader);
        is_much_smaller || uploaders.is_some_and(|(now, before)| now != before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_half_or_another_account_looks_wrong() {
        let id = BackupId::from_bytes([7; 32]);
        let [phones, office, none] =
            [Some("phones"), Some("office"), None].map(|name| Some(Uploader::of(id, name)));
        for (before, now, is_wrong) in [
            ((1_000, phones), (1_000, phones), false),
            ((1_000, phones), (500, phones), false),
            ((1_000, phones), (499, phones), true),
            ((1_001, phones), (501, phones), false),
            ((1_001, phones), (500, phones), true),
            ((2, phones), (1, phones), false),
            ((1, phones), (9_000, phones), false),
            ((1_000, phones), (1_000, office), true),
            ((1_000, phones), (1_000, none), true),
            ((1_000, none), (1_000, phones), true),
            ((1_000, none), (1_000, none), false),
            ((1_000, None), (1_000, phones), false),
            ((1_000, phones), (1_000, None), false),
            ((1_000, None), (1, None), true),
            ((u64::MAX, None), (u64::MAX / 2, None), true),
        ] {
            let traits = |(length, uploader)| Traits { length, uploader };
            let found = traits(now).look_wrong_after(&traits(before));
            assert_eq!(found, is_wrong, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_tag_is_of_one_account_and_one_backup() {
        let [one, other] = [7, 8].map(|byte| BackupId::from_bytes([byte; 32]));
        let tag = Uploader::of(one, Some("phones"));

        assert_eq!(Uploader::of(one, Some("phones")), tag);
        assert_ne!(Uploader::of(one, Some("phone")), tag);
        assert_ne!(Uploader::of(one, None), tag);
        assert_ne!(Uploader::of(other, Some("phones")), tag);
    }
}
