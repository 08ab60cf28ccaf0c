//! Server for Threema Safe backups, and a client for the same format and protocol.
//!
//! The modules, from the top down; no module imports one above it, and data flows one way:
//!
//! | module | contents |
//! | --- | --- |
//! | [`cli`] | command line: one file for each command, with its arguments and its output |
//! | [`server`] | listeners, TLS, request handling, WebDAV, metrics, shutdown |
//! | [`config`] | configuration: from a JSON file and the environment to a [`config::Config`] |
//! | [`account`] | accounts, and the verification of credentials |
//! | [`retention`] | expiry of backups and trash, and the sweep that applies it |
//! | [`scrub`] | integrity check that reads every backup |
//! | [`state`] | state that a server keeps from one run to the next |
//! | [`store`] | the [`store::Store`] trait, and its implementation with files |
//! | [`audit`] | audit log of operators' commands |
//! | [`reloaded`] | values that are reloaded when their files are replaced |
//! | [`private_file`] | permission check of files with secrets |
//! | [`error_chain`] | an error and its causes on one line |
//! | [`html`] | HTML escaping and templates |
//! | [`lock`] | mutexes whose poisoning is ignored |
//! | [`clock`] | known time: which readings of the system clock to believe |
//! | [`time`] | Unix time in seconds, units of time, human-readable durations |
//! | [`durable`] | atomic and durable replacement of files |
//! | [`file_system`] | system calls that some file systems lack, and what replaces them |
//! | [`client`] | HTTP client that behaves like the Android and iOS apps |
//! | [`backup`] | the Threema Safe format |
//!
//! The path of an upload: `server/connection.rs` → `server/request/handler.rs` →
//! `account/authenticator.rs` → `server/request/dav.rs` → `store/files/` → `durable.rs`. No module
//! on this path has a key: the server cannot decrypt what it stores.

pub mod account;
pub mod audit;
pub mod backup;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod durable;
pub mod error_chain;
pub mod file_system;
pub mod html;
pub mod lock;
pub mod private_file;
pub mod reloaded;
pub mod retention;
pub mod scrub;
pub mod server;
pub mod state;
pub mod store;
pub mod time;
