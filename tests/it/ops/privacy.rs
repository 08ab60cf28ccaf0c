//! Privacy: no secret is in logs, answers, outputs of commands, or files.

use std::fs;

use crate::support::Listening;
use crate::support::privacy::{CHOSEN, Driven, Expected, How, IDS, Secrets, assert_no_secrets};
use crate::support::wire::{Protocol, basic};

#[test]
fn the_search_finds_secrets_however_they_are_written() {
    let secrets = Secrets::of([CHOSEN, IDS[0]]);
    let header = basic(format!("somebody:{CHOSEN}"));
    let id = IDS[0].to_uppercase();
    for text in [
        format!("password={CHOSEN}"),
        format!("password={}…", CHOSEN.get(5..14).unwrap()),
        format!("header: {header}"),
        format!("{:?}", CHOSEN.as_bytes()),
        format!("path=/backups/{id}"),
        format!("backup={}", IDS[0].get(..8).unwrap()),
        hex::encode(IDS[0]),
        hex::encode_upper(CHOSEN),
        CHOSEN.bytes().map(|byte| format!("%{byte:02x}")).collect(),
    ] {
        assert_eq!(secrets.found_in(&text).len(), 1, "{text}");
    }
    let harmless =
        "2026-11-24T10:00:00.123456Z INFO request method=\"PUT\" route=\"backup\" backup=0badcafe";
    assert!(secrets.found_in(harmless).is_empty());
}

/// Words that the log of every fully driven server has.
macro_rules! said {
    ($($word:literal),*) => {
        &["storage failed", "handshake failed", "connection ended", "accounts reload failed", "listing refused", "sweep finished", "stopped", $($word),*]
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_written_holds_a_secret() {
    let how = How {
        format: "text",
        guesses: 1_000_000,
        backups: 0,
    };
    drive_and_search(&how, said![" DEBUG ", " status=401 ", " status=500 "]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_and_refusals_after_too_many_requests_hold_no_secret() {
    let how = How {
        format: "json",
        guesses: 12,
        backups: 1,
    };
    let said = said![
        "\"level\":\"DEBUG\"",
        "\"status\":401",
        "\"status\":429",
        "\"status\":507",
        "rate limit reached"
    ];
    drive_and_search(&how, said).await;
}

async fn drive_and_search(how: &How, said: &'static [&'static str]) {
    let mut driven = Driven::start(how);
    driven.drive_admin().await;
    for protocol in Protocol::BOTH {
        driven.drive_requests(protocol).await;
    }
    driven.drive_malformed().await;
    driven.drive_commands();
    let accounts = fs::read_to_string(driven.server.site().accounts_file()).unwrap();
    driven.drive_failures(|_| ()).await;
    driven.drive_admin().await;

    let expected = Expected {
        said,
        requests: 1_001,
        about_backups: 301,
        is_audited: true,
    };
    assert_no_secrets(driven, accounts, &expected);
}
