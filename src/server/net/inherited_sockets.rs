//! Sockets that whoever starts the server has opened already, such as systemd: they stay open while one server takes
//! the place of another, so that nobody is refused.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

/// What the server is to listen on instead of what the configuration names.
#[derive(Debug, Default)]
pub struct Sockets {
    /// In the place of `listen`, if there are any.
    pub public: Vec<Socket>,
    /// In the place of `admin.listen`.
    pub admin: Option<TcpListener>,
}

/// A socket that listens.
#[derive(Debug)]
pub enum Socket {
    /// At an address and a port.
    Tcp(TcpListener),
    /// At a path.
    Unix(UnixListener),
}
