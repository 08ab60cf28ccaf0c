//! Client for Threema Safe servers: sends the four requests of the protocol exactly as the Android
//! app or the iOS app does.
//!
//! Sources: Threema for Android 6.4.2 (`ThreemaSafeApiClient.kt`, OkHttp 5.1), Threema for iOS
//! 7.2.2 (`HTTPClient.swift`, `SafeApiService.swift`, URLSession). The module uses the backup
//! format and nothing of the server.

mod end_to_end;
mod error;
mod login;
mod requests;
mod server_url;
mod trust;

use bytes::Bytes;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::backup::{App, BackupId, SealedBackup};

pub use end_to_end::{EndToEndTest, Failure, OnFailure, Outcome, STEP_LIMIT, Step};
pub use error::Error;
pub use login::Login;
pub use server_url::{InvalidUrl, ServerUrl};
pub use trust::{Trust, TrustError};

use requests::Session;

/// The server's `config` document: `{"maxBackupBytes": …, "retentionDays": …}`, both unsigned
/// integers (both apps read these two keys: Android 6.4.2 `ThreemaSafeApiClient.kt`, iOS 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerConfig {
    /// Length of the largest backup that the server accepts, in bytes.
    pub max_backup_bytes: u64,
    /// Number of days for which the server keeps a backup after its last upload.
    pub retention_days: u64,
}

/// An emulated phone: one app, its server and its credentials.
pub struct Phone {
    server: ServerUrl,
    login: Option<Login>,
    app: App,
    trust: Trust,
    /// The connections of the Android app, which keeps them between operations.
    session: Session,
}

impl Phone {
    /// Creates a phone with `server` as its Safe server. Without a login it sends no credentials.
    ///
    /// # Errors
    /// When the HTTP client or TLS cannot be set up.
    pub fn new(
        app: App,
        server: ServerUrl,
        login: Option<Login>,
        trust: Trust,
    ) -> Result<Self, Error> {
        let session = Session::new(app, &trust)?;
        Ok(Self {
            server,
            login,
            app,
            trust,
            session,
        })
    }

    /// Requests the server's configuration: `GET config`. Both apps do so before every backup, and
    /// when a server is entered.
    ///
    /// # Errors
    /// When the server cannot be reached, responds with another status than 2xx, or with a body
    /// that is not a `config` document.
    pub async fn config(&self) -> Result<ServerConfig, Error> {
        let body = self.request(Method::GET, self.server.config(), None).await;
        if matches!(body, Err(Error::NotFound)) {
            return Err(Error::NoConfig);
        }
        let body = body?;
        serde_json::from_slice(&body).map_err(|_| Error::NotAConfig)
    }

    /// Uploads a backup: `GET config`, the app's own check of the size, `PUT`.
    ///
    /// # Errors
    /// When the backup is too large for the app to send it, the server cannot be reached, or it
    /// responds with another status than 2xx.
    pub async fn put(&self, id: BackupId, backup: &SealedBackup) -> Result<(), Error> {
        self.check_before_put(backup).await?;
        self.upload(id, backup).await
    }

    /// The steps before an upload: `GET config`, and the app's own check of the size.
    async fn check_before_put(&self, backup: &SealedBackup) -> Result<(), Error> {
        let limit = self.config().await?.max_backup_bytes;
        let size = backup.as_bytes().len() as u64;
        // Android 6.x sends a backup whose length is exactly the limit, iOS 7.x does not.
        let fits = match self.app {
            App::Android => size <= limit,
            App::Ios => size < limit,
        };
        if fits {
            Ok(())
        } else {
            Err(Error::TooLarge { size, limit })
        }
    }

    async fn upload(&self, id: BackupId, backup: &SealedBackup) -> Result<(), Error> {
        let body = Some(backup.as_bytes().clone());
        self.request(Method::PUT, self.server.backup(id), body)
            .await
            .map(drop)
    }

    /// Downloads a backup, as for a restore: `GET`.
    ///
    /// # Errors
    /// When the backup does not exist, the server cannot be reached, or it responds with another
    /// status than 2xx.
    pub async fn get(&self, id: BackupId) -> Result<Bytes, Error> {
        self.request(Method::GET, self.server.backup(id), None)
            .await
    }

    /// Deletes a backup, as the apps do when Safe is turned off: `DELETE`.
    ///
    /// # Errors
    /// When the backup does not exist, the server cannot be reached, or it responds with another
    /// status than 2xx.
    pub async fn delete(&self, id: BackupId) -> Result<(), Error> {
        self.request(Method::DELETE, self.server.backup(id), None)
            .await
            .map(drop)
    }

    async fn request(
        &self,
        method: Method,
        url: reqwest::Url,
        body: Option<Bytes>,
    ) -> Result<Bytes, Error> {
        match self.app {
            App::Android => {
                self.session
                    .send_as_android(method, url, body, self.login.as_ref())
                    .await
            }
            App::Ios => {
                // The iOS app creates a new URLSession, and so a new connection, for every
                // operation (iOS 7.2.2 `HTTPClient.swift`).
                let session = Session::new(self.app, &self.trust)?;
                session
                    .send_as_ios(method, url, body, self.login.as_ref())
                    .await
            }
        }
    }
}
