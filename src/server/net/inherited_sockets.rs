//! Inherited sockets, opened by the process that starts the server, such as systemd (socket
//! activation). They stay open while the server restarts, so that no connection is refused.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

/// Inherited sockets, which replace the addresses of the configuration.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Replace `listen`, unless empty.
    pub public: Vec<Socket>,
    /// Replaces `admin.listen`.
    pub admin: Option<TcpListener>,
}

/// A listening socket.
#[derive(Debug)]
pub enum Socket {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}
