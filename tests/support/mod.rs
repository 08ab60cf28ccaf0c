//! What all tests share: sites and servers, clients, commands and stores.
//!
//! [`Site`] is what an operator has on disk. A server runs on it in the process of its test ([`TestServer`]) or in one
//! of its own (`process::ServerProcess`). `wire` and `frames` are clients, `commands` runs the program's commands, and
//! `stores` are stores for tests. `tests/it` and `tests/system` include this folder.

pub(crate) mod commands;
mod files;
pub(crate) mod frames;
pub(crate) mod process;
mod server;
mod site;
pub(crate) mod stores;
pub(crate) mod strace;
pub(crate) mod wire;

use std::io::Write;

pub(crate) use files::*;
pub(crate) use server::*;
pub(crate) use site::*;

/// Says loudly that something is not tested because a program is missing; with `REQUIRE_ALL_TESTS` in the
/// environment that is a failure.
pub(crate) fn skip_without_program(text: &str) {
    let required = std::env::var_os("REQUIRE_ALL_TESTS").is_some();
    assert!(!required, "REQUIRE_ALL_TESTS is set: {text}");
    skip(text);
}

/// Says loudly that something is not tested. Not by `eprintln`, which a test that passes swallows.
pub(crate) fn skip(text: &str) {
    writeln!(std::io::stderr().lock(), "\n*** SKIPPED: {text} ***\n").unwrap();
}
