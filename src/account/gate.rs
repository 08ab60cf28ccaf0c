//! Verifies credentials against the accounts file, which may change at any time.
//!
//! A chosen password costs 15 ms of hashing on purpose. A phone pays that once: verified credentials are
//! remembered by a keyed hash until the file changes. Refusals are never remembered, and each costs what
//! any other costs, whether the name exists or not. How often anybody may try is decided elsewhere; here is only
//! told apart what has to be tried ([`Gate::verify`]) from what nobody can guess ([`Gate::recognise`]).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;

use super::basic::Reading;
use super::file::{self, Account, FileError};
use super::{Caller, Credentials, Secret};
use crate::reloaded::{FileSource, Reloaded};

/// The way in: the accounts file and what is remembered of it.
pub struct Gate {
    file: Arc<Reloaded<AccountsFile>>,
    /// Slow hashes that run at once; each takes a core and 19 MiB.
    hashing: Arc<Semaphore>,
    hashed: Arc<Counters>,
    cache_key: [u8; 32],
}

/// Passwords that were hashed, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hashed {
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
enum Cost {
    Fast,
    Slow,
}

/// The secrets of one cost.
struct Secrets {
    /// The most that one account has: what every refusal costs.
    most: usize,
    /// Hashed instead of those that an account does not have.
    decoy: Option<Secret>,
}

/// The accounts file, by its path.
pub(crate) struct AccountsFile(PathBuf);

/// The accounts of one version of the file, and who was verified against them.
pub(crate) struct Loaded {
    accounts: HashMap<String, Account>,
    fast: Secrets,
    slow: Secrets,
    verified: Mutex<HashMap<[u8; 32], Caller>>,
}

impl Gate {
    /// Reads the accounts file.
    ///
    /// # Errors
    /// When it is missing, unreadable, open to others, or not valid; when the system has no randomness.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = Reloaded::open(AccountsFile(path.to_owned()))?;
        Self::with(path, file)
    }

    /// Without any account until the accounts file is written.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn without_accounts(path: &Path) -> Result<Self, FileError> {
        let source = AccountsFile(path.to_owned());
        Self::with(
            path,
            Reloaded::without_files(source, Loaded::new(Vec::new())),
        )
    }

    /// As [`Gate::open`]; where accounts are optional and there is no file, as
    /// [`Gate::without_accounts`].
    ///
    /// # Errors
    /// As [`Gate::open`].
    pub fn open_optional(path: &Path, is_optional: bool) -> Result<Self, FileError> {
        if is_optional && !path.exists() {
            return Self::without_accounts(path);
        }
        Self::open(path)
    }

    fn with(path: &Path, file: Reloaded<AccountsFile>) -> Result<Self, FileError> {
        let mut cache_key = [0; 32];
        getrandom::fill(&mut cache_key).map_err(|error| FileError::Read {
            path: path.to_owned(),
            source: std::io::Error::other(error),
        })?;
        Ok(Self {
            file: Arc::new(file),
            hashing: Arc::new(Semaphore::new(
                available_parallelism().map_or(1, usize::from),
            )),
            hashed: Arc::default(),
            cache_key,
        })
    }

    /// The accounts file. A change of it is in force once it was refreshed.
    pub(crate) fn file(&self) -> &Arc<Reloaded<AccountsFile>> {
        &self.file
    }

    /// Whether the accounts file could not be used at the last check, so that the accounts read
    /// before are in force.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.file.problem().is_some()
    }

    /// Whether there are no accounts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.file.current().accounts.is_empty()
    }

    /// Whose credentials these are, where the password is a generated secret: of these nobody has a list. `None` says
    /// nothing; they have to be verified.
    #[must_use]
    pub fn recognise(&self, credentials: &Credentials) -> Option<Caller> {
        let loaded = self.file.current();
        let mut readings = credentials.readings();
        readings.find_map(|reading| {
            // A chosen password that somebody put into the file as a SHA-256 is not let in here.
            let generated = Secret::looks_generated(&reading.password);
            let caller = generated.then(|| loaded.check(&reading, Cost::Fast, &self.hashed));
            caller.flatten()
        })
    }

    /// Whose credentials these are, where they were verified before, from wherever. Whoever may ask this freely guesses
    /// as fast as he likes.
    #[must_use]
    pub fn remembered(&self, credentials: &Credentials) -> Option<Caller> {
        let loaded = self.file.current();
        loaded.remembered(&self.cache_key(credentials))
    }

    /// Whose credentials these are; `None` when the name is unknown, the account disabled or the
    /// secret wrong, and nothing tells which. Refreshes the accounts first where the credentials
    /// are not remembered, so that a new account and a new password work at once.
    pub async fn verify(&self, credentials: &Credentials) -> Option<Caller> {
        let key = self.cache_key(credentials);
        if let Some(caller) = self.file.current().remembered(&key) {
            return Some(caller);
        }
        self.file.refresh().await;
        let loaded = self.file.current();
        let mut readings = credentials.readings();
        let fast = readings.find_map(|reading| loaded.check(&reading, Cost::Fast, &self.hashed));
        let caller = match fast {
            Some(caller) => caller,
            None if loaded.slow.most == 0 => return None,
            None => self.verify_slowly(&loaded, credentials).await?,
        };
        loaded.remember(key, caller.clone());
        Some(caller)
    }

    /// How many passwords were hashed, for whoever watches the server.
    #[must_use]
    pub fn hashed(&self) -> Hashed {
        Hashed {
            fast: self.hashed.fast.load(Ordering::Relaxed),
            slow: self.hashed.slow.load(Ordering::Relaxed),
        }
    }

    async fn verify_slowly(
        &self,
        loaded: &Arc<Loaded>,
        credentials: &Credentials,
    ) -> Option<Caller> {
        let permit = Arc::clone(&self.hashing).acquire_owned().await.ok()?;
        let readings: Vec<_> = credentials.readings().collect();
        let loaded = Arc::clone(loaded);
        let hashed = Arc::clone(&self.hashed);
        tokio::task::spawn_blocking(move || {
            // Given back when the hashes are done, not when the request goes away: else whoever asks and
            // hangs up fills the memory.
            let _permit = permit;
            let mut readings = readings.iter();
            readings.find_map(|reading| loaded.check(reading, Cost::Slow, &hashed))
        })
        .await
        .ok()
        .flatten()
    }

    fn cache_key(&self, credentials: &Credentials) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.cache_key)
            .expect("HMAC takes a key of any length");
        mac.update(credentials.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl FileSource for AccountsFile {
    type Value = Loaded;
    type Error = FileError;

    fn files(&self) -> Vec<&Path> {
        vec![&self.0]
    }

    fn read(&self) -> Result<Loaded, FileError> {
        file::check_rights(&self.0)?;
        Ok(Loaded::new(file::load(&self.0)?))
    }

    fn reloaded(&self, _: &Loaded, new: &Loaded) {
        tracing::info!(accounts = new.accounts.len(), "accounts reloaded");
    }

    fn failed(&self, error: &FileError) {
        tracing::error!(
            error = error as &dyn std::error::Error,
            "accounts reload failed; previous accounts stay in force"
        );
    }
}

impl Loaded {
    fn new(accounts: Vec<Account>) -> Self {
        Self {
            fast: Secrets::of(&accounts, Cost::Fast),
            slow: Secrets::of(&accounts, Cost::Slow),
            accounts: accounts
                .into_iter()
                .map(|a| (a.name.as_str().to_owned(), a))
                .collect(),
            verified: Mutex::default(),
        }
    }

    /// Compares a password with the account's secrets of this cost. Hashes as often for every name, so that neither
    /// time nor work tells which names exist.
    fn check(&self, reading: &Reading, cost: Cost, hashed: &Counters) -> Option<Caller> {
        let (secrets, counter) = match cost {
            Cost::Fast => (&self.fast, &hashed.fast),
            Cost::Slow => (&self.slow, &hashed.slow),
        };
        let account = self.accounts.get(&reading.name);
        let account = account.filter(|account| !account.disabled);
        let own = account.into_iter().flat_map(|account| &account.secrets);
        let own = own.filter(|secret| Cost::of(secret) == cost);
        let decoys = std::iter::repeat_n(secrets.decoy.as_ref(), secrets.most).flatten();
        let found = own
            .map(|secret| (secret, true))
            .chain(decoys.map(|secret| (secret, false)))
            .take(secrets.most)
            .fold(false, |found, (secret, is_own)| {
                counter.fetch_add(1, Ordering::Relaxed);
                (secret.verify(&reading.password) & is_own) | found
            });
        account.filter(|_| found).map(caller)
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Caller> {
        self.verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// Only what verified comes here, so there are at most a few entries for each secret in the file.
    fn remember(&self, key: [u8; 32], caller: Caller) {
        self.verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, caller);
    }
}

impl Cost {
    fn of(secret: &Secret) -> Self {
        if secret.is_slow() {
            Self::Slow
        } else {
            Self::Fast
        }
    }
}

impl Secrets {
    fn of(accounts: &[Account], cost: Cost) -> Self {
        let of_account = |account: &Account| {
            let secrets = account.secrets.iter();
            secrets.filter(|secret| Cost::of(secret) == cost).count()
        };
        let mut all = accounts.iter().flat_map(|account| &account.secrets);
        Self {
            most: accounts.iter().map(of_account).max().unwrap_or_default(),
            // One of the file's own costs what they cost.
            decoy: all.find(|secret| Cost::of(secret) == cost).cloned(),
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

    async fn name(gate: &Gate, text: &[u8]) -> Option<String> {
        Some(gate.verify(&basic(text)).await?.name()?.to_string())
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
        let gate = Gate::open(&office.path()).unwrap();

        let phones = format!("phones:{}", text.reveal());
        assert_eq!(
            name(&gate, phones.as_bytes()).await.as_deref(),
            Some("phones")
        );
        for _ in 0..2 {
            let boss = gate.verify(&basic(b"boss:chosen password")).await.unwrap();
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
            assert_eq!(name(&gate, wrong.as_bytes()).await, None, "{wrong}");
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
        let gate = Gate::open(&office.path()).unwrap();

        assert!(name(&gate, "jörg:pässwört".as_bytes()).await.is_some());
        assert!(name(&gate, b"j\xf6rg:p\xe4ssw\xf6rt").await.is_some());
        assert!(name(&gate, b"j?rg:p?ssw?rt").await.is_none());
    }

    #[tokio::test]
    async fn a_changed_file_is_in_force_once_it_is_refreshed() {
        let office = Office::new();
        let secret = Secret::of_password("password").unwrap();
        office.set(vec![("phones", Role::Phone, false, vec![secret.clone()])]);
        let gate = Gate::open(&office.path()).unwrap();
        assert!(name(&gate, b"phones:password").await.is_some());

        office.set(vec![("phones", Role::Phone, true, vec![secret.clone()])]);
        gate.file().refresh().await;
        assert!(name(&gate, b"phones:password").await.is_none());
        // What is refused is refused by the file as it is now.
        office.set(vec![("phones", Role::Phone, false, vec![secret])]);
        assert!(name(&gate, b"phones:password").await.is_some());
        office.set(vec![]);
        gate.file().refresh().await;
        assert!(name(&gate, b"phones:password").await.is_none());
        assert!(gate.is_empty());
    }

    #[tokio::test]
    async fn a_new_account_and_a_new_password_open_without_a_refresh() {
        let office = Office::new();
        let gate = Gate::without_accounts(&office.path()).unwrap();
        assert!(gate.is_empty());
        assert!(name(&gate, b"phones:password").await.is_none());
        for (account, secret) in [("phones", "password"), ("phones", "new"), ("boss", "new")] {
            let secrets = vec![Secret::of_password(secret).unwrap()];
            office.set(vec![(account, Role::Phone, false, secrets)]);
            let credentials = format!("{account}:{secret}");
            assert!(
                name(&gate, credentials.as_bytes()).await.is_some(),
                "{credentials}"
            );
        }
    }

    #[test]
    fn optional_accounts_may_be_missing_but_not_bad() {
        let office = Office::new();
        assert!(Gate::open_optional(&office.path(), false).is_err());
        assert!(
            Gate::open_optional(&office.path(), true)
                .unwrap()
                .is_empty()
        );
        crate::durable::replace(&office.path(), b"{").unwrap();
        assert!(Gate::open_optional(&office.path(), true).is_err());
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
        let gate = Gate::open(&office.path()).unwrap();

        assert!(!gate.is_bad());
        crate::durable::replace(&office.path(), b"{").unwrap();
        gate.file().refresh().await;
        assert!(gate.is_bad());
        assert!(name(&gate, b"phones:password").await.is_some());
        fs::remove_file(office.path()).unwrap();
        gate.file().refresh().await;
        assert!(gate.is_bad());
        assert!(name(&gate, b"phones:password").await.is_some());
        assert!(name(&gate, b"phones:wrong").await.is_none());
    }

    #[tokio::test]
    async fn hashes_of_a_request_that_went_away_keep_their_place_until_they_are_done() {
        let office = Office::new();
        let secrets = vec![Secret::of_password("password").unwrap()];
        office.set(vec![("phones", Role::Phone, false, secrets)]);
        let mut gate = Gate::open(&office.path()).unwrap();
        gate.hashing = Arc::new(Semaphore::new(1));

        let wrong = basic(b"phones:wrong");
        {
            let mut begun = std::pin::pin!(gate.verify(&wrong));
            while gate.hashing.available_permits() > 0 {
                let polled = futures_util::FutureExt::now_or_never(begun.as_mut());
                assert!(polled.is_none(), "a slow hash was done at once");
                tokio::task::yield_now().await;
            }
        }

        assert_eq!(gate.hashing.available_permits(), 0);
        // Whoever comes next waits for the place, and gets it.
        assert!(name(&gate, b"phones:password").await.is_some());
    }

    #[tokio::test]
    async fn two_secrets_open_during_a_rotation() {
        let office = Office::new();
        let secrets = vec![
            Secret::of_password("old").unwrap(),
            Secret::of_password("new").unwrap(),
        ];
        office.set(vec![("phones", Role::Phone, false, secrets)]);
        let gate = Gate::open(&office.path()).unwrap();

        assert!(name(&gate, b"phones:old").await.is_some());
        assert!(name(&gate, b"phones:new").await.is_some());
        assert!(name(&gate, b"phones:older").await.is_none());
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
        let gate = Gate::open(&office.path()).unwrap();
        let mut cost = Hashed { fast: 0, slow: 0 };

        let guess = generated().0;
        for password in ["wrong", "chosen password", guess.reveal()] {
            let looks_generated = u64::from(password == guess.reveal());
            for account in ["phones", "former", "nobody", ""] {
                let credentials = basic(format!("{account}:{password}").as_bytes());
                assert_eq!(gate.recognise(&credentials), None, "{account}");
                assert_eq!(gate.verify(&credentials).await, None, "{account}");
                cost.fast += 2 + 2 * looks_generated;
                cost.slow += 2;
                assert_eq!(gate.hashed(), cost, "{account}:{password}");
            }
        }
        let right = format!("phones:{}", right.reveal());
        assert!(gate.recognise(&basic(right.as_bytes())).is_some());
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
        let gate = Gate::open(&office.path()).unwrap();

        let phones = basic(format!("phones:{}", text.reveal()).as_bytes());
        assert!(gate.recognise(&phones).is_some());
        assert!(gate.remembered(&phones).is_none());
        for guessable in ["weak:password", "boss:password"] {
            let credentials = basic(guessable.as_bytes());
            assert_eq!(gate.remembered(&credentials), None, "{guessable}");
            assert!(gate.verify(&credentials).await.is_some(), "{guessable}");
            assert_eq!(gate.recognise(&credentials), None, "{guessable}");
            assert!(gate.remembered(&credentials).is_some(), "{guessable}");
        }
    }
}
