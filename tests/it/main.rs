//! Tests against a whole server over real TLS, each with a server, a folder and a port of its own.
//!
//! `support` starts servers and `wire` speaks to them; the other modules are one subject each. Nothing here
//! sleeps, depends on another test, or reaches beyond this machine.
#![cfg(test)]
#![expect(
    clippy::large_futures,
    clippy::disallowed_methods,
    reason = "tests write files and hold futures as they like"
)]

mod access;
mod access_log;
mod acme;
mod apps_on_the_wire;
mod audit;
mod bad_input;
mod cancellation;
mod careful_sweep;
mod certificates;
mod cli;
mod client_commands;
mod client_secrets;
mod cut_uploads;
mod dav_guards;
mod disks;
mod document_links;
mod doubles;
mod examples;
mod faults;
mod first_account;
mod flaws;
mod format;
mod frames;
mod guessing;
mod hardening;
mod health;
mod http2_attacks;
mod lifecycle;
mod limits;
mod log;
mod malformed;
mod metrics;
mod operations;
mod operator;
mod oracles;
mod packages;
mod phone;
mod privacy;
mod process;
mod program;
mod proxies;
mod quotas;
mod races;
mod real_clients;
mod reload;
mod request_races;
mod requests;
mod restores;
mod retention;
mod scrub;
mod slow_clients;
mod status_page;
mod storage_seam;
mod store_at_once;
mod store_contract;
mod store_faults;
mod strace;
mod supervised;
mod support;
mod tidy;
mod trash;
mod vectors;
mod wire;
