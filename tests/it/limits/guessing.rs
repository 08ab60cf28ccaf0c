//! Rate limits for guessed passwords and backup ids: they slow down the guessing client and no
//! other.
//!
//! Over 500 lines: one test for each bucket and each exception from it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};
use threema_safe_server::account::{FileError, Role, Secret, update};
use tokio::task::JoinSet;

use crate::support::process::ServerProcess;
use crate::support::wire::{Answer, Client, Protocol, basic, soon};
use crate::support::{Listening, Site, TestServer, add_account, add_account_with, backup_path};

/// Another address than the one that clients have by default.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// So many wrong passwords for one account from one address, and no delay: a test has no time.
fn wrong_passwords(per_account: u32) -> Value {
    json!({ "limits": {
        "wrongPasswordsPerAccountAndHour": per_account,
        "wrongPasswordDelaySeconds": 0,
    } })
}

fn new_backups(per_address: u32) -> Value {
    json!({ "limits": { "newBackupsPerAddressAndHour": per_address } })
}

fn unknown_backups(per_address: u32, per_account: u32) -> Value {
    json!({ "limits": {
        "unknownBackupsPerAddressAndHour": per_address,
        "unknownBackupsPerAccountAndHour": per_account,
    } })
}

/// The path of a backup that does not exist.
fn unknown(number: u32) -> String {
    format!("/backups/{number:064x}")
}

/// Makes sure that this is a refusal that says when it is over, within `most` seconds.
#[track_caller]
fn assert_slowed(answer: &Answer, most: u64) {
    assert_eq!(answer.status, 429, "{answer:?}");
    let seconds = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=most).contains(&seconds), "{answer:?}");
}

async fn with(client: &mut Client, authorization: &str, path: &str) -> Answer {
    let headers = [("authorization", authorization)];
    client.ask("GET", path, &headers).await
}

#[tokio::test]
async fn six_hundred_guesses_from_one_address_do_not_slow_a_phone_on_another() {
    const CONNECTIONS: usize = 30;
    let site = Site::new().with(wrong_passwords(100));
    let [elsewhere, beside] =
        ["elsewhere", "beside"].map(|password| Secret::of_password(password).unwrap());
    add_account_with(&site.accounts_file(), "office", Role::Phone, elsewhere);
    update(&site.accounts_file(), |accounts| {
        accounts.last_mut().unwrap().secrets.push(beside);
        Ok::<_, FileError>(())
    })
    .unwrap();
    let server = site.start().await;
    let [elsewhere, beside] = ["office:elsewhere", "office:beside"].map(basic);
    let authorization = Some(elsewhere.clone());
    let mut phone = Client::connect_from(ELSEWHERE, &server, Protocol::Http2, authorization).await;
    let mut neighbour = server.stranger(Protocol::Http1).await;
    let answer = with(&mut neighbour, &beside, "/config").await;
    assert_eq!(answer.status, 200);
    let answered = Arc::new(AtomicUsize::new(0));
    let mut guessers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let mut guesser = server.stranger(Protocol::Http1).await;
        let answered = Arc::clone(&answered);
        guessers.spawn(async move {
            let mut statuses = Vec::new();
            for guess in 0..600 / CONNECTIONS {
                let wrong = basic(format!("office:{connection}-{guess}"));
                let answer = with(&mut guesser, &wrong, "/config").await;
                answered.fetch_add(1, Ordering::Relaxed);
                statuses.push(answer.status);
            }
            statuses
        });
    }
    soon(async {
        while answered.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    // Its password has never been verified before: it is hashed beside the guesses, not behind
    // them.
    let before = answered.load(Ordering::Relaxed);
    let config = phone.ask("GET", "/config", &[]).await;
    let meanwhile = answered.load(Ordering::Relaxed) - before;
    let put = phone.send("PUT", &backup_path(), &[], "mine").await;
    let get = phone.ask("GET", &backup_path(), &[]).await;

    assert_eq!((config.status, put.status, get.status), (200, 201, 200));
    assert!(meanwhile < 15, "{meanwhile} guesses were answered first");
    let statuses = soon(guessers.join_all()).await.concat();
    let count = |status| statuses.iter().filter(|&&other| other == status).count();
    assert_eq!(count(401) + count(429), 600);
    assert!((100..110).contains(&count(401)), "{}", count(401));
    assert_eq!(
        server.refused("wrong_passwords_per_account").await,
        count(429) as u64
    );

    // Beside the guesses, credentials that were verified before and generated secrets are accepted;
    // a right guess is not.
    for authorization in [beside, server.phones()] {
        let answer = with(&mut neighbour, &authorization, "/config").await;
        assert_eq!(answer.status, 200);
    }
    assert_slowed(&with(&mut neighbour, &elsewhere, "/config").await, 37);
}

#[tokio::test]
async fn a_right_guess_is_refused_like_a_wrong_one_also_if_another_account_has_that_password() {
    let site = Site::new().with(wrong_passwords(1));
    let secret = Secret::of_password("right").unwrap();
    add_account_with(&site.accounts_file(), "office", Role::Phone, secret);
    let server = site.start().await;
    let right = basic("office:right");
    let authorization = Some(right.clone());
    let mut phone = Client::connect_from(ELSEWHERE, &server, Protocol::Http1, authorization).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    let mut guesser = server.stranger(Protocol::Http1).await;
    let wrong = basic("office:wrong");
    let hashed = async || {
        let metrics = server.admin("/metrics").await;
        let mut lines = metrics.lines();
        let line =
            lines.find(|line| line.starts_with("safe_passwords_hashed_total{kind=\"slow\"}"));
        line.unwrap().to_owned()
    };
    with(&mut guesser, &wrong, "/config")
        .await
        .assert_refused(401);

    let before = hashed().await;
    for guess in [&wrong, &right, &wrong, &right] {
        assert_slowed(&with(&mut guesser, guess, "/config").await, 3_601);
    }

    assert_eq!(hashed().await, before);
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
}

#[tokio::test]
async fn five_hundred_phones_with_a_wrong_password_are_rate_limited_and_not_banned() {
    const CONNECTIONS: usize = 50;
    let delay = json!({ "limits": { "wrongPasswordDelaySeconds": 0 } });
    let server = TestServer::start_with(delay).await;
    let mut neighbour = server.phone(Protocol::Http2).await;
    let mut office = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut iphone = server.stranger(Protocol::Http1).await;
        office.spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..500 / CONNECTIONS {
                let first = iphone.ask("GET", "/config", &[]).await;
                first.assert_refused(401);
                // An iPhone tries seven times.
                for _ in 0..7 {
                    answers.push(with(&mut iphone, &basic("phones:old"), "/config").await);
                }
            }
            answers
        });
    }
    // Phones in the same office that have the right password.
    while !office.is_empty() {
        assert_eq!(neighbour.ask("GET", "/config", &[]).await.status, 200);
        if let Some(ended) = office.try_join_next() {
            let (wrong, slowed): (Vec<_>, Vec<_>) = ended
                .unwrap()
                .into_iter()
                .partition(|answer| answer.status == 401);
            wrong.iter().for_each(|answer| answer.assert_refused(401));
            // Ten seconds, however many came before: there is always a next one that is let
            // through.
            slowed.iter().for_each(|answer| assert_slowed(answer, 11));
        }
        tokio::task::yield_now().await;
    }

    let refused = server.refused("wrong_passwords_per_account").await;
    assert!((3_000..=3_500 - 360).contains(&refused), "{refused}");
    // The right password arrives by MDM, on one of these phones.
    let mut iphone = server.stranger(Protocol::Http1).await;
    iphone.ask("GET", "/config", &[]).await.assert_refused(401);
    let config = with(&mut iphone, &server.phones(), "/config").await;
    assert_eq!(config.status, 200);
}

#[tokio::test]
async fn only_wrong_basic_credentials_are_counted() {
    for protocol in Protocol::BOTH {
        let server = TestServer::start_with(wrong_passwords(1)).await;
        let mut phone = server.stranger(protocol).await;
        for _ in 0..20 {
            phone.ask("GET", "/config", &[]).await.assert_refused(401);
            for other in ["Bearer token", "Token token", "Basic !!!", "Basic", ""] {
                with(&mut phone, other, "/config").await.assert_refused(401);
            }
            let right = with(&mut phone, &server.phones(), "/config").await;
            assert_eq!(right.status, 200);
        }

        let wrong = basic("phones:wrong");
        with(&mut phone, &wrong, "/config")
            .await
            .assert_refused(401);
        assert_slowed(&with(&mut phone, &wrong, "/config").await, 3_601);
        phone.ask("GET", "/config", &[]).await.assert_refused(401);
    }
}

#[tokio::test]
async fn a_reload_of_the_accounts_keeps_verified_passwords_while_an_attacker_guesses() {
    let site = Site::new().with(wrong_passwords(1));
    let chosen = Secret::of_password("chosen").unwrap();
    add_account_with(&site.accounts_file(), "office", Role::Phone, chosen);
    let mut server = ServerProcess::start(site);
    let mut client = Client::connect(&server, Protocol::Http1, None).await;
    let [right, wrong] = ["office:chosen", "office:wrong"].map(basic);
    assert_eq!(with(&mut client, &right, "/config").await.status, 200);
    with(&mut client, &wrong, "/config")
        .await
        .assert_refused(401);
    assert_slowed(&with(&mut client, &wrong, "/config").await, 3_601);

    server.signal(Signal::HUP);
    server.log_through(|line| line.contains("configuration reloaded"));
    assert_eq!(with(&mut client, &right, "/config").await.status, 200);
    add_account(&server.site().accounts_file(), "another", Role::Phone);
    server.log_through(|line| line.contains("accounts reloaded accounts=5"));

    assert_eq!(with(&mut client, &right, "/config").await.status, 200);
    assert_slowed(&with(&mut client, &wrong, "/config").await, 3_601);
}

#[tokio::test]
async fn an_address_that_tries_many_names_is_slowed() {
    let limits = json!({ "limits": {
        "wrongPasswordsPerAddressAndHour": 10,
        "wrongPasswordDelaySeconds": 0,
    } });
    let server = TestServer::start_with(limits).await;
    let mut guesser = server.stranger(Protocol::Http1).await;

    for name in 0..10 {
        let wrong = basic(format!("{name}:password"));
        with(&mut guesser, &wrong, "/config")
            .await
            .assert_refused(401);
    }

    for name in ["phones", "nobody"] {
        let wrong = basic(format!("{name}:password"));
        assert_slowed(&with(&mut guesser, &wrong, "/config").await, 361);
    }
    assert_eq!(server.refused("wrong_passwords_per_address").await, 2);
    let mut elsewhere = Client::connect_from(ELSEWHERE, &server, Protocol::Http1, None).await;
    let wrong = basic("phones:password");
    with(&mut elsewhere, &wrong, "/config")
        .await
        .assert_refused(401);
}

#[tokio::test]
async fn a_check_that_waits_for_a_permit_is_answered_later() {
    let limits = json!({ "limits": {
        // One in a second.
        "wrongPasswordsPerAccountAndHour": 3600,
        "wrongPasswordsPerAddressAndHour": 3600,
        "wrongPasswordDelaySeconds": 25,
    } });
    let server = TestServer::start_with(limits).await;
    let mut guesser = server.stranger(Protocol::Http2).await;
    let wrong = basic("phones:wrong");
    let is_delayed = async || {
        let metrics = server.admin("/metrics").await;
        !metrics.contains("safe_passwords_delayed_total 0\n")
    };
    for _ in 0..3_600 {
        let answer = with(&mut guesser, &wrong, "/config").await;
        answer.assert_refused(401);
    }

    while !is_delayed().await {
        let answer = with(&mut guesser, &wrong, "/config").await;
        answer.assert_refused(401);
    }
}

#[tokio::test]
async fn an_upload_that_is_slowed_is_read_to_its_end_and_the_connection_stays() {
    let server = TestServer::start_with(wrong_passwords(1)).await;
    for protocol in Protocol::BOTH {
        let mut phone = server.stranger(protocol).await;
        let wrong = basic("phones:wrong");
        let headers = [("authorization", wrong.as_str())];
        let body = vec![b'x'; 524_288];
        phone
            .send("PUT", &backup_path(), &headers, body.clone())
            .await;

        let slowed = phone
            .send("PUT", &backup_path(), &headers, body.clone())
            .await;

        assert_slowed(&slowed, 3_601);
        let right = server.phones();
        let headers = [("authorization", right.as_str())];
        let put = phone.send("PUT", &backup_path(), &headers, body).await;
        assert!([201, 204].contains(&put.status), "{put:?}");
    }
}

#[tokio::test]
async fn unknown_ids_are_counted_and_then_no_answer_tells_which_exist() {
    for protocol in Protocol::BOTH {
        let server = TestServer::start_with(unknown_backups(6, 1_000)).await;
        let mut phone = server.phone(protocol).await;
        let backup = backup_path();
        assert_eq!(phone.send("PUT", &backup, &[], "mine").await.status, 201);

        for number in 0..6 {
            // What is known costs nothing.
            for _ in 0..3 {
                assert_eq!(phone.ask("GET", &backup, &[]).await.status, 200);
                assert_eq!(phone.ask("HEAD", &backup, &[]).await.status, 200);
            }
            let method = ["GET", "HEAD", "DELETE"][number as usize % 3];
            let answer = phone.ask(method, &unknown(number), &[]).await;
            assert_eq!(answer.status, 404);
        }

        // If what exists were still answered, the refusal would be the answer for what does not.
        for method in ["GET", "HEAD", "DELETE"] {
            for path in [&backup, &unknown(7)] {
                assert_slowed(&phone.ask(method, path, &[]).await, 601);
            }
        }
        assert_eq!(server.refused("unknown_backups_per_address").await, 6);
        // Uploads go on, and so do all other clients.
        assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
        assert_eq!(phone.send("PUT", &backup, &[], "newer").await.status, 204);
        let authorization = Some(server.phones());
        let mut elsewhere = Client::connect_from(ELSEWHERE, &server, protocol, authorization).await;
        assert_eq!(elsewhere.ask("GET", &backup, &[]).await.text(), "newer");
        assert_eq!(elsewhere.ask("GET", &unknown(8), &[]).await.status, 404);
        let mut operator = server.operator_client(protocol).await;
        for number in 0..20 {
            assert_eq!(operator.ask("GET", &unknown(number), &[]).await.status, 404);
        }
    }
}

#[tokio::test]
async fn an_account_has_a_budget_for_all_addresses() {
    let site = Site::new().with(unknown_backups(5, 8));
    let other = add_account(&site.accounts_file(), "other", Role::Phone);
    let server = site.start().await;
    let mut here = server.phone(Protocol::Http1).await;
    let authorization = Some(server.phones());
    let mut elsewhere =
        Client::connect_from(ELSEWHERE, &server, Protocol::Http1, authorization).await;

    for number in 0..5 {
        assert_eq!(here.ask("GET", &unknown(number), &[]).await.status, 404);
    }
    for number in 0..3 {
        assert_eq!(
            elsewhere.ask("GET", &unknown(number), &[]).await.status,
            404
        );
    }

    assert_slowed(&elsewhere.ask("GET", &unknown(9), &[]).await, 451);
    assert_eq!(server.refused("unknown_backups_per_account").await, 1);
    let authorization = Some(basic(format!("other:{other}")));
    let mut other = Client::connect(&server, Protocol::Http1, authorization).await;
    assert_eq!(other.ask("GET", &unknown(9), &[]).await.status, 404);
}

/// Their addresses are one, their account is one, and every limit is at its default.
#[tokio::test]
async fn five_hundred_new_phones_behind_one_address_are_never_rate_limited() {
    const CONNECTIONS: u32 = 50;
    let server = TestServer::start().await;
    let mut office = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let mut iphone = server.stranger(Protocol::Http1).await;
        let authorization = server.phones();
        office.spawn(async move {
            let headers = [("authorization", authorization.as_str())];
            for phone in 0..500 / CONNECTIONS {
                let number = connection * 500 / CONNECTIONS + phone;
                iphone.ask("GET", "/config", &[]).await.assert_refused(401);
                let config = iphone.ask("GET", "/config", &headers).await;
                assert_eq!(config.status, 200);
                let first = iphone.send("PUT", &unknown(number), &[], "backup").await;
                first.assert_refused(401);
                let put = iphone
                    .send("PUT", &unknown(number), &headers, "backup")
                    .await;
                assert_eq!(put.status, 201);
                // A few people mistype the password when they restore, or delete what is gone.
                if phone % 10 == 0 {
                    let gone = unknown(1_000 + number);
                    for method in ["GET", "DELETE"] {
                        let answer = iphone.ask(method, &gone, &headers).await;
                        assert_eq!(answer.status, 404);
                    }
                }
                // A new password has a new id.
                let old = iphone.ask("DELETE", &unknown(number), &headers).await;
                assert_eq!(old.status, 204);
                let new = unknown(2_000 + number);
                let put = iphone.send("PUT", &new, &headers, "backup").await;
                assert_eq!(put.status, 201);
                let restored = iphone.ask("GET", &new, &headers).await;
                assert_eq!(restored.text(), "backup");
            }
        });
    }

    soon(office.join_all()).await;
}

/// A guess by an upload tells by 201 or 204. It leaves a trace, but can be deleted at once.
#[tokio::test]
async fn new_ids_are_counted_and_then_no_upload_tells_which_exist() {
    for protocol in Protocol::BOTH {
        let site = Site::new().with(new_backups(4));
        let other = add_account(&site.accounts_file(), "other", Role::Phone);
        let server = site.start().await;
        let mut phone = server.phone(protocol).await;
        let backup = backup_path();
        assert_eq!(phone.send("PUT", &backup, &[], "mine").await.status, 201);
        for number in 0..3 {
            // Renewals are not charged.
            for _ in 0..3 {
                assert_eq!(phone.send("PUT", &backup, &[], "newer").await.status, 204);
            }
            let guess = phone.send("PUT", &unknown(number), &[], "guess").await;
            assert_eq!(guess.status, 201);
            let removed = phone.ask("DELETE", &unknown(number), &[]).await;
            assert_eq!(removed.status, 204);
        }

        for path in [&backup, &unknown(7)] {
            assert_slowed(&phone.send("PUT", path, &[], "guess").await, 901);
        }

        assert_eq!(server.refused("new_backups_per_address").await, 2);
        assert_eq!(phone.ask("GET", &backup, &[]).await.text(), "newer");
        assert_eq!(phone.ask("GET", &unknown(7), &[]).await.status, 404);
        // All other clients go on.
        let authorization = Some(server.phones());
        let mut elsewhere = Client::connect_from(ELSEWHERE, &server, protocol, authorization).await;
        let authorization = Some(basic(format!("other:{other}")));
        let mut other = Client::connect(&server, protocol, authorization).await;
        for client in [&mut elsewhere, &mut other] {
            assert_eq!(client.send("PUT", &backup, &[], "mine").await.status, 204);
        }
        let mut maintainer = server.maintainer_client(protocol).await;
        for number in 10..20 {
            let put = maintainer.send("PUT", &unknown(number), &[], "copy").await;
            assert_eq!(put.status, 201);
        }
    }
}

#[tokio::test]
async fn an_upload_with_a_condition_is_no_way_around_the_budget() {
    for (name, value) in [("if-none-match", "*"), ("if-match", "*")] {
        let server = TestServer::start_with(unknown_backups(4, 1_000)).await;
        let mut phone = server.phone(Protocol::Http1).await;
        let mut statuses = Vec::new();
        for number in 0..6 {
            let path = unknown(number);
            let put = phone.send("PUT", &path, &[(name, value)], "junk").await;
            statuses.push(put.status);
        }

        let answered = if name == "if-match" { 412 } else { 201 };
        let expected = [answered, answered, answered, answered, 429, 429];
        assert_eq!(statuses, expected, "{name}");
        assert_eq!(
            phone.send("PUT", &backup_path(), &[], "mine").await.status,
            201
        );
    }
}

#[tokio::test]
async fn anonymous_restore_has_a_budget_for_each_address() {
    let changes = json!({
        "anonymousRestore": true,
        "limits": {
            "unknownBackupsPerAddressAndHour": 4,
            "unknownBackupsPerAccountAndHour": 4,
        },
    });
    let server = TestServer::start_with(changes).await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "mine").await;
    for protocol in Protocol::BOTH {
        let mut stranger = server.stranger(protocol).await;
        // HTTP/2 is no other address.
        for number in 0..if protocol == Protocol::Http1 { 4 } else { 0 } {
            let restored = stranger.ask("GET", &backup_path(), &[]).await;
            assert_eq!(restored.status, 200);
            let method = if number % 2 == 0 { "GET" } else { "HEAD" };
            let answer = stranger.ask(method, &unknown(number), &[]).await;
            assert_eq!(answer.status, 404);
        }
        assert_slowed(&stranger.ask("GET", &backup_path(), &[]).await, 901);
    }
    // A client that empties the bucket stops neither other addresses nor accounts.
    let mut elsewhere = Client::connect_from(ELSEWHERE, &server, Protocol::Http1, None).await;
    assert_eq!(
        elsewhere.ask("GET", &backup_path(), &[]).await.text(),
        "mine"
    );
    assert_eq!(elsewhere.ask("GET", &unknown(1), &[]).await.status, 404);
    assert_eq!(phone.ask("GET", &backup_path(), &[]).await.text(), "mine");
}
