//! Privacy on a full disk: its log and its answers hold no secret.

use std::fs;

use crate::strace::Strace;
use crate::support::Listening;
use crate::support::privacy::{Driven, Expected, How, assert_no_secrets};

tests! {
    a_full_disk_is_told_without_secrets: tokio_2 [STRACE_OF_SERVERS];
}

async fn a_full_disk_is_told_without_secrets() {
    let mut driven = Driven::start(&How {
        format: "text",
        guesses: 1_000_000,
        backups: 0,
    });
    driven.drive_malformed().await;
    let accounts = fs::read_to_string(driven.server.site().accounts_file()).unwrap();
    let inject = "inject=pwrite64:error=ENOSPC";
    let arguments = ["-e", "trace=pwrite64", "-e", inject];
    driven
        .drive_failures(|server| Strace::attach(server, &arguments))
        .await;

    let expected = Expected {
        said: &[" DEBUG ", " status=507 ", "storage failed", "stopped"],
        requests: 100,
        about_backups: 100,
        is_audited: false,
    };
    assert_no_secrets(driven, accounts, &expected);
}
