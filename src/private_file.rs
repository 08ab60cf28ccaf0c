//! Permission check for files with secrets: private keys and the accounts file.
//!
//! The group may read: a certificate's key is shared with one service in this way (`ssl-cert`), and
//! secrets are mounted into containers in the same way. Other users may not read, and only the
//! owner may write: a user with write access to the accounts file could add an account.
//!
//! Only the mode of the file itself counts, even where its directory or a container denies access:
//! the mode stays with the file when it is copied or mounted elsewhere, and every tool that mounts
//! secrets can set it.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Mode bit: others may read.
const OTHERS_READ: u32 = 0o004;
/// Mode bits: the group or others may write.
const OTHERS_WRITE: u32 = 0o022;

/// Access to a file that other users than its owner should not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Every user of the machine may read the file.
    Readable,
    /// The file's group, or every user of the machine, may change it.
    Writable,
}

impl Exposure {
    /// Checks the mode of the file at `path`, following symbolic links. `None` if the mode is safe.
    ///
    /// # Errors
    /// When the file's metadata cannot be read.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let mode = fs::metadata(path)?.permissions().mode();
        Ok(if mode & OTHERS_READ != 0 {
            Some(Self::Readable)
        } else if mode & OTHERS_WRITE != 0 {
            Some(Self::Writable)
        } else {
            None
        })
    }
}

/// The problem and its remedy.
impl fmt::Display for Exposure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self {
            Self::Readable => "every user of this machine can read it",
            Self::Writable => "other users than its owner can change it",
        };
        write!(
            formatter,
            "{problem}: chmod 600 (or 640, if its group has to read it; for a container's secret: defaultMode 0440 in \
             Kubernetes, uid and mode 0400 in Docker)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_may_read_and_other_users_have_no_access() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        crate::durable::replace(&path, b"secret").unwrap();
        for (mode, expected) in [
            (0o400, None),
            (0o600, None),
            (0o640, None),
            (0o440, None),
            (0o750, None),
            (0o604, Some(Exposure::Readable)),
            (0o644, Some(Exposure::Readable)),
            (0o444, Some(Exposure::Readable)),
            (0o666, Some(Exposure::Readable)),
            (0o660, Some(Exposure::Writable)),
            (0o602, Some(Exposure::Writable)),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Exposure::of(&path).unwrap(), expected, "{mode:o}");
        }
    }

    #[test]
    fn the_target_of_a_link_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("key"), directory.path().join("link"));
        crate::durable::replace(&path, b"secret").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(Exposure::of(&link).unwrap(), None);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

        assert_eq!(Exposure::of(&link).unwrap(), Some(Exposure::Readable));
    }
}
