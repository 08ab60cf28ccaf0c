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
#[path = "authenticator_tests.rs"]
mod tests;
