//! Answers that must not tell cases apart, compared byte by byte, with the order of their headers.

use std::fs;
use std::time::Duration;

use serde_json::json;
use threema_safe_server::account::{FileError, Role, Secret, update};

use crate::support::wire::{Protocol, basic};
use crate::support::{
    ID, OTHER_ID, Site, TestServer, add_account, add_account_with, backup_path, now,
};

/// The bytes of an answer on a connection of its own, without the value of its date.
async fn bytes(server: &TestServer, method: &str, path: &str, authorization: &str) -> String {
    let body = if method == "PUT" { "a backup" } else { "" };
    let mut raw = server.raw().await;
    raw.write(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\nDepth: 0\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await;
    let answer = String::from_utf8(raw.rest().await).unwrap();
    let lines = answer.split_inclusive("\r\n");
    let masked = lines.map(|line| match line.split_once(": ") {
        Some(("date", _)) => "date\r\n",
        _ => line,
    });
    let masked = masked.collect::<String>();
    assert!(masked.contains("\r\ndate\r\n"), "{answer}");
    masked
}

#[tokio::test]
async fn a_wrong_password_an_unknown_account_and_a_disabled_one_get_the_same_bytes() {
    let limits = json!({ "limits": { "wrongPasswordDelaySeconds": 0 } });
    for slow in [false, true] {
        let site = Site::new().with(limits.clone());
        let accounts = site.accounts_file();
        let former = add_account(&accounts, "former", Role::Phone);
        if slow {
            let secret = Secret::of_password("right").unwrap();
            add_account_with(&accounts, "chosen", Role::Phone, secret);
        }
        update(&accounts, |accounts| {
            for account in accounts.iter_mut() {
                account.disabled = account.name.as_str() == "former";
            }
            Ok::<_, FileError>(())
        })
        .unwrap();
        let server = site.start().await;
        let mut phone = server.phone(Protocol::Http1).await;
        phone.send("PUT", &backup_path(), &[], "mine").await;
        let absent = format!("/backups/{OTHER_ID}");

        for method in [
            "GET", "HEAD", "PUT", "DELETE", "PROPFIND", "OPTIONS", "POST",
        ] {
            for path in ["/config", "/backups/", &backup_path(), &absent, "/nothing"] {
                let wrong = bytes(&server, method, path, &basic("phones:wrong")).await;
                assert!(wrong.starts_with("HTTP/1.1 401 "), "{wrong}");
                for other in [
                    "nobody:wrong",
                    "former:wrong",
                    "operator:wrong",
                    "chosen:wrong",
                    ":",
                ] {
                    let other = bytes(&server, method, path, &basic(other)).await;
                    assert_eq!(other, wrong);
                }
                // The right password of a disabled account, and none at all.
                let right = basic(format!("former:{former}"));
                assert_eq!(bytes(&server, method, path, &right).await, wrong);
                assert_eq!(bytes(&server, method, path, "").await, wrong);
            }
        }
    }
}

#[tokio::test]
async fn refusals_of_all_kinds_are_rate_limited_alike() {
    let limits = json!({ "limits": {
        "wrongPasswordsPerAccountAndHour": 1,
        "wrongPasswordDelaySeconds": 0,
    } });
    let site = Site::new().with(limits);
    add_account(&site.accounts_file(), "former", Role::Phone);
    update(&site.accounts_file(), |accounts| {
        accounts.iter_mut().for_each(|account| {
            account.disabled = account.name.as_str() == "former";
        });
        Ok::<_, FileError>(())
    })
    .unwrap();
    let server = site.start().await;
    let mut answers = Vec::new();
    for name in ["phones", "nobody", "former"] {
        let wrong = basic(format!("{name}:wrong"));
        bytes(&server, "GET", "/config", &wrong).await;
        let slowed = bytes(&server, "GET", "/config", &wrong).await;
        // The seconds depend on the moment.
        let (before, after) = slowed.split_once("retry-after: ").unwrap();
        let (_, after) = after.split_once("\r\n").unwrap();
        answers.push(format!("{before}{after}"));
    }

    assert!(answers[0].starts_with("HTTP/1.1 429 "), "{answers:?}");
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
}

#[tokio::test]
async fn what_never_was_what_was_removed_and_what_expired_get_the_same_bytes() {
    let site = Site::new();
    let expired = "e".repeat(64);
    let day = Duration::from_secs(24 * 60 * 60);
    site.place_backup(&expired, b"old", now() - day * 200);
    site.place_backup(&"d".repeat(64), b"another", now());
    site.swept_at(now());
    let server = site.start().await;
    server.swept().await;
    assert!(!fs::exists(server.site().backup_file(&expired)).unwrap());
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "mine").await;
    assert_eq!(phone.ask("DELETE", &backup_path(), &[]).await.status, 204);

    for method in ["GET", "HEAD", "DELETE", "PROPFIND"] {
        let of = async |id: &str| {
            let path = format!("/backups/{id}");
            bytes(&server, method, &path, &server.phones()).await
        };
        let never = of(OTHER_ID).await;
        assert!(never.starts_with("HTTP/1.1 404 "), "{never}");
        assert_eq!(of(ID).await, never, "removed");
        assert_eq!(of(&expired).await, never, "expired");
    }
    // An upload last, for it changes what there is. Its version is its own.
    let names = async |id: &str| {
        let path = format!("/backups/{id}");
        let answer = bytes(&server, "PUT", &path, &server.phones()).await;
        let names = answer.lines().map(|line| match line.split_once(": ") {
            Some((name @ ("etag" | "last-modified"), _)) => name.to_owned(),
            _ => line.to_owned(),
        });
        names.collect::<Vec<_>>()
    };
    let never = names(OTHER_ID).await;
    assert!(never[0].starts_with("HTTP/1.1 201 "), "{never:?}");
    assert_eq!(names(ID).await, never, "removed");
    assert_eq!(names(&expired).await, never, "expired");
}

/// Their time is that of their hashes.
#[tokio::test]
async fn refusals_of_all_kinds_cost_the_same_hashes() {
    let site = Site::new();
    let accounts = site.accounts_file();
    for name in ["chosen", "former"] {
        let secret = Secret::of_password("right").unwrap();
        add_account_with(&accounts, name, Role::Phone, secret);
    }
    update(&accounts, |accounts| {
        accounts.last_mut().unwrap().disabled = true;
        Ok::<_, FileError>(())
    })
    .unwrap();
    let server = site.start().await;
    let hashed = async || {
        let metrics = server.admin("/metrics").await;
        ["fast", "slow"].map(|kind| {
            let name = format!("safe_passwords_hashed_total{{kind=\"{kind}\"}} ");
            let mut lines = metrics.lines();
            let number = lines.find_map(|line| line.strip_prefix(&name));
            number.unwrap_or("0").parse::<u64>().unwrap()
        })
    };
    let generated = server.operator_secret().to_owned();
    for password in ["wrong", "right", &generated] {
        let mut costs = Vec::new();
        for name in ["phones", "chosen", "former", "nobody", ""] {
            if (name, password) == ("chosen", "right") {
                continue;
            }
            let before = hashed().await;
            let credentials = basic(format!("{name}:{password}"));
            let refused = bytes(&server, "GET", "/config", &credentials).await;
            assert!(refused.starts_with("HTTP/1.1 401 "), "{name}: {refused}");
            let after = hashed().await;
            costs.push([after[0] - before[0], after[1] - before[1]]);
        }
        assert_eq!(costs[0][1], 1);
        assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
    }
}
