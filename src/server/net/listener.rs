//! Where connections come in: TCP, or a Unix socket for a proxy on the same machine.

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

/// Who may connect to the socket: its owner and its group, into which the proxy's user belongs.
const SOCKET_MODE: u32 = 0o660;

/// How long accepting pauses after an error such as "too many open files".
const BACK_OFF: Duration = Duration::from_millis(100);
/// A stream of either kind.
pub(crate) type Stream = Either<TcpStream, UnixStream>;

/// A listener of either kind.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Where this server has made it.
        _file: Option<SocketFile>,
    },
}

/// The file of a Unix socket; removed when it is dropped.
pub(crate) struct SocketFile(PathBuf);

impl Listener {
    /// Listens on sockets that are open already, or where there are none, on what the configuration names.
    pub(crate) async fn all(
        listen: &[Listen],
        given: Vec<Socket>,
    ) -> Result<Vec<Self>, StartError> {
        let mut all = Vec::new();
        if given.is_empty() {
            for listen in listen {
                all.push(Self::bind(listen).await?);
            }
        }
        for socket in given {
            all.push(match socket {
                Socket::Tcp(listener) => Self::Tcp(given_tcp(listener)?),
                Socket::Unix(listener) => {
                    refuse_if_open(&listener).map_err(StartError::Given)?;
                    listener.set_nonblocking(true).map_err(StartError::Given)?;
                    // Its file belongs to whoever made it.
                    let listener = UnixListener::from_std(listener).map_err(StartError::Given)?;
                    Self::Unix {
                        listener,
                        _file: None,
                    }
                }
            });
        }
        Ok(all)
    }

    /// Listens on what the configuration names under `listen`.
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

    /// What it listens on, with the port that the system has given.
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

    pub(crate) async fn accept(&self) -> io::Result<(Stream, ClientAddress)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Without this, small answers wait for the acknowledgement of the ones before.
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

/// Listens on a socket that is open already.
pub(crate) fn given_tcp(listener: std::net::TcpListener) -> Result<TcpListener, StartError> {
    listener.set_nonblocking(true).map_err(StartError::Given)?;
    TcpListener::from_std(listener).map_err(StartError::Given)
}

/// Listens on an address that the configuration names under `key`.
pub(crate) async fn bind_tcp(
    key: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, StartError> {
    let bound = match TcpListener::bind(address).await {
        // A machine without IPv6: every address is then every address of IPv4.
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
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
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

/// Whoever may connect is a trusted proxy: that must not be every user of the machine.
fn refuse_if_open(listener: &std::os::unix::net::UnixListener) -> io::Result<()> {
    let address = listener.local_addr()?;
    let Some(path) = address.as_pathname() else {
        return Ok(());
    };
    if fs::metadata(path)?.permissions().mode() & 0o002 != 0 {
        let text = format!(
            "every user of this machine can connect to {}: set SocketMode=0660",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// Waits a moment after accepting failed: out of descriptors, this passes. Nobody waits for a connection that was over
/// before it was accepted, or clients could slow each other down.
pub(crate) async fn back_off(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind()) {
        return tracing::debug!(%error, "a connection was over before it was accepted");
    }
    tracing::warn!(%error, "accepting a connection failed");
    sleep(BACK_OFF).await;
}

/// Whether a socket is there to which nobody listens: a server that was killed leaves one.
pub(crate) fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = || {
        let connected = std::os::unix::net::UnixStream::connect(path);
        connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    is_socket && refused()
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it is gone already, so be it.
        drop(fs::remove_file(&self.0));
    }
}
