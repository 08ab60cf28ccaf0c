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

use crate::account::{AccountName, Authenticator, Caller, Credentials, Role};
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
        if caller.role() == Role::Operator {
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
mod tests {
    use std::net::SocketAddr;
    use std::num::NonZeroU32;
    use std::path::Path;

    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;
    use crate::account::{Account, FileError, Secret, update};

    /// Ten wrong passwords an hour for an account, twenty for an address; twenty and thirty unknown
    /// ids, five new ones.
    fn limiter(max_delay: Duration) -> GuessLimiter {
        let number = |number| NonZeroU32::new(number).unwrap();
        let rate_limits = RateLimits {
            wrong_passwords_per_account: number(10),
            wrong_passwords_per_address: number(20),
            wrong_password_delay: max_delay,
            unknown_backups_per_address: number(20),
            unknown_backups_per_account: number(30),
            new_backups_per_address: number(5),
        };
        GuessLimiter::new(&rate_limits, Arc::new(Metrics::new(0)))
    }

    /// The account `phones` with the password `right`, and a former one.
    fn authenticator(folder: &Path) -> Authenticator {
        let path = folder.join("accounts.json");
        update(&path, |accounts| {
            for (name, disabled) in [("phones", false), ("former", true)] {
                accounts.push(Account {
                    name: name.parse().unwrap(),
                    role: Role::Phone,
                    disabled,
                    secrets: vec![Secret::of_password("right").unwrap()],
                });
            }
            Ok::<_, FileError>(())
        })
        .unwrap();
        Authenticator::open(&path).unwrap()
    }

    fn basic(text: &str) -> Credentials {
        let header = format!("Basic {}", BASE64_STANDARD.encode(text));
        Credentials::parse(header.as_bytes()).unwrap()
    }

    fn address(text: &str) -> ClientAddress {
        ClientAddress::of_peer(SocketAddr::new(text.parse().unwrap(), 1))
    }

    async fn status(
        limiter: &GuessLimiter,
        authenticator: &Authenticator,
        text: &str,
        from: &str,
    ) -> u16 {
        let result = limiter
            .authenticate(authenticator, &basic(text), address(from))
            .await;
        match result {
            Ok(_) => 200,
            Err(GuessError::InvalidCredentials) => 401,
            Err(GuessError::RateLimited { .. }) => 429,
        }
    }

    /// How many probes find nothing before the first is refused.
    async fn count_probes(
        limiter: &GuessLimiter,
        caller: &Caller,
        from: &str,
        probe: Probe,
    ) -> usize {
        let mut probes = 0;
        while limiter.charge(caller, address(from), probe).await.is_ok() {
            probes += 1;
        }
        probes
    }

    #[tokio::test]
    async fn guesses_are_refused_when_the_bucket_is_empty_and_other_requests_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (limiter, authenticator) = (limiter(Duration::ZERO), authenticator(folder.path()));

        for name in ["phones", "former", "nobody"] {
            let mut statuses = Vec::new();
            for guess in 0..11 {
                let text = format!("{name}:{guess}");
                statuses.push(status(&limiter, &authenticator, &text, "2001:db8::1").await);
            }
            // At the third name, the budget of the address is used up: twenty were wrong already.
            let own = if name == "nobody" { 0 } else { 10 };
            let expected: Vec<_> = (0..11).map(|at| if at < own { 401 } else { 429 }).collect();
            assert_eq!(statuses, expected, "{name}");
        }
        // A right guess is refused too, also from another address of the same /64, and of the same
        // /48.
        for from in ["2001:db8::2", "2001:db8:0:1::1"] {
            assert_eq!(
                status(&limiter, &authenticator, "phones:right", from).await,
                429
            );
        }
        assert_eq!(
            status(&limiter, &authenticator, "phones:right", "2001:db8:1::1").await,
            200
        );
        // Nor is it accepted because it was right from another address: otherwise it could be
        // guessed without limit.
        assert_eq!(
            status(&limiter, &authenticator, "phones:right", "2001:db8::2").await,
            429
        );
        let metrics = limiter.metrics.text();
        for (limit, refused) in [("account", 4), ("address", 12)] {
            let line =
                format!("safe_refused_total{{limit=\"wrong_passwords_per_{limit}\"}} {refused}\n");
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
    }

    #[tokio::test]
    async fn right_passwords_cost_nothing_and_one_check_serves_many_phones() {
        let folder = tempfile::tempdir().unwrap();
        let (limiter, authenticator) = (limiter(Duration::ZERO), authenticator(folder.path()));

        // More than there are tokens, all at once, before any of them was verified.
        let phones = (0..50).map(|_| status(&limiter, &authenticator, "phones:right", "192.0.2.1"));
        assert!(join_all(phones).await.iter().all(|&status| status == 200));

        assert_eq!(authenticator.hashed().slow, 1);
        for guess in 0..10 {
            let text = format!("phones:{guess}");
            assert_eq!(
                status(&limiter, &authenticator, &text, "192.0.2.1").await,
                401
            );
        }
        assert_eq!(
            status(&limiter, &authenticator, "phones:wrong", "192.0.2.1").await,
            429
        );
        assert_eq!(
            status(&limiter, &authenticator, "phones:right", "192.0.2.1").await,
            200
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_guess_whose_token_is_refilled_soon_waits_for_it_and_later_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let each = HOUR / 10;
        let (limiter, authenticator) = (limiter(each), authenticator(folder.path()));
        let key = limiter
            .keys
            .hash_one((address("192.0.2.1").prefix(), "phones"));
        let now = Instant::now();
        for _ in 0..10 {
            let keys = PairKeys {
                narrow: key,
                wide: 0,
            };
            assert!(limiter.passwords.take(keys, now, Duration::ZERO).is_ok());
        }
        let (wrong, from) = (basic("phones:wrong"), address("192.0.2.1"));

        let mut waiting = Box::pin(limiter.authenticate(&authenticator, &wrong, from));
        assert!((&mut waiting).now_or_never().is_none());
        // The queue is as long as the delay allows: one.
        let refused = limiter.authenticate(&authenticator, &wrong, from).await;
        assert_eq!(refused, Err(GuessError::RateLimited { retry_after: 721 }));
        let result = waiting.await;

        assert_eq!(result, Err(GuessError::InvalidCredentials));
        assert_eq!(now.elapsed().as_secs(), each.as_secs());
    }

    #[tokio::test]
    async fn a_generated_secret_that_was_just_added_passes_whatever_the_buckets_hold() {
        let folder = tempfile::tempdir().unwrap();
        let (limiter, authenticator) = (limiter(Duration::ZERO), authenticator(folder.path()));
        for _ in 0..10 {
            status(&limiter, &authenticator, "phones:wrong", "192.0.2.1").await;
        }
        let (text, secret) = Secret::generate().unwrap();
        let generated = format!("phones:{}", text.reveal());
        assert_eq!(
            status(&limiter, &authenticator, &generated, "192.0.2.1").await,
            429
        );

        update(&folder.path().join("accounts.json"), |accounts| {
            accounts[0].secrets.push(secret);
            Ok::<_, FileError>(())
        })
        .unwrap();

        assert_eq!(
            status(&limiter, &authenticator, &generated, "192.0.2.1").await,
            200
        );
        assert_eq!(
            status(&limiter, &authenticator, "phones:right", "192.0.2.1").await,
            429
        );
    }

    #[tokio::test]
    async fn a_guess_that_is_cancelled_before_its_response_is_charged() {
        let folder = tempfile::tempdir().unwrap();
        let (limiter, authenticator) = (limiter(Duration::ZERO), authenticator(folder.path()));
        for guess in 0..10 {
            let wrong = basic(&format!("phones:{guess}"));
            let result = limiter.authenticate(&authenticator, &wrong, address("192.0.2.1"));
            assert!(
                result.now_or_never().is_none(),
                "a slow hash was done at once"
            );
        }

        assert_eq!(
            status(&limiter, &authenticator, "phones:wrong", "192.0.2.1").await,
            429
        );
    }

    #[tokio::test]
    async fn unknown_ids_are_counted_for_the_account_at_the_address_and_for_the_account() {
        let folder = tempfile::tempdir().unwrap();
        let (limiter, authenticator) = (limiter(Duration::ZERO), authenticator(folder.path()));
        let phone = authenticator.verify(&basic("phones:right")).await.unwrap();
        let probes = async |caller: &Caller, from: &str| {
            count_probes(&limiter, caller, from, Probe::Read).await
        };

        for _ in 0..100 {
            limiter
                .charge(&phone, address("192.0.2.1"), Probe::Read)
                .await
                .ok()
                .unwrap()
                .refund();
        }
        assert_eq!(probes(&phone, "192.0.2.1").await, 20);
        assert_eq!(probes(&phone, "192.0.2.2").await, 10);
        assert_eq!(probes(&phone, "192.0.2.3").await, 0);
        // A caller without an account shares the address alone, and in IPv6 the /48.
        for (from, most) in [
            ("192.0.2.1", 20),
            ("192.0.2.2", 20),
            ("2001:db8::1", 20),
            ("2001:db8:0:1::1", 10),
            ("2001:db8:1::1", 20),
        ] {
            assert_eq!(probes(&Caller::anonymous(), from).await, most, "{from}");
        }
        let metrics = limiter.metrics.text();
        for (limit, refused) in [("address", 5), ("account", 3)] {
            let line =
                format!("safe_refused_total{{limit=\"unknown_backups_per_{limit}\"}} {refused}\n");
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
    }

    #[tokio::test]
    async fn many_probes_at_once_wait_for_each_other_and_do_not_empty_the_bucket() {
        let folder = tempfile::tempdir().unwrap();
        let (limiter, authenticator) = (limiter(Duration::ZERO), authenticator(folder.path()));
        let phone = authenticator.verify(&basic("phones:right")).await.unwrap();
        let probes = (0..500).map(async |_| {
            let charge = limiter.charge(&phone, address("192.0.2.1"), Probe::Read);
            let charge = charge.await.ok()?;
            tokio::task::yield_now().await;
            charge.refund();
            Some(())
        });

        assert!(join_all(probes).await.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn new_ids_are_counted_for_the_account_at_the_network() {
        let folder = tempfile::tempdir().unwrap();
        let (limiter, authenticator) = (limiter(Duration::ZERO), authenticator(folder.path()));
        let phone = authenticator.verify(&basic("phones:right")).await.unwrap();
        let probes = async |caller: &Caller, from: &str| {
            count_probes(&limiter, caller, from, Probe::Create).await
        };

        for _ in 0..100 {
            let charge = limiter.charge(&phone, address("2001:db8::1"), Probe::Create);
            charge.await.ok().unwrap().refund();
        }
        assert_eq!(probes(&phone, "2001:db8::1").await, 5);
        assert_eq!(probes(&phone, "2001:db8:0:1::1").await, 0);
        assert_eq!(probes(&phone, "2001:db8:1::1").await, 5);
        assert_eq!(probes(&Caller::anonymous(), "2001:db8::1").await, 5);
        let line = "safe_refused_total{limit=\"new_backups_per_address\"} 4\n";
        assert!(limiter.metrics.text().contains(line));
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_bucket_is_empty_one_right_password_serves_all_phones_of_the_address() {
        let folder = tempfile::tempdir().unwrap();
        let (limiter, authenticator) = (limiter(Duration::ZERO), authenticator(folder.path()));
        let from = "192.0.2.1";
        for guess in 0..10 {
            let wrong = format!("phones:{guess}");
            assert_eq!(status(&limiter, &authenticator, &wrong, from).await, 401);
        }
        assert_eq!(
            status(&limiter, &authenticator, "phones:right", from).await,
            429
        );
        let hashed = authenticator.hashed();

        // The next token is refilled; phones with the right password now compete with those
        // without.
        tokio::time::advance(HOUR / 10).await;
        assert_eq!(
            status(&limiter, &authenticator, "phones:right", from).await,
            200
        );
        assert_eq!(
            status(&limiter, &authenticator, "phones:old", from).await,
            401
        );
        assert_eq!(
            status(&limiter, &authenticator, "phones:old", from).await,
            429
        );

        for _ in 0..500 {
            assert_eq!(
                status(&limiter, &authenticator, "phones:right", from).await,
                200
            );
        }
        assert_eq!(authenticator.hashed().slow, hashed.slow + 2);
    }

    /// After a change of the accounts, earlier verifications no longer count.
    #[tokio::test]
    async fn a_verified_address_authenticates_against_the_current_accounts() {
        let folder = tempfile::tempdir().unwrap();
        let (limiter, authenticator) = (limiter(Duration::ZERO), authenticator(folder.path()));
        let from = "192.0.2.1";
        assert_eq!(
            status(&limiter, &authenticator, "phones:right", from).await,
            200
        );

        update(&folder.path().join("accounts.json"), |accounts| {
            accounts[0].disabled = true;
            Ok::<_, FileError>(())
        })
        .unwrap();
        authenticator.file().refresh().await;

        assert_eq!(
            status(&limiter, &authenticator, "phones:right", from).await,
            401
        );
    }
}
