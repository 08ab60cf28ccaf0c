//! A phone in Rust: the four requests of Threema Safe, made exactly as the Android app or the iOS app
//! makes them.
//!
//! Sources: Threema for Android 6.4.2 (`ThreemaSafeApiClient.kt`, OkHttp 5.1), Threema for iOS 7.2.2
//! (`HTTPClient.swift`, `SafeApiService.swift`, URLSession). Knows the format, nothing of the server.

mod end_to_end;
mod error;
mod requests;
mod server_url;
mod trust;

use bytes::Bytes;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::backup::{App, BackupId, SealedBackup};

pub use end_to_end::{EndToEndTest, Failure, OnFailure, Outcome, STEP_LIMIT, Step};
pub use error::Error;
pub use server_url::{BadUrl, ServerUrl};
pub use trust::{Trust, TrustError};

use requests::Session;

/// User name and password of the server, as typed into the app.
pub struct Login {
    /// The account's name.
    pub username: String,
    /// Its secret. Wiped when dropped.
    pub password: Zeroizing<String>,
}

/// What `config` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerConfig {
    /// The largest backup that the server takes, in bytes.
    pub max_backup_bytes: u64,
    /// How many days it keeps one.
    pub retention_days: u64,
}

/// One phone and the server it is set to.
pub struct Phone {
    server: ServerUrl,
    login: Option<Login>,
    app: App,
    trust: Trust,
    /// Android's connections, kept between operations.
    session: Session,
}

impl Phone {
    /// A phone that trusts `trust` and is set to `server`. Without a login it sends no credentials.
    ///
    /// # Errors
    /// When TLS cannot be set up.
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

    /// What both apps do before every backup, and when a server is set: `GET config`.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or answers something else.
    pub async fn config(&self) -> Result<ServerConfig, Error> {
        let body = self.request(Method::GET, self.server.config(), None).await;
        if matches!(body, Err(Error::NotFound)) {
            return Err(Error::NoConfig);
        }
        let body = body?;
        serde_json::from_slice(&body).map_err(|_| Error::NotAConfig)
    }

    /// A backup: `GET config`, the app's own look at the size, `PUT`.
    ///
    /// # Errors
    /// When the app would not send it, or the server cannot be reached or refuses.
    pub async fn put(&self, id: BackupId, backup: &SealedBackup) -> Result<(), Error> {
        self.check_before_put(backup).await?;
        self.upload(id, backup).await
    }

    /// What comes before an upload: `GET config`, and the app's own look at the size.
    async fn check_before_put(&self, backup: &SealedBackup) -> Result<(), Error> {
        let limit = self.config().await?.max_backup_bytes;
        let size = backup.as_bytes().len() as u64;
        // Android sends a backup of exactly the limit, iOS does not.
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

    /// A restore: `GET` of the backup.
    ///
    /// # Errors
    /// When there is none, or the server cannot be reached or refuses.
    pub async fn get(&self, id: BackupId) -> Result<Bytes, Error> {
        self.request(Method::GET, self.server.backup(id), None)
            .await
    }

    /// What turning Safe off does: `DELETE` of the backup.
    ///
    /// # Errors
    /// When there is none, or the server cannot be reached or refuses.
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
                // Every operation of the iOS app has a session, and so a connection, of its own.
                let session = Session::new(self.app, &self.trust)?;
                session
                    .send_as_ios(method, url, body, self.login.as_ref())
                    .await
            }
        }
    }
}
