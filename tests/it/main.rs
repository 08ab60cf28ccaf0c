//! Tests of whole servers over real TLS, each with a server, a folder and a port of its own. They
//! need a Rust toolchain and a C compiler alone; `tests/system` has the tests that need more.
//!
//! `support` starts servers, clients and commands. Nothing here sleeps, depends on another test, or
//! reaches beyond this machine.
#![cfg(test)]
#![expect(
    clippy::large_futures,
    clippy::disallowed_methods,
    reason = "tests write files and hold futures as they like"
)]

mod cli;
mod client;
mod docs;
mod format;
mod http;
mod limits;
mod ops;
mod retention;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod tls;
