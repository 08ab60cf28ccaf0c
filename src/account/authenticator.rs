//! Verification of credentials against the accounts file, which may change at any time.
//!
//! A chosen password costs 15 ms of hashing on purpose. A phone pays that once: verified
//! credentials are cached by a keyed hash until their account changes. Refusals are never cached,
//! and refusing one password costs the same number of hashes whether the name exists or not.
//! Attempts are rate limited elsewhere (`server/limits/guess_limiter.rs`); this module only
//! separates passwords that can be guessed ([`Authenticator::verify`]) from generated secrets,
//! which cannot ([`Authenticator::verify_generated`]).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;

use super::basic::Decoding;
use super::file::{self, Account, FileError};
use super::{AccountName, Caller, Credentials, Secret};
use crate::lock::lock;
use crate::reloaded::{FileSource, Reloaded};

/// Verifies credentials against the accounts file, which is reloaded when it is replaced.
pub struct Authenticator {
    file: Arc<Reloaded<AccountsFile>>,
    /// One permit for each concurrent argon2id hash, which takes a core and 19 MiB.
    hashing: Arc<Semaphore>,
    hashed: Arc<Counters>,
    cache_key: [u8; 32],
}

/// Numbers of hashed passwords since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HashCounts {
    /// SHA-256 hashes, for comparison with generated secrets.
    pub fast: u64,
    /// argon2id hashes, for comparison with chosen passwords.
    pub slow: u64,
}

#[derive(Default)]
struct Counters {
    fast: AtomicU64,
    slow: AtomicU64,
}

/// The kind of a secret's hash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HashKind {
    /// SHA-256 of a generated secret.
    Fast,
    /// argon2id of a chosen password.
    Slow,
}

/// The secrets of one kind, over all accounts.
struct SecretStats {
    /// The largest number of them in one account: the number of hashes of every refusal.
    max_per_account: usize,
    /// Hashed in place of the secrets that an account lacks, so that all refusals cost the same.
    dummy: Option<Secret>,
}

/// The accounts file at this path.
pub(crate) struct AccountsFile(PathBuf);

/// The accounts of one version of the file, and the cache of credentials verified against them.
pub(crate) struct Loaded {
    accounts: HashMap<String, Account>,
    fast: SecretStats,
    slow: SecretStats,
    verified: Mutex<HashMap<[u8; 32], Caller>>,
}

impl Authenticator {
    /// Loads the accounts file.
    ///
    /// # Errors
    /// When it is missing, unreadable, not valid, or its permissions are too open; when the system
    /// provides no randomness.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = Reloaded::open(AccountsFile(path.to_owned()))?;
        Self::with(path, file)
    }

    /// An authenticator without accounts, until the accounts file is written.
    ///
    /// # Errors
    /// When the system provides no randomness.
    pub fn without_accounts(path: &Path) -> Result<Self, FileError> {
        let source = AccountsFile(path.to_owned());
        Self::with(
            path,
            Reloaded::without_files(source, Loaded::new(Vec::new())),
        )
    }

    /// As [`Authenticator::open`]; where accounts are optional and there is no file, as
    /// [`Authenticator::without_accounts`].
    ///
    /// # Errors
    /// As [`Authenticator::open`].
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

    /// The accounts file. A change of it is in force after the next refresh.
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

    /// Verifies a generated secret, which cannot be guessed. `None` if the password does not
    /// look generated or does not match: the credentials may still pass [`Self::verify`].
    #[must_use]
    pub fn verify_generated(&self, credentials: &Credentials) -> Option<Caller> {
        let loaded = self.file.current();
        let mut decodings = credentials.decodings();
        decodings.find_map(|decoding| {
            // A weak password that an operator stored as SHA-256 must not pass here.
            let generated = Secret::looks_generated(&decoding.password);
            let caller = generated.then(|| loaded.check(&decoding, HashKind::Fast, &self.hashed));
            caller.flatten()
        })
    }

    /// As [`Self::verify_generated`], for a secret that may be new: checks the accounts file first.
    pub async fn verify_new_generated(&self, credentials: &Credentials) -> Option<Caller> {
        let mut decodings = credentials.decodings();
        if !decodings.any(|decoding| Secret::looks_generated(&decoding.password)) {
            return None;
        }
        self.file.refresh().await;
        self.verify_generated(credentials)
    }

    /// The account of credentials that were verified before, from any address. Rate limit this
    /// call: without a limit, an attacker could guess at full speed.
    #[must_use]
    pub fn verify_cached(&self, credentials: &Credentials) -> Option<Caller> {
        let loaded = self.file.current();
        loaded.cached(&self.cache_key(credentials))
    }

    /// Verifies credentials; `None` if the name is unknown, the account disabled or the secret
    /// wrong; neither time nor work reveals which. Checks the accounts file first unless the
    /// credentials are cached, so that a new account and a new password work at once.
    pub async fn verify(&self, credentials: &Credentials) -> Option<Caller> {
        let key = self.cache_key(credentials);
        if let Some(caller) = self.file.current().cached(&key) {
            return Some(caller);
        }
        self.file.refresh().await;
        let loaded = self.file.current();
        let mut decodings = credentials.decodings();
        let fast =
            decodings.find_map(|decoding| loaded.check(&decoding, HashKind::Fast, &self.hashed));
        let caller = match fast {
            Some(caller) => caller,
            None if loaded.slow.max_per_account == 0 => return None,
            None => self.verify_slow(&loaded, credentials).await?,
        };
        loaded.cache(key, caller.clone());
        // The accounts may have been reloaded meanwhile.
        self.file.current().inherit(&loaded);
        Some(caller)
    }

    /// The numbers of hashed passwords, for the metrics.
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
            // Released when the hashes are done, not when the request is cancelled: otherwise
            // clients that send requests and disconnect would fill the memory.
            let _permit = permit;
            let mut decodings = decodings.iter();
            decodings.find_map(|decoding| loaded.check(decoding, HashKind::Slow, &hashed))
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
        file::check_permissions(&self.0)?;
        Ok(Loaded::new(file::load(&self.0)?))
    }

    fn carry_over(&self, old: &Loaded, new: &Loaded) {
        new.inherit(old);
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
            fast: SecretStats::of(&accounts, HashKind::Fast),
            slow: SecretStats::of(&accounts, HashKind::Slow),
            accounts: accounts
                .into_iter()
                .map(|a| (a.name.as_str().to_owned(), a))
                .collect(),
            verified: Mutex::default(),
        }
    }

    /// Compares a password with the account's secrets of this kind. The number of hashes is the
    /// same for every name, so that neither time nor work reveals which names exist.
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

    /// Keeps verified passwords of accounts that are the same as in `old`: a reload must not lock
    /// phones out while an attacker empties the rate limit of their address.
    fn inherit(&self, old: &Self) {
        if std::ptr::eq(self, old) {
            return;
        }
        let is_unchanged = |caller: &Caller| {
            let name = caller.name().map(AccountName::as_str);
            let [before, after] = [old, self].map(|loaded| loaded.accounts.get(name?));
            before.is_some() && before == after
        };
        let verified: Vec<_> = lock(&old.verified)
            .iter()
            .filter(|(_, caller)| is_unchanged(caller))
            .map(|(key, caller)| (*key, caller.clone()))
            .collect();
        lock(&self.verified).extend(verified);
    }

    fn cached(&self, key: &[u8; 32]) -> Option<Caller> {
        lock(&self.verified).get(key).cloned()
    }

    /// Adds verified credentials only, so the cache holds a few entries for each secret in the
    /// file.
    fn cache(&self, key: [u8; 32], caller: Caller) {
        lock(&self.verified).insert(key, caller);
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
            // A secret of the file itself, with the same cost parameters.
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

    struct Fixture {
        directory: tempfile::TempDir,
    }

    impl Fixture {
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
    async fn generated_and_chosen_secrets_are_accepted_and_wrong_ones_are_refused() {
        let fixture = Fixture::new();
        let (text, generated) = Secret::generate().unwrap();
        let chosen = Secret::of_password("chosen password").unwrap();
        fixture.set(vec![
            ("phones", Role::Phone, false, vec![generated]),
            ("boss", Role::Operator, false, vec![chosen]),
        ]);
        let authenticator = Authenticator::open(&fixture.path()).unwrap();

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
    async fn both_charsets_of_a_password_are_accepted() {
        let fixture = Fixture::new();
        fixture.set(vec![(
            "jörg",
            Role::Phone,
            false,
            vec![Secret::of_password("pässwört").unwrap()],
        )]);
        let authenticator = Authenticator::open(&fixture.path()).unwrap();

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
    async fn a_changed_file_is_in_force_once_it_is_refreshed() {
        let fixture = Fixture::new();
        let secret = Secret::of_password("password").unwrap();
        fixture.set(vec![("phones", Role::Phone, false, vec![secret.clone()])]);
        let authenticator = Authenticator::open(&fixture.path()).unwrap();
        assert!(name(&authenticator, b"phones:password").await.is_some());

        fixture.set(vec![("phones", Role::Phone, true, vec![secret.clone()])]);
        authenticator.file().refresh().await;
        assert!(name(&authenticator, b"phones:password").await.is_none());
        // A refusal is always by the current file.
        fixture.set(vec![("phones", Role::Phone, false, vec![secret])]);
        assert!(name(&authenticator, b"phones:password").await.is_some());
        fixture.set(vec![]);
        authenticator.file().refresh().await;
        assert!(name(&authenticator, b"phones:password").await.is_none());
        assert!(authenticator.is_empty());
    }

    #[tokio::test]
    async fn a_new_account_and_a_new_password_are_accepted_without_a_refresh() {
        let fixture = Fixture::new();
        let authenticator = Authenticator::without_accounts(&fixture.path()).unwrap();
        assert!(authenticator.is_empty());
        assert!(name(&authenticator, b"phones:password").await.is_none());
        for (account, secret) in [("phones", "password"), ("phones", "new"), ("boss", "new")] {
            let secrets = vec![Secret::of_password(secret).unwrap()];
            fixture.set(vec![(account, Role::Phone, false, secrets)]);
            let credentials = format!("{account}:{secret}");
            assert!(
                name(&authenticator, credentials.as_bytes()).await.is_some(),
                "{credentials}"
            );
        }
    }

    #[test]
    fn optional_accounts_may_be_missing_but_not_bad() {
        let fixture = Fixture::new();
        assert!(Authenticator::open_optional(&fixture.path(), false).is_err());
        assert!(
            Authenticator::open_optional(&fixture.path(), true)
                .unwrap()
                .is_empty()
        );
        crate::durable::replace(&fixture.path(), b"{").unwrap();
        assert!(Authenticator::open_optional(&fixture.path(), true).is_err());
    }

    #[tokio::test]
    async fn a_bad_or_missing_file_leaves_the_accounts_in_force() {
        let fixture = Fixture::new();
        fixture.set(vec![(
            "phones",
            Role::Phone,
            false,
            vec![Secret::of_password("password").unwrap()],
        )]);
        let authenticator = Authenticator::open(&fixture.path()).unwrap();

        assert!(!authenticator.is_bad());
        crate::durable::replace(&fixture.path(), b"{").unwrap();
        authenticator.file().refresh().await;
        assert!(authenticator.is_bad());
        assert!(name(&authenticator, b"phones:password").await.is_some());
        fs::remove_file(fixture.path()).unwrap();
        authenticator.file().refresh().await;
        assert!(authenticator.is_bad());
        assert!(name(&authenticator, b"phones:password").await.is_some());
        assert!(name(&authenticator, b"phones:wrong").await.is_none());
    }

    #[tokio::test]
    async fn hashes_of_a_cancelled_request_keep_their_permit_until_they_are_done() {
        let fixture = Fixture::new();
        let secrets = vec![Secret::of_password("password").unwrap()];
        fixture.set(vec![("phones", Role::Phone, false, secrets)]);
        let mut authenticator = Authenticator::open(&fixture.path()).unwrap();
        authenticator.hashing = Arc::new(Semaphore::new(1));

        let wrong = basic(b"phones:wrong");
        {
            let mut cancelled = std::pin::pin!(authenticator.verify(&wrong));
            while authenticator.hashing.available_permits() > 0 {
                let polled = futures_util::FutureExt::now_or_never(cancelled.as_mut());
                assert!(polled.is_none(), "a slow hash was done at once");
                tokio::task::yield_now().await;
            }
        }

        assert_eq!(authenticator.hashing.available_permits(), 0);
        // The next request waits for the permit, and gets it.
        assert!(name(&authenticator, b"phones:password").await.is_some());
    }

    #[tokio::test]
    async fn both_secrets_are_accepted_during_a_rotation() {
        let fixture = Fixture::new();
        let secrets = vec![
            Secret::of_password("old").unwrap(),
            Secret::of_password("new").unwrap(),
        ];
        fixture.set(vec![("phones", Role::Phone, false, secrets)]);
        let authenticator = Authenticator::open(&fixture.path()).unwrap();

        assert!(name(&authenticator, b"phones:old").await.is_some());
        assert!(name(&authenticator, b"phones:new").await.is_some());
        assert!(name(&authenticator, b"phones:older").await.is_none());
    }

    #[tokio::test]
    async fn every_refusal_costs_the_same_hashes() {
        let fixture = Fixture::new();
        let generated = || Secret::generate().unwrap();
        let chosen = Secret::of_password("chosen password").unwrap();
        let (right, one) = generated();
        fixture.set(vec![
            ("phones", Role::Phone, false, vec![one, generated().1]),
            ("former", Role::Phone, true, vec![chosen.clone()]),
            ("boss", Role::Operator, false, vec![chosen.clone(), chosen]),
        ]);
        let authenticator = Authenticator::open(&fixture.path()).unwrap();
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
    async fn generated_secrets_verify_without_guesses_and_verified_credentials_are_cached() {
        let fixture = Fixture::new();
        let (text, generated) = Secret::generate().unwrap();
        let weak = "sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
        fixture.set(vec![
            ("phones", Role::Phone, false, vec![generated]),
            ("weak", Role::Phone, false, vec![weak.parse().unwrap()]),
            (
                "boss",
                Role::Phone,
                false,
                vec![Secret::of_password("password").unwrap()],
            ),
        ]);
        let authenticator = Authenticator::open(&fixture.path()).unwrap();

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

    #[tokio::test]
    async fn a_verified_password_stays_verified_until_its_account_changes() {
        let fixture = Fixture::new();
        let [boss, other] = ["boss password", "other password"]
            .map(|password| Secret::of_password(password).unwrap());
        let account = |secret: &Secret| ("boss", Role::Operator, false, vec![secret.clone()]);
        let another = || ("another", Role::Phone, false, vec![other.clone()]);
        fixture.set(vec![account(&boss)]);
        let authenticator = Authenticator::open(&fixture.path()).unwrap();
        let credentials = basic(b"boss:boss password");
        let is_verified = || authenticator.verify_cached(&credentials).is_some();
        authenticator.verify(&credentials).await.unwrap();

        authenticator.file().reread();
        assert!(is_verified());
        fixture.set(vec![another(), account(&boss)]);
        authenticator.file().reload_if_replaced();
        assert!(is_verified());

        let changes = [
            vec![another(), account(&other)],
            vec![another(), ("boss", Role::Phone, false, vec![boss.clone()])],
            vec![
                another(),
                ("boss", Role::Operator, true, vec![boss.clone()]),
            ],
            vec![another()],
        ];
        for changed in changes {
            fixture.set(vec![another(), account(&boss)]);
            authenticator.file().reload_if_replaced();
            authenticator.verify(&credentials).await.unwrap();
            assert!(is_verified());

            fixture.set(changed);
            authenticator.file().reload_if_replaced();
            assert!(!is_verified());
        }
    }
}
