//! How often anybody may guess: passwords of accounts, and ids of backups.
//!
//! A guess costs its token *before* it is looked at, and gets it back if it was right: else the refusal itself would be
//! an answer, and the budget no limit. Three things cost nothing: requests without credentials, as every iPhone begins
//! with one; generated secrets, as nobody guesses 256 bits; and a password that was verified *at the same address*
//! before, so that an office's phones are served while somebody guesses beside them. Verified somewhere else is not
//! enough: whoever guesses elsewhere would be let in at the first right one, however many wrong ones came before.
//!
//! RateLimits are kept in memory under keyed hashes of names and addresses, and nothing of either is logged.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::account::{AccountName, Authenticator, Caller, Credentials, Role};
use crate::config::RateLimits;
use crate::server::limits::keyed_semaphore::{Turn, Turns};
use crate::server::limits::log_throttle::Notices;
use crate::server::limits::token_buckets::{Buckets, MOST};
use crate::server::limits::verified_cache::{self, Known};
use crate::server::metrics::Metrics;
use crate::server::metrics::limit::Limit;
use crate::server::net::client_address::{ClientAddress, Prefix};
use crate::server::request::reply::Reject;

/// Few beside the smallest budget that makes sense.
const LOOKS_AT_ONCE: usize = 16;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn hourly(tokens: NonZeroU32) -> Buckets {
    Buckets::new(tokens, HOUR, MOST)
}

/// What is counted.
pub(crate) struct Guard {
    /// Under which key a budget is kept: nobody can choose names or addresses that share one.
    keys: RandomState,
    passwords: Arc<Pair>,
    unknown_ids: Arc<Pair>,
    /// Of an account at a network.
    new_ids: Arc<Mutex<Buckets>>,
    /// Which passwords were verified at which address.
    known: Arc<Known>,
    /// How long a check of a password waits for its token.
    patience: Duration,
    /// One check of a password at a time for each address. So an address has one place in the queue for the
    /// processor, however many requests it sends; and of many phones that come at once with the same password, one
    /// has it checked for all.
    turns: Turns,
    /// A few looks at a time for each account at each address: what they find gives its token back, so that many
    /// phones at once do not find the budget used up by each other.
    looks: Turns,
    notices: Notices,
    metrics: Arc<Metrics>,
}

/// A narrow budget and a wide one, of which each guess takes a token.
struct Pair(Mutex<(Buckets, Buckets)>);

/// The keys of one guess in both.
#[derive(Clone, Copy)]
struct Keys {
    narrow: u64,
    wide: u64,
}

/// Which budget of a [`Pair`] is used up.
enum UsedUp {
    Narrow(Duration),
    Wide(Duration),
}

/// What a request can find out about an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Whether there is a backup, and nobody will notice.
    WhatIsThere,
    /// Whether there was a backup, by putting one in its place.
    WhatWasThere,
}

/// A look at an id that may be a guess. Unless it is found, it stays counted.
#[must_use]
pub(crate) struct Look<'a>(Option<Counted<'a>>);

/// Where it is counted.
enum Counted<'a> {
    Unknown(&'a Guard, Keys, Turn<'a>),
    New(&'a Guard, u64),
}

impl Guard {
    pub(crate) fn new(budgets: &RateLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            keys: RandomState::new(),
            passwords: Arc::new(Pair::new(
                hourly(budgets.wrong_passwords_per_account),
                hourly(budgets.wrong_passwords_per_address),
            )),
            unknown_ids: Arc::new(Pair::new(
                hourly(budgets.unknown_backups_per_address),
                hourly(budgets.unknown_backups_per_account),
            )),
            new_ids: Arc::new(Mutex::new(hourly(budgets.new_backups_per_address))),
            known: Arc::new(Known::new(verified_cache::MOST)),
            patience: budgets.wrong_password_delay,
            turns: Turns::new(1),
            looks: Turns::new(LOOKS_AT_ONCE),
            notices: Notices::default(),
            metrics,
        }
    }

    /// For other budgets: where they are as they were, guesses stay counted; and whoever is known stays known.
    pub(crate) fn after(before: &Self, old: &RateLimits, budgets: &RateLimits) -> Self {
        let mut guard = Self::new(budgets, Arc::clone(&before.metrics));
        guard.keys = before.keys.clone();
        guard.known = Arc::clone(&before.known);
        let passwords = |of: &RateLimits| {
            (
                of.wrong_passwords_per_account,
                of.wrong_passwords_per_address,
            )
        };
        if passwords(old) == passwords(budgets) {
            guard.passwords = Arc::clone(&before.passwords);
        }
        let unknown = |of: &RateLimits| {
            (
                of.unknown_backups_per_address,
                of.unknown_backups_per_account,
            )
        };
        if unknown(old) == unknown(budgets) {
            guard.unknown_ids = Arc::clone(&before.unknown_ids);
        }
        if old.new_backups_per_address == budgets.new_backups_per_address {
            guard.new_ids = Arc::clone(&before.new_ids);
        }
        guard
    }

    /// Lets somebody in by their credentials, or refuses: with 401 if these are wrong, with 429 if too many wrong ones
    /// came before them.
    pub(crate) async fn let_in(
        &self,
        authenticator: &Authenticator,
        credentials: &Credentials,
        address: ClientAddress,
    ) -> Result<Caller, Reject> {
        if let Some(caller) = authenticator.verify_generated(credentials) {
            return Ok(caller);
        }
        let prefix = address.prefix();
        let here = self.keys.hash_one((prefix, credentials));
        if let Some(caller) = self.known_at(here, authenticator, credentials) {
            return Ok(caller);
        }
        let keys = Keys {
            narrow: self.keys.hash_one((prefix, credentials.name())),
            wide: self.keys.hash_one(prefix.network()),
        };
        let turn = self.turns.take(self.keys.hash_one(prefix)).await;
        if let Some(caller) = self.known_at(here, authenticator, credentials) {
            return Ok(caller);
        }
        let wait = self
            .passwords
            .take(keys, Instant::now(), self.patience)
            .map_err(|used_up| self.too_many_passwords(&used_up))?;
        let _turn = if wait.is_zero() {
            turn
        } else {
            self.metrics.password_delayed();
            drop(turn);
            sleep(wait).await;
            self.turns.take(self.keys.hash_one(prefix)).await
        };
        // Where the request goes away before the answer, the token stays taken.
        let caller = authenticator.verify(credentials).await;
        self.metrics.hashed(authenticator.hashed());
        if caller.is_some() {
            self.passwords.give_back(keys, Instant::now());
            self.known.insert(here);
        }
        caller.ok_or(Reject::Unauthorized)
    }

    fn known_at(
        &self,
        here: u64,
        authenticator: &Authenticator,
        credentials: &Credentials,
    ) -> Option<Caller> {
        let is_known = self.known.contains(here);
        is_known
            .then(|| authenticator.verify_cached(credentials))
            .flatten()
    }

    /// Counts a look at an id, before it is known whether there is a backup under it. Whoever may list them all has
    /// nothing to guess.
    pub(crate) async fn look(
        &self,
        caller: &Caller,
        address: ClientAddress,
        asks: Asks,
    ) -> Result<Look<'_>, Reject> {
        if caller.role() == Role::Operator {
            return Ok(Look(None));
        }
        let (account, no_wait) = (caller.name(), Duration::ZERO);
        let prefix = address.prefix();
        match asks {
            Asks::WhatIsThere => {
                let keys = self.unknown_keys(account, prefix);
                let turn = self.looks.take(keys.narrow).await;
                let taken = self.unknown_ids.take(keys, Instant::now(), no_wait);
                taken.map_err(|used_up| match used_up {
                    UsedUp::Narrow(wait) => self.refuse(Limit::UnknownBackupsPerAddress, wait),
                    UsedUp::Wide(wait) => self.refuse(Limit::UnknownBackupsPerAccount, wait),
                })?;
                Ok(Look(Some(Counted::Unknown(self, keys, turn))))
            }
            Asks::WhatWasThere => {
                let key = self.keys.hash_one((prefix.network(), account));
                let taken = lock(&self.new_ids).take(key, Instant::now(), no_wait);
                taken.map_err(|wait| self.refuse(Limit::NewBackupsPerAddress, wait))?;
                Ok(Look(Some(Counted::New(self, key))))
            }
        }
    }

    /// Callers without an account share no budget but with their network: else anybody could empty it for all.
    fn unknown_keys(&self, account: Option<&AccountName>, prefix: Prefix) -> Keys {
        Keys {
            narrow: self.keys.hash_one((prefix, account)),
            wide: account.map_or_else(
                || self.keys.hash_one(prefix.network()),
                |account| self.keys.hash_one(account),
            ),
        }
    }

    fn too_many_passwords(&self, used_up: &UsedUp) -> Reject {
        match *used_up {
            UsedUp::Narrow(wait) => self.refuse(Limit::WrongPasswordsPerAccount, wait),
            UsedUp::Wide(wait) => self.refuse(Limit::WrongPasswordsPerAddress, wait),
        }
    }

    fn refuse(&self, limit: Limit, wait: Duration) -> Reject {
        self.metrics.refusals().count(limit);
        if self.notices.is_due(limit, Instant::now()) {
            tracing::warn!(
                limit = limit.word(),
                "somebody guesses, or many phones have a wrong setting: some requests are refused for a while"
            );
        }
        // Rounded up: who comes back then is let through.
        let seconds = wait.as_secs() + 1;
        Reject::TooMany(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

impl Look<'_> {
    /// There was a backup: it was no guess.
    pub(crate) fn found(self) {
        let now = Instant::now();
        match self.0 {
            Some(Counted::Unknown(guard, keys, _turn)) => guard.unknown_ids.give_back(keys, now),
            Some(Counted::New(guard, key)) => lock(&guard.new_ids).give_back(key, now),
            None => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pair {
    fn new(narrow: Buckets, wide: Buckets) -> Self {
        Self(Mutex::new((narrow, wide)))
    }

    /// Takes a token of both, or none.
    fn take(&self, keys: Keys, now: Instant, patience: Duration) -> Result<Duration, UsedUp> {
        let (narrow, wide) = &mut *lock(&self.0);
        let wait = narrow
            .take(keys.narrow, now, patience)
            .map_err(UsedUp::Narrow)?;
        match wide.take(keys.wide, now, patience) {
            Ok(longer) => Ok(wait.max(longer)),
            Err(longer) => {
                narrow.give_back(keys.narrow, now);
                Err(UsedUp::Wide(longer))
            }
        }
    }

    fn give_back(&self, keys: Keys, now: Instant) {
        let (narrow, wide) = &mut *lock(&self.0);
        narrow.give_back(keys.narrow, now);
        wide.give_back(keys.wide, now);
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

    /// Ten wrong passwords an hour for an account, twenty for an address; twenty and thirty unknown ids, five new ones.
    fn guard(patience: Duration) -> Guard {
        let number = |number| NonZeroU32::new(number).unwrap();
        let budgets = RateLimits {
            wrong_passwords_per_account: number(10),
            wrong_passwords_per_address: number(20),
            wrong_password_delay: patience,
            unknown_backups_per_address: number(20),
            unknown_backups_per_account: number(30),
            new_backups_per_address: number(5),
        };
        Guard::new(&budgets, Arc::new(Metrics::new(0)))
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

    async fn status(guard: &Guard, authenticator: &Authenticator, text: &str, from: &str) -> u16 {
        let answer = guard
            .let_in(authenticator, &basic(text), address(from))
            .await;
        answer.map_or_else(|reject| reject.response().status().as_u16(), |_| 200)
    }

    /// How many looks find nothing before the first is refused.
    async fn how_many(guard: &Guard, caller: &Caller, from: &str, asks: Asks) -> usize {
        let mut looks = 0;
        while guard.look(caller, address(from), asks).await.is_ok() {
            looks += 1;
        }
        looks
    }

    #[tokio::test]
    async fn guesses_are_refused_when_the_budget_is_used_up_and_nobody_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, authenticator) = (guard(Duration::ZERO), authenticator(folder.path()));

        for name in ["phones", "former", "nobody"] {
            let mut statuses = Vec::new();
            for guess in 0..11 {
                let text = format!("{name}:{guess}");
                statuses.push(status(&guard, &authenticator, &text, "2001:db8::1").await);
            }
            // The third name finds the address's budget used up: twenty were wrong already.
            let own = if name == "nobody" { 0 } else { 10 };
            let expected: Vec<_> = (0..11).map(|at| if at < own { 401 } else { 429 }).collect();
            assert_eq!(statuses, expected, "{name}");
        }
        // A guess is not let through because it is right, nor from elsewhere in the same /64, nor in the same /48.
        for from in ["2001:db8::2", "2001:db8:0:1::1"] {
            assert_eq!(
                status(&guard, &authenticator, "phones:right", from).await,
                429
            );
        }
        assert_eq!(
            status(&guard, &authenticator, "phones:right", "2001:db8:1::1").await,
            200
        );
        // Nor because it was right for somebody elsewhere: else it could be guessed as fast as one can ask.
        assert_eq!(
            status(&guard, &authenticator, "phones:right", "2001:db8::2").await,
            429
        );
        let metrics = guard.metrics.text();
        for (limit, refused) in [("account", 4), ("address", 12)] {
            let line =
                format!("safe_refused_total{{limit=\"wrong_passwords_per_{limit}\"}} {refused}\n");
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
    }

    #[tokio::test]
    async fn right_passwords_cost_nothing_and_one_check_serves_many_phones() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, authenticator) = (guard(Duration::ZERO), authenticator(folder.path()));

        // More than there are tokens, all at once, before any of them was verified.
        let phones = (0..50).map(|_| status(&guard, &authenticator, "phones:right", "192.0.2.1"));
        assert!(join_all(phones).await.iter().all(|&status| status == 200));

        assert_eq!(authenticator.hashed().slow, 1);
        for guess in 0..10 {
            let text = format!("phones:{guess}");
            assert_eq!(
                status(&guard, &authenticator, &text, "192.0.2.1").await,
                401
            );
        }
        assert_eq!(
            status(&guard, &authenticator, "phones:wrong", "192.0.2.1").await,
            429
        );
        assert_eq!(
            status(&guard, &authenticator, "phones:right", "192.0.2.1").await,
            200
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_guess_whose_token_comes_soon_waits_for_it_and_later_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let each = HOUR / 10;
        let (guard, authenticator) = (guard(each), authenticator(folder.path()));
        let key = guard
            .keys
            .hash_one((address("192.0.2.1").prefix(), "phones"));
        let now = Instant::now();
        for _ in 0..10 {
            let keys = Keys {
                narrow: key,
                wide: 0,
            };
            assert!(guard.passwords.take(keys, now, Duration::ZERO).is_ok());
        }
        let (wrong, from) = (basic("phones:wrong"), address("192.0.2.1"));

        let mut waiting = Box::pin(guard.let_in(&authenticator, &wrong, from));
        assert!((&mut waiting).now_or_never().is_none());
        // The queue is as long as the patience: one.
        let refused = guard.let_in(&authenticator, &wrong, from).await;
        assert_eq!(refused, Err(Reject::TooMany(721)));
        let answer = waiting.await;

        assert_eq!(answer, Err(Reject::Unauthorized));
        assert_eq!(now.elapsed().as_secs(), each.as_secs());
    }

    #[tokio::test]
    async fn a_guess_that_goes_away_before_its_answer_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, authenticator) = (guard(Duration::ZERO), authenticator(folder.path()));
        for guess in 0..10 {
            let wrong = basic(&format!("phones:{guess}"));
            let answer = guard.let_in(&authenticator, &wrong, address("192.0.2.1"));
            assert!(
                answer.now_or_never().is_none(),
                "a slow hash was done at once"
            );
        }

        assert_eq!(
            status(&guard, &authenticator, "phones:wrong", "192.0.2.1").await,
            429
        );
    }

    #[tokio::test]
    async fn unknown_ids_are_counted_for_the_account_at_the_address_and_for_the_account() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, authenticator) = (guard(Duration::ZERO), authenticator(folder.path()));
        let phone = authenticator.verify(&basic("phones:right")).await.unwrap();
        let looks = async |caller: &Caller, from: &str| {
            how_many(&guard, caller, from, Asks::WhatIsThere).await
        };

        for _ in 0..100 {
            guard
                .look(&phone, address("192.0.2.1"), Asks::WhatIsThere)
                .await
                .ok()
                .unwrap()
                .found();
        }
        assert_eq!(looks(&phone, "192.0.2.1").await, 20);
        assert_eq!(looks(&phone, "192.0.2.2").await, 10);
        assert_eq!(looks(&phone, "192.0.2.3").await, 0);
        // Who has no account shares nothing but the address, and in IPv6 the /48.
        for (from, most) in [
            ("192.0.2.1", 20),
            ("192.0.2.2", 20),
            ("2001:db8::1", 20),
            ("2001:db8:0:1::1", 10),
            ("2001:db8:1::1", 20),
        ] {
            assert_eq!(looks(&Caller::anonymous(), from).await, most, "{from}");
        }
        let metrics = guard.metrics.text();
        for (limit, refused) in [("address", 5), ("account", 3)] {
            let line =
                format!("safe_refused_total{{limit=\"unknown_backups_per_{limit}\"}} {refused}\n");
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
    }

    #[tokio::test]
    async fn many_looks_at_once_wait_for_each_other_and_do_not_use_up_the_budget() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, authenticator) = (guard(Duration::ZERO), authenticator(folder.path()));
        let phone = authenticator.verify(&basic("phones:right")).await.unwrap();
        let looks = (0..500).map(async |_| {
            let look = guard.look(&phone, address("192.0.2.1"), Asks::WhatIsThere);
            let look = look.await.ok()?;
            tokio::task::yield_now().await;
            look.found();
            Some(())
        });

        assert!(join_all(looks).await.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn new_ids_are_counted_for_the_account_at_the_network() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, authenticator) = (guard(Duration::ZERO), authenticator(folder.path()));
        let phone = authenticator.verify(&basic("phones:right")).await.unwrap();
        let looks = async |caller: &Caller, from: &str| {
            how_many(&guard, caller, from, Asks::WhatWasThere).await
        };

        for _ in 0..100 {
            let look = guard.look(&phone, address("2001:db8::1"), Asks::WhatWasThere);
            look.await.ok().unwrap().found();
        }
        assert_eq!(looks(&phone, "2001:db8::1").await, 5);
        assert_eq!(looks(&phone, "2001:db8:0:1::1").await, 0);
        assert_eq!(looks(&phone, "2001:db8:1::1").await, 5);
        assert_eq!(looks(&Caller::anonymous(), "2001:db8::1").await, 5);
        let line = "safe_refused_total{limit=\"new_backups_per_address\"} 4\n";
        assert!(guard.metrics.text().contains(line));
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_budget_is_used_up_one_right_password_opens_for_all_phones_of_the_address() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, authenticator) = (guard(Duration::ZERO), authenticator(folder.path()));
        let from = "192.0.2.1";
        for guess in 0..10 {
            let wrong = format!("phones:{guess}");
            assert_eq!(status(&guard, &authenticator, &wrong, from).await, 401);
        }
        assert_eq!(
            status(&guard, &authenticator, "phones:right", from).await,
            429
        );
        let hashed = authenticator.hashed();

        // The next token comes, and phones that have the right password now compete with those that do not.
        tokio::time::advance(HOUR / 10).await;
        assert_eq!(
            status(&guard, &authenticator, "phones:right", from).await,
            200
        );
        assert_eq!(
            status(&guard, &authenticator, "phones:old", from).await,
            401
        );
        assert_eq!(
            status(&guard, &authenticator, "phones:old", from).await,
            429
        );

        for _ in 0..500 {
            assert_eq!(
                status(&guard, &authenticator, "phones:right", from).await,
                200
            );
        }
        assert_eq!(authenticator.hashed().slow, hashed.slow + 2);
    }

    /// Somebody changes the accounts: what was known is so no longer.
    #[tokio::test]
    async fn who_is_known_at_an_address_is_let_in_by_the_accounts_of_now() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, authenticator) = (guard(Duration::ZERO), authenticator(folder.path()));
        let from = "192.0.2.1";
        assert_eq!(
            status(&guard, &authenticator, "phones:right", from).await,
            200
        );

        update(&folder.path().join("accounts.json"), |accounts| {
            accounts[0].disabled = true;
            Ok::<_, FileError>(())
        })
        .unwrap();

        assert_eq!(
            status(&guard, &authenticator, "phones:right", from).await,
            401
        );
    }
}
