//! ACME files on disk. Each is replaced as a whole, with mode 0600:
//!
//! - `account-….json`: the account and its key, written before the authority receives the key, so
//!   that a crash does not lose it. Each authority has a file of its own, named by the first 16
//!   hexadecimal digits of the SHA-256 of its directory URL.
//! - `certificate.pem`: private key and chain in one file, so that they always match. Two lines
//!   before them contain the authority's directory URL and the time of the order.
//! - `failure.json`: how the last orders failed; removed after a successful order.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{Acme, TlsFiles};
use crate::durable;
use crate::private_file::Exposure;
use crate::server::acme::error::Error;
use crate::server::acme::schedule::{OrderFailure, StoredCertificate};
use crate::server::tls::leaf::Leaf;
use crate::server::tls::pem;

/// Start of the line with the authority's directory URL.
const FROM: &str = "From: ";
/// Start of the line with the time of the order, in Unix seconds.
const OBTAINED: &str = "Obtained: ";

/// The ACME directory of one configuration.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    acme: Acme,
}

/// An account with an authority.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Account {
    /// The private key, PKCS #8 in base64. Never logged: the type has no `Debug`.
    pub(super) key: String,
    /// The account's URL; `None` until the authority has registered it.
    pub(super) url: Option<String>,
    /// The contact that the authority has, a `mailto:` URL.
    pub(super) contact: Option<String>,
}

impl Store {
    /// Creates the directory if it is missing.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(crate) fn open(acme: &Acme) -> Result<Self, Error> {
        durable::create_directory(&acme.directory).map_err(|source| Error::Write {
            path: acme.directory.clone(),
            source,
        })?;
        Ok(Self { acme: acme.clone() })
    }

    /// The configuration.
    pub(super) fn acme(&self) -> &Acme {
        &self.acme
    }

    /// The paths of certificate and private key, which are one file.
    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.path("certificate.pem"),
            private_key: self.path("certificate.pem"),
        }
    }

    /// Reads the stored certificate; `None` if there is none that can be used.
    ///
    /// # Errors
    /// When the file cannot be read, or other users can read its key.
    pub(crate) fn certificate(&self) -> Result<Option<StoredCertificate>, Error> {
        let path = self.path("certificate.pem");
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let Ok(key) = pem::load(&self.files()) else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let line = |start| text.lines().find_map(|line| line.strip_prefix(start));
        let Some((begins, ends, names)) = key.cert.first().and_then(|leaf| parse_leaf(leaf)) else {
            return Ok(None);
        };
        let domains: BTreeSet<_> = self.acme.domains.iter().cloned().collect();
        Ok(Some(StoredCertificate {
            begins,
            ends,
            obtained: line(OBTAINED)
                .and_then(|time| time.parse().ok())
                .unwrap_or(0),
            is_as_configured: line(FROM) == Some(&*self.acme.directory_url) && names == domains,
        }))
    }

    /// Replaces the certificate. `private_key` and `chain` are PEM, `now` is in Unix seconds.
    ///
    /// # Errors
    /// When the new certificate is not for the configured domains, does not match its key, or
    /// cannot be written.
    pub(super) fn replace_certificate(
        &self,
        private_key: &str,
        chain: &str,
        now: u64,
    ) -> Result<StoredCertificate, Error> {
        let unusable = || Error::Unusable("a certificate for other domains");
        let key = pem::pair(chain.as_bytes(), private_key.as_bytes()).ok_or_else(unusable)?;
        let (begins, ends, names) = key
            .cert
            .first()
            .and_then(|leaf| parse_leaf(leaf))
            .ok_or_else(unusable)?;
        if names != self.acme.domains.iter().cloned().collect() {
            return Err(unusable());
        }
        let from = &self.acme.directory_url;
        let text = format!("{FROM}{from}\n{OBTAINED}{now}\n\n{private_key}{chain}");
        write(&self.path("certificate.pem"), text.as_bytes())?;
        Ok(StoredCertificate {
            begins,
            ends,
            obtained: now,
            is_as_configured: true,
        })
    }

    /// Reads the account with the configured authority; `None` if there is none.
    ///
    /// # Errors
    /// When the file cannot be read or parsed: creating a new account would lose the old key.
    pub(crate) fn account(&self) -> Result<Option<Account>, Error> {
        self.read_json(&self.account_file())
    }

    /// Replaces the account.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn replace_account(&self, account: &Account) -> Result<(), Error> {
        write_json(&self.account_file(), account)
    }

    /// Reads how the last orders failed; `None` if the last one succeeded.
    ///
    /// # Errors
    /// When the file cannot be read or parsed.
    pub(crate) fn failure(&self) -> Result<Option<OrderFailure>, Error> {
        self.read_json(&self.path("failure.json"))
    }

    /// Records how the last orders failed; `None` if the last one succeeded.
    ///
    /// # Errors
    /// When it cannot be written or removed.
    pub(super) fn replace_failure(&self, failure: Option<&OrderFailure>) -> Result<(), Error> {
        let path = self.path("failure.json");
        let Some(failure) = failure else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Write {
                    path,
                    source: durable::Error::at("remove")(error),
                }),
                _ => Ok(()),
            };
        };
        write_json(&path, failure)
    }

    fn account_file(&self) -> PathBuf {
        let hash = hex::encode(Sha256::digest(&self.acme.directory_url));
        self.path(&format!("account-{}.json", hash.split_at(16).0))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.acme.directory.join(name)
    }

    fn read_json<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, Error> {
        let Some(bytes) = read(path)? else {
            return Ok(None);
        };
        // Without the error of serde, which would quote the file and its secrets.
        serde_json::from_slice(&bytes).map_err(|_| Error::Damaged(path.to_owned()))
    }
}

/// Start and end of a leaf certificate's validity in Unix seconds, and its names; `None` without
/// names.
fn parse_leaf(leaf: &[u8]) -> Option<(u64, u64, BTreeSet<String>)> {
    let leaf = Leaf::parse(leaf).filter(|leaf| !leaf.names.is_empty())?;
    Some((leaf.not_before, leaf.not_after, leaf.names))
}

/// Reads a file; `None` if it is missing.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        Ok(bytes) => match Exposure::of(path).map_err(failed)? {
            Some(exposure) => Err(Error::Exposed {
                path: path.to_owned(),
                exposure,
            }),
            None => Ok(Some(bytes)),
        },
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    durable::replace(path, bytes).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|_| Error::Damaged(path.to_owned()))?;
    write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::server::tls::self_signed::development_certificate;

    const NOW: u64 = 1_700_000_000;

    fn acme(directory: &Path) -> Acme {
        Acme {
            domains: vec!["a.example".into(), "b.example".into()],
            contact: None,
            directory_url: "https://authority.example/dir".into(),
            directory: directory.join("inner/acme"),
            authority_file: None,
        }
    }

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let made = development_certificate(&names, now).unwrap();
        (made.private_key_pem, made.chain_pem)
    }

    #[test]
    fn a_stored_certificate_is_read_back_and_compared_with_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&acme(folder.path())).unwrap();
        assert_eq!(store.certificate().unwrap(), None);
        let (key, chain) = made(&["b.example", "a.example"]);

        let kept = store.replace_certificate(&key, &chain, NOW).unwrap();

        assert!(kept.is_as_configured && kept.obtained == NOW && kept.begins < kept.ends);
        assert_eq!(store.certificate().unwrap(), Some(kept));
        let changes: [fn(&mut Acme); 2] = [
            |acme| acme.directory_url.push('2'),
            |acme| drop(acme.domains.pop()),
        ];
        for change in changes {
            let mut other = acme(folder.path());
            change(&mut other);
            let found = Store::open(&other).unwrap().certificate().unwrap().unwrap();
            assert!(!found.is_as_configured);
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = store.files().certificate;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn an_unusable_certificate_does_not_replace_the_stored_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&acme(folder.path())).unwrap();
        let (key, chain) = made(&["a.example", "b.example"]);
        let kept = store.replace_certificate(&key, &chain, NOW).unwrap();
        let (other_key, _) = made(&["a.example", "b.example"]);
        let (less_key, less) = made(&["a.example"]);

        for (key, chain) in [
            (&*other_key, &*chain),
            (&*less_key, &*less),
            (&*key, ""),
            ("", &*chain),
        ] {
            assert!(store.replace_certificate(key, chain, NOW + 1).is_err());
        }

        assert_eq!(store.certificate().unwrap(), Some(kept));
    }

    #[test]
    fn an_unreadable_file_is_an_error_and_not_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&acme(folder.path())).unwrap();
        let account = Account {
            key: "secret".into(),
            url: None,
            contact: None,
        };
        store.replace_account(&account).unwrap();
        assert_eq!(store.account().unwrap().unwrap().key, "secret");

        let path = store.account_file();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(store.account(), Err(Error::Exposed { .. })));
        durable::replace(&path, b"{\"key\": 7}").unwrap();
        let error = store.account().err().unwrap();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
    }
}
