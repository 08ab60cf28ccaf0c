//! Arguments for access to a server: credentials, and a certificate authority to trust.

use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use crate::backup::App;
use crate::cli::secret;
use crate::client::{Login, Phone, ServerUrl, Trust};

/// Environment variable with the password of the account on the server.
const SECRET: &str = "SAFE_CLIENT_SECRET";

/// Credentials and trusted certificates for a server.
#[derive(Debug, Args)]
pub(super) struct Access {
    /// User name on the server
    #[arg(long, value_name = "NAME")]
    pub(super) username: Option<String>,
    /// A file with the password on the server (- is standard input); one newline at its end is
    /// ignored. Without a file, the password is read from SAFE_CLIENT_SECRET or a prompt
    #[arg(long, value_name = "FILE", requires = "username")]
    pub(super) secret_file: Option<PathBuf>,
    /// A PEM file with a certificate authority to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

impl Access {
    /// Reads the password on the server, if a user name is set.
    pub(super) fn secret(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        let read = || secret::read(self.secret_file.as_deref(), SECRET, "server's password");
        self.username.as_ref().map(|_| read()).transpose()
    }

    /// Creates a client that emulates `app`.
    pub(super) fn phone(
        &self,
        app: App,
        server: &ServerUrl,
        secret: Option<&Zeroizing<String>>,
    ) -> anyhow::Result<Phone> {
        let trust = Trust::system_and(self.ca.as_deref())?;
        let login = self.username.as_ref().zip(secret);
        let login = login.map(|(username, secret)| Login {
            username: username.clone(),
            password: secret.clone(),
        });
        Ok(Phone::new(app, server.clone(), login, trust)?)
    }
}
