//! Unit tests of the authenticator.

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
    let [boss, other] =
        ["boss password", "other password"].map(|password| Secret::of_password(password).unwrap());
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
