//! A server for Threema Safe backups, and a client that speaks the real format.
//!
//! The map, in reading order; data flows one way and nothing imports upward:
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`config`] | the JSON file and the environment → a validated [`config::Config`] |
//! | [`server`] | bind, accept, TLS, one request, the dav-server adapter, the stop |
//! | [`account`] | who may come in |
//! | [`store`] | where backups live: the [`store::Store`] trait, and files |
//! | [`retention`] | what expires when; one sweep |
//! | [`scrub`] | reads every backup from time to time |
//! | [`state`] | what a server remembers from one run to the next |
//! | [`audit`] | writes down what operators did |
//! | [`reloaded`] | a value that is reloaded when its files are replaced |
//! | [`private_file`] | who may read and change a file with secrets |
//! | [`error_chain`] | an error and its causes on one line |
//! | [`html`] | HTML escaping |
//! | [`durable`] | replaces a file atomically and durably |
//! | [`backup`] | the Threema Safe format |
//! | [`client`] | a phone in Rust: the Android and iOS ways to speak to a server |
//! | [`cli`] | one file for each command: its arguments and its words |
//!
//! The life of an upload, top to bottom: `server/mod.rs` → `server/http.rs` → `account/gate.rs` →
//! `server/dav.rs` → `store/files/` → `durable.rs`. Nothing on that path knows a key: the server
//! cannot open what it stores.

pub mod account;
pub mod audit;
pub mod backup;
pub mod cli;
pub mod client;
pub mod config;
pub mod durable;
pub mod error_chain;
pub mod html;
pub mod private_file;
pub mod reloaded;
pub mod retention;
pub mod scrub;
pub mod server;
pub mod state;
pub mod store;
