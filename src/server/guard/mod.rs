//! How often anybody may guess: passwords of accounts, and ids of backups.
//!
//! A guess costs its token *before* it is looked at, and gets it back if it was right: else the refusal itself would be
//! an answer, and the budget no limit. Requests without credentials cost nothing, as every iPhone begins with one; and
//! nothing that was verified once ever passes here, so that an office's phones are served while others guess beside
//! them.
//!
//! Budgets are kept in memory under keyed hashes of names and addresses, and nothing of either is logged.

mod buckets;
mod quotas;
mod turns;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::buckets::{Buckets, MOST};
use self::turns::Turns;
use super::address::{ClientAddress, Prefix};
use super::limit::Limit;
use super::reply::Reject;
use super::status::Vitals;
use crate::account::{AccountName, Caller, Credentials, Gate, Role};
use crate::config::Budgets;

pub(crate) use quotas::{Before, Quotas};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// What is counted.
pub(crate) struct Guard {
    /// Under which key a budget is kept: nobody can choose names or addresses that share one.
    keys: RandomState,
    passwords: Pair,
    unknown_ids: Pair,
    /// How long a check of a password waits for its token.
    patience: Duration,
    /// One check of a password at a time for each address. So an address has one place in the queue for the
    /// processor, however many requests it sends; and of many phones that come at once with the same password, one
    /// has it checked for all.
    turns: Turns,
    notice: Notice,
    vitals: Arc<Vitals>,
}

/// Says something once an hour at the most.
#[derive(Default)]
struct Notice(Mutex<Option<Instant>>);

/// A narrow budget and a wide one, of which each guess takes a token.
struct Pair(Mutex<(Buckets, Buckets)>);

/// The keys of one guess in both.
#[derive(Clone, Copy)]
struct Keys {
    narrow: u64,
    /// There is none for callers without an account: anybody could empty it.
    wide: Option<u64>,
}

/// Which budget of a [`Pair`] is used up.
enum UsedUp {
    Narrow(Duration),
    Wide(Duration),
}

/// A look at an id that may be a guess. Unless it is found, it stays counted.
#[must_use]
pub(crate) struct Look<'a>(Option<(&'a Guard, Keys)>);

impl Guard {
    pub(crate) fn new(budgets: &Budgets, vitals: Arc<Vitals>) -> Self {
        let hourly = |tokens| Buckets::new(tokens, HOUR, MOST);
        Self {
            keys: RandomState::new(),
            passwords: Pair::new(
                hourly(budgets.wrong_passwords_per_account),
                hourly(budgets.wrong_passwords_per_address),
            ),
            unknown_ids: Pair::new(
                hourly(budgets.unknown_backups_per_address),
                hourly(budgets.unknown_backups_per_account),
            ),
            patience: budgets.wrong_password_delay,
            turns: Turns::default(),
            notice: Notice::default(),
            vitals,
        }
    }

    /// Lets somebody in by their credentials, or refuses: with 401 if these are wrong, with 429 if too many wrong ones
    /// came before them.
    pub(crate) async fn let_in(
        &self,
        gate: &Gate,
        credentials: &Credentials,
        address: ClientAddress,
    ) -> Result<Caller, Reject> {
        if let Some(caller) = gate.recognise(credentials) {
            return Ok(caller);
        }
        let prefix = address.prefix();
        let keys = Keys {
            narrow: self.keys.hash_one((prefix, credentials.name())),
            wide: Some(self.keys.hash_one(prefix)),
        };
        let turn = self.turns.take(self.keys.hash_one(prefix)).await;
        if let Some(caller) = gate.recognise(credentials) {
            return Ok(caller);
        }
        let wait = self
            .passwords
            .take(keys, Instant::now(), self.patience)
            .map_err(|used_up| self.too_many_passwords(&used_up))?;
        let _turn = if wait.is_zero() {
            turn
        } else {
            self.vitals.password_delayed();
            drop(turn);
            sleep(wait).await;
            self.turns.take(self.keys.hash_one(prefix)).await
        };
        // Where the request goes away before the answer, the token stays taken.
        let caller = gate.verify(credentials).await;
        self.vitals.hashed(gate.hashed());
        if caller.is_some() {
            self.passwords.give_back(keys, Instant::now());
        }
        caller.ok_or(Reject::Unauthorized)
    }

    /// Counts a look at an id, before it is known whether there is a backup under it. Whoever may list them all has
    /// nothing to guess.
    pub(crate) fn look(&self, caller: &Caller, address: ClientAddress) -> Result<Look<'_>, Reject> {
        if caller.role() == Role::Operator {
            return Ok(Look(None));
        }
        let keys = self.look_keys(caller.name(), address.prefix());
        let taken = self
            .unknown_ids
            .take(keys, Instant::now(), Duration::ZERO)
            .map_err(|used_up| match used_up {
                UsedUp::Narrow(wait) => self.refuse(Limit::UnknownBackupsPerAddress, wait),
                UsedUp::Wide(wait) => self.refuse(Limit::UnknownBackupsPerAccount, wait),
            });
        taken.map(|_| Look(Some((self, keys))))
    }

    fn look_keys(&self, account: Option<&AccountName>, prefix: Prefix) -> Keys {
        Keys {
            narrow: self.keys.hash_one((prefix, account)),
            wide: account.map(|account| self.keys.hash_one(account)),
        }
    }

    fn too_many_passwords(&self, used_up: &UsedUp) -> Reject {
        if self.notice.is_due(Instant::now()) {
            tracing::warn!(
                "many wrong passwords come from one address; further ones are refused for a while"
            );
        }
        match *used_up {
            UsedUp::Narrow(wait) => self.refuse(Limit::WrongPasswordsPerAccount, wait),
            UsedUp::Wide(wait) => self.refuse(Limit::WrongPasswordsPerAddress, wait),
        }
    }

    fn refuse(&self, limit: Limit, wait: Duration) -> Reject {
        self.vitals.refused(limit);
        // Rounded up: who comes back then is let through.
        let seconds = wait.as_secs() + 1;
        Reject::TooMany(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

impl Look<'_> {
    /// There was a backup: it was no guess.
    pub(crate) fn found(self) {
        if let Some((guard, keys)) = self.0 {
            guard.unknown_ids.give_back(keys, Instant::now());
        }
    }
}

impl Notice {
    fn is_due(&self, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = said.is_none_or(|time| now >= time + HOUR);
        if is_due {
            *said = Some(now);
        }
        is_due
    }
}

impl Pair {
    fn new(narrow: Buckets, wide: Buckets) -> Self {
        Self(Mutex::new((narrow, wide)))
    }

    /// Takes a token of both, or none.
    fn take(&self, keys: Keys, now: Instant, patience: Duration) -> Result<Duration, UsedUp> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (narrow, wide) = &mut *buckets;
        let wait = narrow
            .take(keys.narrow, now, patience)
            .map_err(UsedUp::Narrow)?;
        let Some(key) = keys.wide else {
            return Ok(wait);
        };
        match wide.take(key, now, patience) {
            Ok(longer) => Ok(wait.max(longer)),
            Err(longer) => {
                narrow.give_back(keys.narrow, now);
                Err(UsedUp::Wide(longer))
            }
        }
    }

    fn give_back(&self, keys: Keys, now: Instant) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (narrow, wide) = &mut *buckets;
        narrow.give_back(keys.narrow, now);
        if let Some(key) = keys.wide {
            wide.give_back(key, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::num::NonZeroU32;
    use std::path::Path;
    use std::time::SystemTime;

    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;
    use crate::account::{Account, FileError, Secret, update};

    /// Ten wrong passwords an hour for an account, twenty for an address; twenty and thirty unknown ids.
    fn guard(patience: Duration) -> Guard {
        let number = |number| NonZeroU32::new(number).unwrap();
        let budgets = Budgets {
            wrong_passwords_per_account: number(10),
            wrong_passwords_per_address: number(20),
            wrong_password_delay: patience,
            unknown_backups_per_address: number(20),
            unknown_backups_per_account: number(30),
        };
        let vitals = Arc::new(Vitals::new(SystemTime::UNIX_EPOCH));
        Guard::new(&budgets, vitals)
    }

    /// The account `phones` with the password `right`, and a former one.
    fn gate(folder: &Path) -> Gate {
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
        Gate::open(&path).unwrap()
    }

    fn basic(text: &str) -> Credentials {
        let header = format!("Basic {}", BASE64_STANDARD.encode(text));
        Credentials::parse(header.as_bytes()).unwrap()
    }

    fn address(text: &str) -> ClientAddress {
        ClientAddress::of_peer(SocketAddr::new(text.parse().unwrap(), 1))
    }

    async fn status(guard: &Guard, gate: &Gate, text: &str, from: &str) -> u16 {
        let answer = guard.let_in(gate, &basic(text), address(from)).await;
        answer.map_or_else(|reject| reject.response().status().as_u16(), |_| 200)
    }

    #[tokio::test]
    async fn guesses_are_refused_when_the_budget_is_used_up_and_nobody_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, gate) = (guard(Duration::ZERO), gate(folder.path()));

        for name in ["phones", "former", "nobody"] {
            let mut statuses = Vec::new();
            for guess in 0..11 {
                let text = format!("{name}:{guess}");
                statuses.push(status(&guard, &gate, &text, "2001:db8::1").await);
            }
            // The third name finds the address's budget used up: twenty were wrong already.
            let own = if name == "nobody" { 0 } else { 10 };
            let expected: Vec<_> = (0..11).map(|at| if at < own { 401 } else { 429 }).collect();
            assert_eq!(statuses, expected, "{name}");
        }
        // A guess is not let through because it is right, nor from elsewhere in the same /64.
        assert_eq!(
            status(&guard, &gate, "phones:right", "2001:db8::2").await,
            429
        );
        assert_eq!(
            status(&guard, &gate, "phones:right", "2001:db8:0:1::1").await,
            200
        );
        // Now it is no guess any more.
        assert_eq!(
            status(&guard, &gate, "phones:right", "2001:db8::2").await,
            200
        );
        let metrics = guard.vitals.metrics();
        for (limit, refused) in [("account", 3), ("address", 11)] {
            let line =
                format!("safe_refused_total{{limit=\"wrong_passwords_per_{limit}\"}} {refused}\n");
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
    }

    #[tokio::test]
    async fn right_passwords_cost_nothing_and_one_check_serves_many_phones() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, gate) = (guard(Duration::ZERO), gate(folder.path()));

        // More than there are tokens, all at once, before any of them was verified.
        let phones = (0..50).map(|_| status(&guard, &gate, "phones:right", "192.0.2.1"));
        assert!(join_all(phones).await.iter().all(|&status| status == 200));

        assert_eq!(gate.hashed().slow, 1);
        for guess in 0..10 {
            let text = format!("phones:{guess}");
            assert_eq!(status(&guard, &gate, &text, "192.0.2.1").await, 401);
        }
        assert_eq!(
            status(&guard, &gate, "phones:wrong", "192.0.2.1").await,
            429
        );
        assert_eq!(
            status(&guard, &gate, "phones:right", "192.0.2.1").await,
            200
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_guess_whose_token_comes_soon_waits_for_it_and_later_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let each = HOUR / 10;
        let (guard, gate) = (guard(each), gate(folder.path()));
        let key = guard
            .keys
            .hash_one((address("192.0.2.1").prefix(), "phones"));
        let now = Instant::now();
        for _ in 0..10 {
            let keys = Keys {
                narrow: key,
                wide: None,
            };
            assert!(guard.passwords.take(keys, now, Duration::ZERO).is_ok());
        }
        let (wrong, from) = (basic("phones:wrong"), address("192.0.2.1"));

        let mut waiting = Box::pin(guard.let_in(&gate, &wrong, from));
        assert!((&mut waiting).now_or_never().is_none());
        // The queue is as long as the patience: one.
        let refused = guard.let_in(&gate, &wrong, from).await;
        assert_eq!(refused, Err(Reject::TooMany(721)));
        let answer = waiting.await;

        assert_eq!(answer, Err(Reject::Unauthorized));
        assert_eq!(now.elapsed().as_secs(), each.as_secs());
    }

    #[tokio::test]
    async fn a_guess_that_goes_away_before_its_answer_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, gate) = (guard(Duration::ZERO), gate(folder.path()));
        for guess in 0..10 {
            let wrong = basic(&format!("phones:{guess}"));
            let answer = guard.let_in(&gate, &wrong, address("192.0.2.1"));
            assert!(
                answer.now_or_never().is_none(),
                "a slow hash was done at once"
            );
        }

        assert_eq!(
            status(&guard, &gate, "phones:wrong", "192.0.2.1").await,
            429
        );
    }

    #[tokio::test]
    async fn unknown_ids_are_counted_for_the_account_at_the_address_and_for_the_account() {
        let folder = tempfile::tempdir().unwrap();
        let (guard, gate) = (guard(Duration::ZERO), gate(folder.path()));
        let phone = gate.verify(&basic("phones:right")).await.unwrap();
        let looks = |caller: &Caller, from: &str, most: usize| {
            let look = |_: &usize| guard.look(caller, address(from)).is_ok();
            (0..most).take_while(look).count()
        };

        for _ in 0..100 {
            guard
                .look(&phone, address("192.0.2.1"))
                .ok()
                .unwrap()
                .found();
        }
        assert_eq!(looks(&phone, "192.0.2.1", 100), 20);
        assert_eq!(looks(&phone, "192.0.2.2", 100), 10);
        assert_eq!(looks(&phone, "192.0.2.3", 100), 0);
        // Who has no account shares nothing but the address.
        for from in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            assert_eq!(looks(&Caller::anonymous(), from, 100), 20);
        }
        let metrics = guard.vitals.metrics();
        for (limit, refused) in [("address", 4), ("account", 2)] {
            let line =
                format!("safe_refused_total{{limit=\"unknown_backups_per_{limit}\"}} {refused}\n");
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
    }

    #[test]
    fn a_notice_is_given_once_an_hour() {
        let (notice, now) = (Notice::default(), Instant::now());

        assert!(notice.is_due(now));
        assert!(!notice.is_due(now + HOUR - Duration::from_secs(1)));
        assert!(notice.is_due(now + HOUR));
    }
}
