//! Unit tests of the guess limiter.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;
use crate::account::{Account, FileError, Role, Secret, update};

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
async fn count_probes(limiter: &GuessLimiter, caller: &Caller, from: &str, probe: Probe) -> usize {
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
    let probes =
        async |caller: &Caller, from: &str| count_probes(&limiter, caller, from, Probe::Read).await;

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

/// Otherwise an attacker could have all buckets filled by a reload that changes something else.
#[tokio::test]
async fn a_reload_fills_the_buckets_of_changed_limits_alone() {
    type Change = fn(&mut RateLimits, NonZeroU32);

    let before = limiter(Duration::ZERO);
    let (anonymous, from) = (Caller::anonymous(), "192.0.2.1");
    let left = async |limiter: &GuessLimiter| {
        let (now, keys) = (Instant::now(), PairKeys { narrow: 1, wide: 2 });
        let mut passwords = 0;
        while limiter.passwords.take(keys, now, Duration::ZERO).is_ok() {
            passwords += 1;
        }
        let reads = count_probes(limiter, &anonymous, from, Probe::Read).await;
        let new = count_probes(limiter, &anonymous, from, Probe::Create).await;
        (passwords, reads, new)
    };
    assert_eq!(left(&before).await, (10, 20, 5));

    let four = NonZeroU32::new(4).unwrap();
    let changes: [(Change, _); 7] = [
        (|_, _| {}, (0, 0, 0)),
        (|limits, _| limits.wrong_password_delay *= 2, (0, 0, 0)),
        (
            |limits, to| limits.wrong_passwords_per_account = to,
            (4, 0, 0),
        ),
        (
            |limits, to| limits.wrong_passwords_per_address = to,
            (4, 0, 0),
        ),
        (
            |limits, to| limits.unknown_backups_per_address = to,
            (0, 4, 0),
        ),
        (
            |limits, to| limits.unknown_backups_per_account = to,
            (0, 4, 0),
        ),
        (|limits, to| limits.new_backups_per_address = to, (0, 0, 4)),
    ];
    for (change, expected) in changes {
        let mut limits = before.rate_limits;
        change(&mut limits, four);
        let after = before.reconfigured(&limits);
        assert_eq!(left(&after).await, expected, "{limits:?}");
    }
}
