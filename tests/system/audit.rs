//! Audit log whose lines cannot be made durable.

use std::process::Command;

use crate::support::commands::finish;
use crate::support::commands::{Folder, PROGRAM};

tests! {
    a_line_that_is_lost_after_the_work_is_an_error_that_the_operator_sees: blocking [STRACE];
}

fn a_line_that_is_lost_after_the_work_is_an_error_that_the_operator_sees() {
    let folder = Folder::new();
    folder.write("config.json", "{}");
    folder.done(&["account", "add", "phones"]);
    let log = folder.path("data/audit.jsonl");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync"])
        .args(["-e", "inject=fsync:error=EIO", "-P"])
        .arg(&log)
        .args([PROGRAM, "account", "add", "boss"])
        .current_dir(folder.path(""))
        .env_clear();
    let output = finish(strace, b"");
    let message = output.errors;

    assert_eq!(output.code, Some(1), "{message}");
    let expected =
        "error: the audit log data/audit.jsonl cannot be written: append a line failed: ";
    assert!(message.starts_with(expected), "{message}");
    assert!(
        message.contains("the command's changes remain"),
        "{message}"
    );
    // The password is shown all the same: the account is there.
    assert!(output.out.contains("password   "));
    assert!(folder.done(&["account", "list"]).contains("boss"));
}
