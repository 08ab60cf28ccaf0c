//! Classification of operating system errors: the storage is full, read-only, unavailable, or has
//! failed.

use std::io::{self, ErrorKind};

use rustix::io::Errno;

use crate::durable::{self, CREATE_DIRECTORY, CREATE_TEMP_FILE, RENAME, RENAME_TO_NEW};
use crate::store::Error;
use crate::store::files::backup_files::{
    ERASE, ERASE_LEFTOVER, RENAME_INTO_TRASH, RENAME_OUT_OF_TRASH,
};
use crate::store::files::claim::is_in_use;
use crate::store::files::trial::RENAME_TRIAL;

/// Errors that only a network or FUSE file system returns, while its server or process is
/// unavailable. Errors that a local disk can return as well are not among them, above all EIO: it
/// may mean damage that an operator has to repair.
const UNREACHABLE: [ErrorKind; 9] = [
    ErrorKind::StaleNetworkFileHandle,
    ErrorKind::TimedOut,
    ErrorKind::HostUnreachable,
    ErrorKind::NetworkUnreachable,
    ErrorKind::NetworkDown,
    ErrorKind::NotConnected,
    ErrorKind::ConnectionRefused,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
];

/// The steps that change a directory. If the right to do so is missing, nothing can be written.
const CHANGES: [&str; 9] = [
    CREATE_DIRECTORY,
    CREATE_TEMP_FILE,
    RENAME,
    RENAME_TO_NEW,
    RENAME_TRIAL,
    ERASE_LEFTOVER,
    RENAME_INTO_TRASH,
    RENAME_OUT_OF_TRASH,
    ERASE,
];

impl From<durable::Error> for Error {
    fn from(error: durable::Error) -> Self {
        let kind = error.source.kind();
        if [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&kind) {
            Self::Full(error.into())
        } else if UNREACHABLE.contains(&kind) || is_host_down(&error.source) {
            Self::Unavailable(error.into())
        } else if is_read_only(&error) || is_in_use(&error) {
            Self::ReadOnly(error.into())
        } else {
            Self::Other(error.into())
        }
    }
}

/// The steps of [`CHANGES`] that touch no backup: EPERM then means a directory with the attribute
/// "immutable". Elsewhere it may be one backup that has it, which says nothing about the others.
const CHANGES_WITHOUT_BACKUP: [&str; 5] = [
    CREATE_DIRECTORY,
    CREATE_TEMP_FILE,
    RENAME_TO_NEW,
    RENAME_TRIAL,
    ERASE_LEFTOVER,
];

/// True if the file system is read-only, or the server may not change the directory.
fn is_read_only(error: &durable::Error) -> bool {
    let number = error.source.raw_os_error();
    let is = |errno: Errno| number == Some(errno.raw_os_error());
    is(Errno::ROFS)
        || is(Errno::ACCESS) && CHANGES.contains(&error.operation)
        || is(Errno::PERM) && CHANGES_WITHOUT_BACKUP.contains(&error.operation)
}

/// True for EHOSTDOWN, which CIFS returns and for which the standard library has no kind.
fn is_host_down(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::HOSTDOWN.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_classified() {
        let of = |errno: Errno| {
            let source = io::Error::from(errno);
            Error::from(durable::Error {
                operation: "test",
                source,
            })
        };
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(matches!(of(errno), Error::Full(_)), "{errno}");
        }
        for errno in [
            Errno::STALE,
            Errno::TIMEDOUT,
            Errno::HOSTDOWN,
            Errno::HOSTUNREACH,
            Errno::NETUNREACH,
            Errno::NETDOWN,
            Errno::NOTCONN,
            Errno::CONNREFUSED,
            Errno::CONNRESET,
            Errno::CONNABORTED,
        ] {
            assert!(matches!(of(errno), Error::Unavailable(_)), "{errno}");
        }
        assert!(matches!(of(Errno::ROFS), Error::ReadOnly(_)));
        for errno in [
            Errno::IO,
            Errno::ACCESS,
            Errno::PERM,
            Errno::NOENT,
            Errno::NOTDIR,
            Errno::NODEV,
            Errno::NXIO,
            Errno::MFILE,
            Errno::NOMEM,
            Errno::AGAIN,
            Errno::INTR,
        ] {
            assert!(matches!(of(errno), Error::Other(_)), "{errno}");
        }
    }

    #[test]
    fn a_missing_right_means_read_only_where_a_directory_would_be_changed() {
        let is_read_only = |operation, errno: Errno| {
            let source = io::Error::from(errno);
            let error = Error::from(durable::Error { operation, source });
            matches!(error, Error::ReadOnly(_))
        };
        for operation in CHANGES {
            assert!(is_read_only(operation, Errno::ACCESS), "{operation}");
        }
        for operation in CHANGES {
            let is_of_no_backup = CHANGES_WITHOUT_BACKUP.contains(&operation);
            assert_eq!(
                is_read_only(operation, Errno::PERM),
                is_of_no_backup,
                "{operation}"
            );
        }
        for operation in ["open backup", "read backup", "list"] {
            assert!(!is_read_only(operation, Errno::ACCESS), "{operation}");
            assert!(is_read_only(operation, Errno::ROFS), "{operation}");
        }
    }
}
