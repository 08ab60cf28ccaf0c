//! Listeners: TCP, or a Unix socket for a proxy on the same machine.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::sleep;
use tokio_util::either::Either;

use crate::config::Listen;
use crate::server::error::StartError;
use crate::server::net::client_address::ClientAddress;
use crate::server::net::inherited_sockets::Socket;

/// Permissions of the socket file: its owner and its group, to which the proxy's user belongs, may
/// connect.
const SOCKET_MODE: u32 = 0o660;

/// The pause after `accept` failed with an error such as "too many open files".
const BACK_OFF: Duration = Duration::from_millis(100);

/// A stream of either kind.
pub(crate) type Stream = Either<TcpStream, UnixStream>;

/// A listener of either kind.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// `None` if the socket is inherited.
        _file: Option<SocketFile>,
    },
}

/// The file of a Unix socket that this server created; removed when it is dropped.
pub(crate) struct SocketFile(PathBuf);

impl Listener {
    /// Listens on the inherited sockets; without any, on the addresses in `listen`.
    ///
    /// # Errors
    /// When an address cannot be bound, or an inherited socket cannot be used.
    pub(crate) async fn all(
        listen: &[Listen],
        inherited: Vec<Socket>,
    ) -> Result<Vec<Self>, StartError> {
        let mut all = Vec::new();
        if inherited.is_empty() {
            for listen in listen {
                all.push(Self::bind(listen).await?);
            }
        }
        for socket in inherited {
            all.push(match socket {
                Socket::Tcp(listener) => Self::Tcp(inherited_tcp(listener)?),
                Socket::Unix(listener) => {
                    check_permissions(&listener).map_err(StartError::Inherited)?;
                    listener
                        .set_nonblocking(true)
                        .map_err(StartError::Inherited)?;
                    // Its file belongs to the process that created it.
                    let listener =
                        UnixListener::from_std(listener).map_err(StartError::Inherited)?;
                    Self::Unix {
                        listener,
                        _file: None,
                    }
                }
            });
        }
        Ok(all)
    }

    /// Binds an address of `listen`.
    async fn bind(listen: &Listen) -> Result<Self, StartError> {
        match listen {
            Listen::Tcp(address) => bind_tcp("listen", *address).await.map(Self::Tcp),
            Listen::Unix(path) => bind_unix(path).map_err(|source| StartError::Listen {
                key: "listen",
                address: listen.clone(),
                source,
            }),
        }
    }

    /// The bound address, with the port that the system assigned.
    pub(crate) fn address(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix { listener, .. } => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().unwrap_or(Path::new(""));
                Ok(Listen::Unix(path.to_owned()))
            }
        }
    }

    /// Accepts one connection.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, ClientAddress)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Otherwise small responses wait for the acknowledgement of earlier ones (Nagle).
                drop(stream.set_nodelay(true));
                Ok((Either::Left(stream), ClientAddress::of_peer(peer)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Right(stream), ClientAddress::UnixSocket))
            }
        }
    }
}

/// Listens on an inherited TCP socket.
pub(crate) fn inherited_tcp(listener: std::net::TcpListener) -> Result<TcpListener, StartError> {
    listener
        .set_nonblocking(true)
        .map_err(StartError::Inherited)?;
    TcpListener::from_std(listener).map_err(StartError::Inherited)
}

/// Binds a TCP address, the value of `key` in the configuration.
pub(crate) async fn bind_tcp(
    key: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, StartError> {
    let bound = match TcpListener::bind(address).await {
        // A machine without IPv6: `[::]` stands for `0.0.0.0` there.
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED
                && error.kind() == io::ErrorKind::Unsupported =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    };
    bound.map_err(|source| StartError::Listen {
        key,
        address: Listen::Tcp(address),
        source,
    })
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let bound = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale_socket(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    };
    let listener = bound?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(Listener::Unix {
        listener,
        _file: Some(file),
    })
}

/// Every process that can connect to a Unix socket is a trusted proxy, so an inherited socket must
/// not be open to all users of the machine.
fn check_permissions(listener: &std::os::unix::net::UnixListener) -> io::Result<()> {
    let address = listener.local_addr()?;
    let Some(path) = address.as_pathname() else {
        return Ok(());
    };
    if fs::metadata(path)?.permissions().mode() & 0o002 != 0 {
        let text = format!(
            "{}: writable by every user, expected owner and group only; set SocketMode=0660",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// Pauses after a failed `accept`: a shortage of file descriptors passes. There is no pause for a
/// connection that was closed before it was accepted, or clients could slow each other down.
pub(crate) async fn back_off(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind()) {
        return tracing::debug!(%error, "connection closed before accept");
    }
    tracing::warn!(%error, "accept failed");
    sleep(BACK_OFF).await;
}

/// Whether `path` is a socket on which no process listens: a server that was killed leaves one.
pub(crate) fn is_stale_socket(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = || {
        let connected = std::os::unix::net::UnixStream::connect(path);
        connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    is_socket && refused()
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // An error means that the file was removed before.
        drop(fs::remove_file(&self.0));
    }
}
