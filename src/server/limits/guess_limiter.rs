//! Rate limits on guesses of account passwords and backup ids.
//!
//! A guess is charged one token *before* it is checked, and refunded if it was right: otherwise the
//! refusal itself would reveal whether the guess was right, and limit nothing. Tokens are refilled
//! over an hour. The buckets, with an address being an IPv4 address or an IPv6 /64, and a network
//! an IPv4 address or an IPv6 /48:
//!
//! - wrong passwords: one bucket for an account at an address, and one for a network;
//! - reads of unknown ids: one for an account at an address, and one for the account (without an
//!   account: for the network);
//! - uploads of new ids: one for an account at a network.
//!
//! Three things are free: requests without credentials, because the iOS app begins every operation
//! with one; generated secrets, because 256 random bits cannot be guessed; and a password that was
//! verified *from the same address* before, so that the phones of an office are served while an
//! attacker guesses from the same address. A verification from another address is not enough:
//! otherwise, as soon as a phone anywhere uses the right password, an attacker whose bucket is
//! empty could test any number of guesses against the cache. Operators are not charged for ids,
//! because they can list them.
//!
//! Buckets are kept in memory under keyed hashes of names and addresses; neither is logged.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::account::{AccountName, Authenticator, Caller, Credentials};
use crate::config::RateLimits;
use crate::lock::lock;
use crate::server::limits::bucket_pairs::{BucketPairs, Exhausted, PairKeys};
use crate::server::limits::keyed_semaphore::{KeyedPermit, KeyedSemaphore};
use crate::server::limits::log_throttle::LogThrottle;
use crate::server::limits::token_buckets::{MAX_BUCKETS, TokenBuckets};
use crate::server::limits::verified_cache::{self, VerifiedCache};
use crate::server::metrics::Metrics;
use crate::server::metrics::limit::Limit;
use crate::server::net::client_address::{ClientAddress, Prefix};

/// Concurrent probes of an account from one address: few beside the smallest sensible limit.
const CONCURRENT_PROBES: usize = 16;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn hourly(tokens: NonZeroU32) -> TokenBuckets {
    TokenBuckets::new(tokens, HOUR, MAX_BUCKETS)
}

/// The guess limiter: token buckets, and the cache of verified passwords.
pub(crate) struct GuessLimiter {
    rate_limits: RateLimits,
    /// Hashes the keys of the buckets: no client can choose names or addresses that share a bucket.
    keys: RandomState,
    passwords: Arc<BucketPairs>,
    unknown_ids: Arc<BucketPairs>,
    /// By account and network.
    new_ids: Arc<Mutex<TokenBuckets>>,
    /// Passwords that were verified, by address.
    verified: Arc<VerifiedCache>,
    /// The longest wait of a password check for its token.
    max_delay: Duration,
    /// One password check at a time for each address. So an address has one entry in the queue for
    /// a hashing permit, however many requests it sends; and when many phones connect at once with
    /// the same password, one check serves all.
    checks: KeyedSemaphore,
    /// A few probes at a time for each account at each address: a probe that finds a backup is
    /// refunded, so that many phones at once do not exhaust the bucket for each other.
    probes: KeyedSemaphore,
    log_throttle: LogThrottle,
    metrics: Arc<Metrics>,
}

/// Why credentials or a probe are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuessError {
    /// Wrong name or secret, or a disabled account.
    InvalidCredentials,
    /// Too many wrong guesses before this request; the next one is possible in `retry_after`
    /// seconds.
    RateLimited { retry_after: u32 },
}

/// How a request reveals whether an id exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// By reading: it leaves no trace.
    Read,
    /// By storing a backup under the id.
    Create,
}

/// The charge for one probe. It stays charged unless it is refunded.
#[must_use]
pub(crate) struct Charge<'a>(Option<Charged<'a>>);

/// The bucket that was charged.
enum Charged<'a> {
    Unknown(&'a GuessLimiter, PairKeys, KeyedPermit<'a>),
    New(&'a GuessLimiter, u64),
}

impl GuessLimiter {
    pub(crate) fn new(rate_limits: &RateLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            rate_limits: *rate_limits,
            keys: RandomState::new(),
            passwords: Arc::new(BucketPairs::new(
                hourly(rate_limits.wrong_passwords_per_account),
                hourly(rate_limits.wrong_passwords_per_address),
            )),
            unknown_ids: Arc::new(BucketPairs::new(
                hourly(rate_limits.unknown_backups_per_address),
                hourly(rate_limits.unknown_backups_per_account),
            )),
            new_ids: Arc::new(Mutex::new(hourly(rate_limits.new_backups_per_address))),
            verified: Arc::new(VerifiedCache::new(verified_cache::MAX_KEYS)),
            max_delay: rate_limits.wrong_password_delay,
            checks: KeyedSemaphore::new(1),
            probes: KeyedSemaphore::new(CONCURRENT_PROBES),
            log_throttle: LogThrottle::default(),
            metrics,
        }
    }

    /// The limiter after a reload: it keeps the buckets of unchanged limits, and the cache of
    /// verified passwords.
    pub(crate) fn reconfigured(&self, rate_limits: &RateLimits) -> Self {
        let old = &self.rate_limits;
        let mut limiter = Self::new(rate_limits, Arc::clone(&self.metrics));
        limiter.keys = self.keys.clone();
        limiter.verified = Arc::clone(&self.verified);
        let passwords = |of: &RateLimits| {
            (
                of.wrong_passwords_per_account,
                of.wrong_passwords_per_address,
            )
        };
        if passwords(old) == passwords(rate_limits) {
            limiter.passwords = Arc::clone(&self.passwords);
        }
        let unknown = |of: &RateLimits| {
            (
                of.unknown_backups_per_address,
                of.unknown_backups_per_account,
            )
        };
        if unknown(old) == unknown(rate_limits) {
            limiter.unknown_ids = Arc::clone(&self.unknown_ids);
        }
        if old.new_backups_per_address == rate_limits.new_backups_per_address {
            limiter.new_ids = Arc::clone(&self.new_ids);
        }
        limiter
    }

    /// Verifies credentials.
    ///
    /// # Errors
    /// When the credentials are wrong, or too many wrong ones came before them.
    pub(crate) async fn authenticate(
        &self,
        authenticator: &Authenticator,
        credentials: &Credentials,
        address: ClientAddress,
    ) -> Result<Caller, GuessError> {
        if let Some(caller) = authenticator.verify_generated(credentials) {
            return Ok(caller);
        }
        let prefix = address.prefix();
        let cache_key = self.keys.hash_one((prefix, credentials));
        if let Some(caller) = self.verified_at(cache_key, authenticator, credentials) {
            return Ok(caller);
        }
        let keys = PairKeys {
            narrow: self.keys.hash_one((prefix, credentials.name())),
            wide: self.keys.hash_one(prefix.network()),
        };
        let permit = self.checks.acquire(self.keys.hash_one(prefix)).await;
        if let Some(caller) = self.verified_at(cache_key, authenticator, credentials) {
            return Ok(caller);
        }
        let wait = match self.passwords.take(keys, Instant::now(), self.max_delay) {
            Ok(wait) => wait,
            // A generated secret passes also if it was added to the file a moment ago.
            Err(exhausted) => {
                let caller = authenticator.verify_new_generated(credentials).await;
                return caller.ok_or_else(|| self.too_many_passwords(&exhausted));
            }
        };
        let _permit = if wait.is_zero() {
            permit
        } else {
            self.metrics.password_delayed();
            drop(permit);
            sleep(wait).await;
            self.checks.acquire(self.keys.hash_one(prefix)).await
        };
        // Where the request is cancelled before the response, the token stays taken.
        let caller = authenticator.verify(credentials).await;
        self.metrics.hashed(authenticator.hashed());
        if caller.is_some() {
            self.passwords.refund(keys, Instant::now());
            self.verified.insert(cache_key);
        }
        caller.ok_or(GuessError::InvalidCredentials)
    }

    fn verified_at(
        &self,
        cache_key: u64,
        authenticator: &Authenticator,
        credentials: &Credentials,
    ) -> Option<Caller> {
        let is_verified = self.verified.contains(cache_key);
        is_verified
            .then(|| authenticator.verify_cached(credentials))
            .flatten()
    }

    /// Charges a probe of an id, before the store is read. Operators are not charged: they can list
    /// all ids.
    ///
    /// # Errors
    /// When the bucket is empty.
    pub(crate) async fn charge(
        &self,
        caller: &Caller,
        address: ClientAddress,
        probe: Probe,
    ) -> Result<Charge<'_>, GuessError> {
        if caller.role().may_list() {
            return Ok(Charge(None));
        }
        let (account, no_wait) = (caller.name(), Duration::ZERO);
        let prefix = address.prefix();
        match probe {
            Probe::Read => {
                let keys = self.unknown_keys(account, prefix);
                let permit = self.probes.acquire(keys.narrow).await;
                let taken = self.unknown_ids.take(keys, Instant::now(), no_wait);
                taken.map_err(|exhausted| match exhausted {
                    Exhausted::Narrow(wait) => self.refuse(Limit::UnknownBackupsPerAddress, wait),
                    Exhausted::Wide(wait) => self.refuse(Limit::UnknownBackupsPerAccount, wait),
                })?;
                Ok(Charge(Some(Charged::Unknown(self, keys, permit))))
            }
            Probe::Create => {
                let key = self.keys.hash_one((prefix.network(), account));
                let taken = lock(&self.new_ids).take(key, Instant::now(), no_wait);
                taken.map_err(|wait| self.refuse(Limit::NewBackupsPerAddress, wait))?;
                Ok(Charge(Some(Charged::New(self, key))))
            }
        }
    }

    /// Callers without an account share the wide bucket of their network, not one bucket for all of
    /// them: otherwise any client could empty it for all.
    fn unknown_keys(&self, account: Option<&AccountName>, prefix: Prefix) -> PairKeys {
        PairKeys {
            narrow: self.keys.hash_one((prefix, account)),
            wide: account.map_or_else(
                || self.keys.hash_one(prefix.network()),
                |account| self.keys.hash_one(account),
            ),
        }
    }

    fn too_many_passwords(&self, exhausted: &Exhausted) -> GuessError {
        match *exhausted {
            Exhausted::Narrow(wait) => self.refuse(Limit::WrongPasswordsPerAccount, wait),
            Exhausted::Wide(wait) => self.refuse(Limit::WrongPasswordsPerAddress, wait),
        }
    }

    fn refuse(&self, limit: Limit, wait: Duration) -> GuessError {
        self.metrics.refusals().count(limit);
        if self.log_throttle.should_log(limit, Instant::now()) {
            tracing::warn!(
                limit = limit.label(),
                "rate limit reached: guessing or misconfigured clients"
            );
        }
        // Rounded up: a request after that time has its token.
        let seconds = wait.as_secs() + 1;
        GuessError::RateLimited {
            retry_after: u32::try_from(seconds).unwrap_or(u32::MAX),
        }
    }
}

impl Charge<'_> {
    /// Gives the token back: the backup exists, so the probe was no guess.
    pub(crate) fn refund(self) {
        let now = Instant::now();
        match self.0 {
            Some(Charged::Unknown(limiter, keys, _permit)) => limiter.unknown_ids.refund(keys, now),
            Some(Charged::New(limiter, key)) => lock(&limiter.new_ids).refund(key, now),
            None => {}
        }
    }
}

#[cfg(test)]
#[path = "guess_limiter_tests.rs"]
mod tests;
