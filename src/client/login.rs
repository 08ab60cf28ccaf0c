//! Credentials of an account on a Threema Safe server.

use zeroize::Zeroizing;

/// User name and password of an account on the server, as typed into the app.
pub struct Login {
    /// The account's name.
    pub username: String,
    /// The account's secret. Wiped from memory when dropped.
    pub password: Zeroizing<String>,
}
