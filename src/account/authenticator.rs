//! Verifies credentials against the accounts file, which may change at any time.
//!
//! A chosen password costs 15 ms of hashing on purpose. A phone pays that once: verified credentials are
//! remembered by a keyed hash until the file changes. Refusals are never remembered, and each costs what
//! any other costs, whether the name exists or not. How often anybody may try is decided elsewhere; here is only
//! told apart what has to be tried ([`Authenticator::verify`]) from what nobody can guess ([`Authenticator::verify_generated`]).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;

use super::basic::Decoding;
use super::file::{self, Account, FileError};
use super::{Caller, Credentials, Secret};
use crate::file_version::FileVersion;

/// The way in: the accounts file and what is remembered of it.
pub struct Authenticator {
    path: PathBuf,
    current: ArcSwap<Loaded>,
    /// One reload at a time. Holds the state of the file (`None`: missing) that was last found to be bad,
    /// so that it is read and reported once.
    bad: Mutex<Option<Option<FileVersion>>>,
    /// Slow hashes that run at once; each takes a core and 19 MiB.
    hashing: Arc<Semaphore>,
    hashed: Arc<Counters>,
    cache_key: [u8; 32],
}

/// Passwords that were hashed, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HashCounts {
    /// With SHA-256, to compare them with a generated secret.
    pub fast: u64,
    /// With argon2id, to compare them with a chosen password.
    pub slow: u64,
}

#[derive(Default)]
struct Counters {
    fast: AtomicU64,
    slow: AtomicU64,
}

/// What comparing a password with a secret costs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HashKind {
    Fast,
    Slow,
}

/// The secrets of one cost.
struct SecretStats {
    /// The most that one account has: what every refusal costs.
    max_per_account: usize,
    /// Hashed instead of those that an account does not have.
    dummy: Option<Secret>,
}

/// The accounts of one version of the file, and who was verified against them.
struct Loaded {
    version: Option<FileVersion>,
    accounts: HashMap<String, Account>,
    fast: SecretStats,
    slow: SecretStats,
    verified: Mutex<HashMap<[u8; 32], Caller>>,
}

impl Authenticator {
    /// Reads the accounts file.
    ///
    /// # Errors
    /// When it is missing, unreadable, open to others, or not valid; when the system has no randomness.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::of(path, Loaded::read(path)?)
    }

    /// A way in without any account, until one is written to `path`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn without_accounts(path: &Path) -> Result<Self, FileError> {
        Self::of(path, Loaded::new(None, Vec::new()))
    }

    fn of(path: &Path, loaded: Loaded) -> Result<Self, FileError> {
        let mut cache_key = [0; 32];
        getrandom::fill(&mut cache_key).map_err(|error| FileError::Read {
            path: path.to_owned(),
            source: std::io::Error::other(error),
        })?;
        Ok(Self {
            path: path.to_owned(),
            current: ArcSwap::from_pointee(loaded),
            bad: Mutex::new(None),
            hashing: Arc::new(Semaphore::new(
                available_parallelism().map_or(1, usize::from),
            )),
            hashed: Arc::default(),
            cache_key,
        })
    }

    /// Whether the accounts file as it is now cannot be used, so that those read before are in force. Reads the file
    /// again first if it was replaced.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        let loaded = self.current();
        let bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        let version = FileVersion::of(&self.path);
        version != loaded.version && *bad == Some(version)
    }

    /// Whether there is nobody to let in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.current().accounts.is_empty()
    }

    /// Whose credentials these are, where the password is a generated secret: of these nobody has a list. `None` says
    /// nothing; they have to be verified. Reads the file again first if it was replaced.
    #[must_use]
    pub fn verify_generated(&self, credentials: &Credentials) -> Option<Caller> {
        let loaded = self.current();
        let mut decodings = credentials.decodings();
        decodings.find_map(|decoding| {
            // A chosen password that somebody put into the file as a SHA-256 is not let in here.
            let generated = Secret::looks_generated(&decoding.password);
            let caller = generated.then(|| loaded.check(&decoding, HashKind::Fast, &self.hashed));
            caller.flatten()
        })
    }

    /// Whose credentials these are, where they were verified before, from wherever. Whoever may ask this freely guesses
    /// as fast as he likes.
    #[must_use]
    pub fn verify_cached(&self, credentials: &Credentials) -> Option<Caller> {
        self.current().cached(&self.cache_key(credentials))
    }

    /// Whose credentials these are; `None` when the name is unknown, the account disabled or the secret
    /// wrong, and nothing tells which. Reads the file again first if it was replaced.
    pub async fn verify(&self, credentials: &Credentials) -> Option<Caller> {
        let loaded = self.current();
        let key = self.cache_key(credentials);
        if let Some(caller) = loaded.cached(&key) {
            return Some(caller);
        }
        let mut decodings = credentials.decodings();
        let fast =
            decodings.find_map(|decoding| loaded.check(&decoding, HashKind::Fast, &self.hashed));
        let caller = match fast {
            Some(caller) => caller,
            None if loaded.slow.max_per_account == 0 => return None,
            None => self.verify_slow(&loaded, credentials).await?,
        };
        loaded.cache(key, caller.clone());
        Some(caller)
    }

    /// How many passwords were hashed, for whoever watches the server.
    #[must_use]
    pub fn hashed(&self) -> HashCounts {
        HashCounts {
            fast: self.hashed.fast.load(Ordering::Relaxed),
            slow: self.hashed.slow.load(Ordering::Relaxed),
        }
    }

    async fn verify_slow(&self, loaded: &Arc<Loaded>, credentials: &Credentials) -> Option<Caller> {
        let permit = Arc::clone(&self.hashing).acquire_owned().await.ok()?;
        let decodings: Vec<_> = credentials.decodings().collect();
        let loaded = Arc::clone(loaded);
        let hashed = Arc::clone(&self.hashed);
        tokio::task::spawn_blocking(move || {
            // Given back when the hashes are done, not when the request goes away: else whoever asks and
            // hangs up fills the memory.
            let _permit = permit;
            let mut decodings = decodings.iter();
            decodings.find_map(|decoding| loaded.check(decoding, HashKind::Slow, &hashed))
        })
        .await
        .ok()
        .flatten()
    }

    /// The accounts as the file has them now; the last good ones if the file went bad.
    fn current(&self) -> Arc<Loaded> {
        let loaded = self.current.load_full();
        let version = FileVersion::of(&self.path);
        if version.is_some() && version == loaded.version {
            return loaded;
        }
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have read it while this thread waited.
        let loaded = self.current.load_full();
        if version == loaded.version || *bad == Some(version) {
            return loaded;
        }
        match Loaded::read(&self.path) {
            Ok(read) => {
                tracing::info!(accounts = read.accounts.len(), "accounts were read again");
                *bad = None;
                self.current.store(Arc::new(read));
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the accounts file is bad; the accounts read before stay in force"
                );
                *bad = Some(version);
            }
        }
        self.current.load_full()
    }

    fn cache_key(&self, credentials: &Credentials) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.cache_key)
            .expect("HMAC takes a key of any length");
        mac.update(credentials.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl Loaded {
    fn read(path: &Path) -> Result<Self, FileError> {
        let version = FileVersion::of(path);
        file::check_permissions(path)?;
        Ok(Self::new(version, file::load(path)?))
    }

    fn new(version: Option<FileVersion>, accounts: Vec<Account>) -> Self {
        Self {
            version,
            fast: SecretStats::of(&accounts, HashKind::Fast),
            slow: SecretStats::of(&accounts, HashKind::Slow),
            accounts: accounts
                .into_iter()
                .map(|a| (a.name.as_str().to_owned(), a))
                .collect(),
            verified: Mutex::default(),
        }
    }

    /// Compares a password with the account's secrets of this cost. Hashes as often for every name, so that neither
    /// time nor work tells which names exist.
    fn check(&self, decoding: &Decoding, kind: HashKind, hashed: &Counters) -> Option<Caller> {
        let (secrets, counter) = match kind {
            HashKind::Fast => (&self.fast, &hashed.fast),
            HashKind::Slow => (&self.slow, &hashed.slow),
        };
        let account = self.accounts.get(&decoding.name);
        let account = account.filter(|account| !account.disabled);
        let own = account.into_iter().flat_map(|account| &account.secrets);
        let own = own.filter(|secret| HashKind::of(secret) == kind);
        let dummies =
            std::iter::repeat_n(secrets.dummy.as_ref(), secrets.max_per_account).flatten();
        let found = own
            .map(|secret| (secret, true))
            .chain(dummies.map(|secret| (secret, false)))
            .take(secrets.max_per_account)
            .fold(false, |found, (secret, is_own)| {
                counter.fetch_add(1, Ordering::Relaxed);
                (secret.verify(&decoding.password) & is_own) | found
            });
        account.filter(|_| found).map(caller)
    }

    fn cached(&self, key: &[u8; 32]) -> Option<Caller> {
        self.verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// Only what verified comes here, so there are at most a few entries for each secret in the file.
    fn cache(&self, key: [u8; 32], caller: Caller) {
        self.verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, caller);
    }
}

impl HashKind {
    fn of(secret: &Secret) -> Self {
        if secret.is_slow() {
            Self::Slow
        } else {
            Self::Fast
        }
    }
}

impl SecretStats {
    fn of(accounts: &[Account], kind: HashKind) -> Self {
        let of_account = |account: &Account| {
            let secrets = account.secrets.iter();
            secrets
                .filter(|secret| HashKind::of(secret) == kind)
                .count()
        };
        let mut all = accounts.iter().flat_map(|account| &account.secrets);
        Self {
            max_per_account: accounts.iter().map(of_account).max().unwrap_or_default(),
            // One of the file's own costs what they cost.
            dummy: all.find(|secret| HashKind::of(secret) == kind).cloned(),
        }
    }
}

fn caller(account: &Account) -> Caller {
    Caller {
        name: Some(account.name.clone()),
        role: account.role,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use std::fs;

    use super::*;
    use crate::account::Role;

    struct Office {
        directory: tempfile::TempDir,
    }

    impl Office {
        fn new() -> Self {
            Self {
                directory: tempfile::tempdir().unwrap(),
            }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("accounts.json")
        }

        fn set(&self, accounts: Vec<(&str, Role, bool, Vec<Secret>)>) {
            file::update(&self.path(), |all| {
                *all = accounts
                    .into_iter()
                    .map(|(name, role, disabled, secrets)| Account {
                        name: name.parse().unwrap(),
                        role,
                        disabled,
                        secrets,
                    })
                    .collect();
                Ok::<_, FileError>(())
            })
            .unwrap();
        }
    }

    fn basic(text: &[u8]) -> Credentials {
        let header = format!("Basic {}", BASE64_STANDARD.encode(text));
        Credentials::parse(header.as_bytes()).unwrap()
    }

    async fn name(authenticator: &Authenticator, text: &[u8]) -> Option<String> {
        Some(
            authenticator
                .verify(&basic(text))
                .await?
                .name()?
                .to_string(),
        )
    }

    #[tokio::test]
    async fn generated_and_chosen_secrets_open_and_wrong_ones_do_not() {
        let office = Office::new();
        let (text, generated) = Secret::generate().unwrap();
        let chosen = Secret::of_password("chosen password").unwrap();
        office.set(vec![
            ("phones", Role::Phone, false, vec![generated]),
            ("boss", Role::Operator, false, vec![chosen]),
        ]);
        let authenticator = Authenticator::open(&office.path()).unwrap();

        let phones = format!("phones:{}", text.reveal());
        assert_eq!(
            name(&authenticator, phones.as_bytes()).await.as_deref(),
            Some("phones")
        );
        for _ in 0..2 {
            let boss = authenticator
                .verify(&basic(b"boss:chosen password"))
                .await
                .unwrap();
            assert_eq!(
                (boss.role(), boss.name().unwrap().as_str()),
                (Role::Operator, "boss")
            );
        }
        for wrong in [
            "phones:",
            "phones:x",
            "boss:Chosen password",
            "nobody:chosen password",
            ":",
        ] {
            assert_eq!(
                name(&authenticator, wrong.as_bytes()).await,
                None,
                "{wrong}"
            );
        }
    }

    #[tokio::test]
    async fn both_charsets_of_a_password_open() {
        let office = Office::new();
        office.set(vec![(
            "jörg",
            Role::Phone,
            false,
            vec![Secret::of_password("pässwört").unwrap()],
        )]);
        let authenticator = Authenticator::open(&office.path()).unwrap();

        assert!(
            name(&authenticator, "jörg:pässwört".as_bytes())
                .await
                .is_some()
        );
        assert!(
            name(&authenticator, b"j\xf6rg:p\xe4ssw\xf6rt")
                .await
                .is_some()
        );
        assert!(name(&authenticator, b"j?rg:p?ssw?rt").await.is_none());
    }

    #[tokio::test]
    async fn a_changed_file_is_in_force_at_once() {
        let office = Office::new();
        let secret = Secret::of_password("password").unwrap();
        office.set(vec![("phones", Role::Phone, false, vec![secret.clone()])]);
        let authenticator = Authenticator::open(&office.path()).unwrap();
        assert!(name(&authenticator, b"phones:password").await.is_some());

        office.set(vec![("phones", Role::Phone, true, vec![secret.clone()])]);
        assert!(name(&authenticator, b"phones:password").await.is_none());
        office.set(vec![("phones", Role::Phone, false, vec![secret])]);
        assert!(name(&authenticator, b"phones:password").await.is_some());
        office.set(vec![]);
        assert!(name(&authenticator, b"phones:password").await.is_none());
        assert!(authenticator.is_empty());
    }

    #[tokio::test]
    async fn a_bad_or_missing_file_leaves_the_accounts_in_force() {
        let office = Office::new();
        office.set(vec![(
            "phones",
            Role::Phone,
            false,
            vec![Secret::of_password("password").unwrap()],
        )]);
        let authenticator = Authenticator::open(&office.path()).unwrap();

        crate::durable::replace(&office.path(), b"{").unwrap();
        assert!(name(&authenticator, b"phones:password").await.is_some());
        fs::remove_file(office.path()).unwrap();
        assert!(name(&authenticator, b"phones:password").await.is_some());
        assert!(name(&authenticator, b"phones:wrong").await.is_none());
    }

    #[tokio::test]
    async fn hashes_of_a_request_that_went_away_keep_their_place_until_they_are_done() {
        let office = Office::new();
        let secrets = vec![Secret::of_password("password").unwrap()];
        office.set(vec![("phones", Role::Phone, false, secrets)]);
        let mut authenticator = Authenticator::open(&office.path()).unwrap();
        authenticator.hashing = Arc::new(Semaphore::new(1));

        let wrong = basic(b"phones:wrong");
        let begun = futures_util::FutureExt::now_or_never(authenticator.verify(&wrong));

        assert!(begun.is_none(), "a slow hash was done at once");
        assert_eq!(authenticator.hashing.available_permits(), 0);
        // Whoever comes next waits for the place, and gets it.
        assert!(name(&authenticator, b"phones:password").await.is_some());
    }

    #[tokio::test]
    async fn two_secrets_open_during_a_rotation() {
        let office = Office::new();
        let secrets = vec![
            Secret::of_password("old").unwrap(),
            Secret::of_password("new").unwrap(),
        ];
        office.set(vec![("phones", Role::Phone, false, secrets)]);
        let authenticator = Authenticator::open(&office.path()).unwrap();

        assert!(name(&authenticator, b"phones:old").await.is_some());
        assert!(name(&authenticator, b"phones:new").await.is_some());
        assert!(name(&authenticator, b"phones:older").await.is_none());
    }

    #[tokio::test]
    async fn every_refusal_costs_the_same_hashes() {
        let office = Office::new();
        let generated = || Secret::generate().unwrap();
        let chosen = Secret::of_password("chosen password").unwrap();
        let (right, one) = generated();
        office.set(vec![
            ("phones", Role::Phone, false, vec![one, generated().1]),
            ("former", Role::Phone, true, vec![chosen.clone()]),
            ("boss", Role::Operator, false, vec![chosen.clone(), chosen]),
        ]);
        let authenticator = Authenticator::open(&office.path()).unwrap();
        let mut cost = HashCounts { fast: 0, slow: 0 };

        let guess = generated().0;
        for password in ["wrong", "chosen password", guess.reveal()] {
            let looks_generated = u64::from(password == guess.reveal());
            for account in ["phones", "former", "nobody", ""] {
                let credentials = basic(format!("{account}:{password}").as_bytes());
                assert_eq!(
                    authenticator.verify_generated(&credentials),
                    None,
                    "{account}"
                );
                assert_eq!(authenticator.verify(&credentials).await, None, "{account}");
                cost.fast += 2 + 2 * looks_generated;
                cost.slow += 2;
                assert_eq!(authenticator.hashed(), cost, "{account}:{password}");
            }
        }
        let right = format!("phones:{}", right.reveal());
        assert!(
            authenticator
                .verify_generated(&basic(right.as_bytes()))
                .is_some()
        );
    }

    #[tokio::test]
    async fn what_nobody_can_guess_is_recognised_and_what_was_verified_is_remembered() {
        let office = Office::new();
        let (text, generated) = Secret::generate().unwrap();
        let weak = "sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
        office.set(vec![
            ("phones", Role::Phone, false, vec![generated]),
            ("weak", Role::Phone, false, vec![weak.parse().unwrap()]),
            (
                "boss",
                Role::Phone,
                false,
                vec![Secret::of_password("password").unwrap()],
            ),
        ]);
        let authenticator = Authenticator::open(&office.path()).unwrap();

        let phones = basic(format!("phones:{}", text.reveal()).as_bytes());
        assert!(authenticator.verify_generated(&phones).is_some());
        assert!(authenticator.verify_cached(&phones).is_none());
        for guessable in ["weak:password", "boss:password"] {
            let credentials = basic(guessable.as_bytes());
            assert_eq!(
                authenticator.verify_cached(&credentials),
                None,
                "{guessable}"
            );
            assert!(
                authenticator.verify(&credentials).await.is_some(),
                "{guessable}"
            );
            assert_eq!(
                authenticator.verify_generated(&credentials),
                None,
                "{guessable}"
            );
            assert!(
                authenticator.verify_cached(&credentials).is_some(),
                "{guessable}"
            );
        }
    }
}
