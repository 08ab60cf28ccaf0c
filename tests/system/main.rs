//! Tests that need programs or rights beside Rust and a C compiler: proxies, browsers, strace,
//! mounts, root.
//!
//! Each test names its needs (`needs`). Where one is missing, the test is ignored, and the last
//! line of the run names what was missing. With `REQUIRE_ALL_TESTS=1` in the environment a missing
//! need is a failure.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::large_futures,
    clippy::disallowed_methods,
    reason = "tests write files, hold futures as they like, and stop where anything goes wrong"
)]

#[macro_use]
mod harness;

mod acme;
mod audit;
mod browser;
mod copies;
mod descriptors;
mod disks;
mod faults;
mod hardening;
mod lacking_calls;
mod monitoring;
mod needs;
mod packages;
mod privacy;
mod proxies;
mod races;
mod real_clients;
mod scrub;
mod slow_clients;
mod strace;
#[expect(dead_code, reason = "the tests in `tests/it` need the rest")]
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod trash;
mod unwritable;
mod vectors;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run(&[
        acme::TESTS,
        audit::TESTS,
        browser::TESTS,
        copies::TESTS,
        descriptors::TESTS,
        disks::TESTS,
        faults::TESTS,
        hardening::TESTS,
        lacking_calls::TESTS,
        monitoring::TESTS,
        packages::TESTS,
        privacy::TESTS,
        proxies::TESTS,
        races::TESTS,
        real_clients::TESTS,
        scrub::TESTS,
        slow_clients::TESTS,
        terminal::TESTS,
        trash::TESTS,
        unwritable::TESTS,
        vectors::TESTS,
    ])
}
