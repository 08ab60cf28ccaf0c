//! Classification of operating system errors: the storage is full, unavailable, or has failed.

use std::io::{self, ErrorKind};

use rustix::io::Errno;

use crate::durable;
use crate::store::Error;

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

impl From<durable::Error> for Error {
    fn from(error: durable::Error) -> Self {
        let kind = error.source.kind();
        if [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].contains(&kind) {
            Self::Full(error.into())
        } else if UNREACHABLE.contains(&kind) || is_host_down(&error.source) {
            Self::Unavailable(error.into())
        } else {
            Self::Other(error.into())
        }
    }
}

/// True for EHOSTDOWN, which CIFS returns and for which the standard library has no kind.
fn is_host_down(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::HOSTDOWN.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_classified_as_full_unavailable_or_other() {
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
        for errno in [
            Errno::IO,
            Errno::ROFS,
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
}
