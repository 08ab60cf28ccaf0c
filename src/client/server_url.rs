//! Server URL, as typed into the app or set by MDM, and the URLs of `config` and the backups.

use std::str::FromStr;

use reqwest::Url;

use crate::backup::BackupId;

/// Placeholder for the first byte of the backup id as two hexadecimal digits: Threema's own server
/// has 256 shards (Android 6.4.2 `ThreemaSafeServerInfo.getServerUrl`).
const PREFIX_PLACEHOLDER: &str = "{backupIdPrefix8}";
/// The value with which Android replaces the placeholder as long as there is no backup id.
const NO_PREFIX: &str = "xx";

/// The base URL of `config` and `backups/`: scheme https, without user name, query and fragment.
#[derive(Debug, Clone)]
pub struct ServerUrl(String);

/// Why a server URL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidUrl {
    /// The string is not a URL.
    #[error("invalid server address: expected a URL such as https://safe.example.org/")]
    Syntax,
    /// The scheme is not https. Android 6.x accepts it in lower case only.
    #[error(
        "the server's address must begin with https:// in lower case; the apps accept no other scheme"
    )]
    NotHttps,
    /// The URL contains a user name or password, which Android 6.x and iOS 7.x read differently.
    #[error(
        "the server's address must not contain a user name or password: the apps interpret them differently"
    )]
    Userinfo,
    /// The URL contains a query or a fragment, to which the apps append their paths differently.
    #[error("the server's address must not contain ? or #")]
    Query,
}

impl FromStr for ServerUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let text = text.trim();
        if !text.starts_with("https://") {
            return Err(if text.contains("://") {
                InvalidUrl::NotHttps
            } else {
                InvalidUrl::Syntax
            });
        }
        let url: Url = text
            .replace(PREFIX_PLACEHOLDER, NO_PREFIX)
            .parse()
            .map_err(|_| InvalidUrl::Syntax)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidUrl::Userinfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidUrl::Query);
        }
        let slash = if text.ends_with('/') { "" } else { "/" };
        Ok(Self(format!("{text}{slash}")))
    }
}

impl ServerUrl {
    pub(super) fn config(&self) -> Url {
        self.join(NO_PREFIX, "config")
    }

    pub(super) fn backup(&self, id: BackupId) -> Url {
        let id = id.to_hex();
        let (prefix, _) = id.split_at(2);
        self.join(prefix, &format!("backups/{id}"))
    }

    fn join(&self, prefix: &str, path: &str) -> Url {
        let url = self.0.replace(PREFIX_PLACEHOLDER, prefix) + path;
        url.parse()
            .expect("the URL was parsed when the `ServerUrl` was created")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_of_the_apps_tests() {
        // iOS `SafeTests.swift`, Android `ThreemaSafeServerInfoTest.kt`.
        let id: BackupId = "066384d3695fbbd9f31a7d533900fd0cd8d1373beb6a28678522d2a49980c9c3"
            .parse()
            .unwrap();
        for (server, backup) in [
            (
                "https://test.com",
                format!("https://test.com/backups/{}", id.to_hex()),
            ),
            (
                "https://test.com/a/",
                format!("https://test.com/a/backups/{}", id.to_hex()),
            ),
            (
                "https://safe-{backupIdPrefix8}.threema.ch/",
                format!("https://safe-06.threema.ch/backups/{}", id.to_hex()),
            ),
        ] {
            let server: ServerUrl = server.parse().unwrap();
            assert_eq!(server.backup(id).as_str(), backup);
        }
        let server: ServerUrl = "https://safe-{backupIdPrefix8}.threema.ch/"
            .parse()
            .unwrap();
        assert_eq!(
            server.config().as_str(),
            "https://safe-xx.threema.ch/config"
        );
    }

    #[test]
    fn addresses_that_the_apps_misread_are_refused() {
        let error = |text: &str| text.parse::<ServerUrl>().unwrap_err();
        assert!(matches!(error("http://test.com"), InvalidUrl::NotHttps));
        assert!(matches!(error("HTTPS://test.com"), InvalidUrl::NotHttps));
        assert!(matches!(error("test.com"), InvalidUrl::Syntax));
        assert!(matches!(error("https://"), InvalidUrl::Syntax));
        assert!(matches!(
            error("https://u:p@test.com"),
            InvalidUrl::Userinfo
        ));
        assert!(matches!(error("https://test.com/?a"), InvalidUrl::Query));
    }
}
