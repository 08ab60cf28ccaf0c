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
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

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

/// Why the mode of a file stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum NotMended {
    /// The mode cannot be read or set.
    #[error(transparent)]
    System(#[from] io::Error),
    /// It is a symbolic link or a special file, and where it leads is not this program's business.
    #[error("it is a symbolic link or a special file; run chmod on what it leads to")]
    NoFile,
    /// It belongs to another user than the data directory.
    #[error("it belongs to another user (uid {0}); run chmod as that user or as root")]
    OtherOwner(u32),
}

/// Takes all rights to a file or directory from all users but its owner, who must be `owner`:
/// mode 0700 for a directory, 0600 for a file. Returns the mode that it had, or `None` if it was
/// private already.
///
/// # Errors
/// When it is no file or directory, belongs to another user, or its mode cannot be set.
pub fn make_private(path: &Path, owner: u32) -> Result<Option<u32>, NotMended> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() && !found.is_dir() {
        return Err(NotMended::NoFile);
    }
    if found.mode() & 0o077 == 0 {
        return Ok(None);
    }
    // From here on the open file counts, whatever the name leads to by now.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(flags.cast_signed());
    let file = file.open(path)?;
    let found = file.metadata()?;
    if found.uid() != owner {
        return Err(NotMended::OtherOwner(found.uid()));
    }
    let mode = match (found.is_dir(), found.is_file()) {
        (true, _) => 0o700,
        (_, true) => 0o600,
        _ => return Err(NotMended::NoFile),
    };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(Some(found.mode() & 0o7777))
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

    #[test]
    fn what_is_made_private_keeps_no_rights_of_others_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [file, directory, link] =
            ["file", "directory", "link"].map(|name| folder.path().join(name));
        crate::durable::replace(&file, b"").unwrap();
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let owner = fs::metadata(&file).unwrap().uid();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for (path, exposed, private) in [(&file, 0o644, 0o600), (&directory, 0o2755, 0o700)] {
            fs::set_permissions(path, fs::Permissions::from_mode(exposed)).unwrap();
            let other = make_private(path, owner + 1).unwrap_err();
            assert!(matches!(other, NotMended::OtherOwner(_)), "{other}");
            assert_eq!(mode(path), exposed);

            assert_eq!(make_private(path, owner).unwrap(), Some(exposed));
            assert_eq!(mode(path), private);
            assert_eq!(make_private(path, owner).unwrap(), None);
        }

        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = make_private(&link, owner).unwrap_err();
        assert!(matches!(refused, NotMended::NoFile), "{refused}");
        assert_eq!(mode(&file), 0o644);
    }
}
