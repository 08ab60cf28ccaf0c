//! Files that hold secrets: may others than their owner read or change them?
//!
//! A group may read: that is how a certificate's key is shared with one service (`ssl-cert`), and how containers are
//! given secrets. Nobody else may, and nobody but the owner may write: whoever writes the accounts file gives himself
//! an account.
//!
//! The file's own rights are all that counts, also where its folder or a container keeps others away from it: they go
//! with it when it is copied or mounted elsewhere, and everything that mounts secrets can set them.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Others may read.
const OTHERS_READ: u32 = 0o004;
/// The group or others may write.
const OTHERS_WRITE: u32 = 0o022;

/// What somebody may do to a file who should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Every user of the machine may read it.
    Readable,
    /// Its group, or every user of the machine, may change it.
    Writable,
}

impl Exposure {
    /// Looks at the rights of the file at `path`; where that is a symbolic link, at those of the file behind it.
    ///
    /// # Errors
    /// When the system does not tell them.
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

/// What is wrong, and the remedy.
impl fmt::Display for Exposure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self {
            Self::Readable => "every user of this machine can read it",
            Self::Writable => "others than its owner can change it",
        };
        write!(
            formatter,
            "{problem}: chmod 600 (or 640, where its group has to read it; a container's secret: defaultMode 0440 in \
             Kubernetes, uid and mode 0400 in Docker)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_may_read_and_nobody_else_may_anything() {
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
    fn the_file_behind_a_link_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("key"), directory.path().join("link"));
        crate::durable::replace(&path, b"secret").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(Exposure::of(&link).unwrap(), None);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

        assert_eq!(Exposure::of(&link).unwrap(), Some(Exposure::Readable));
    }
}
