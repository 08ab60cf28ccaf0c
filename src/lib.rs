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
//! | [`file_version`] | tells whether a file was replaced |
//! | [`private_file`] | who may read and change a file with secrets |
//! | [`durable`] | replaces a file atomically and durably |
//! | [`backup`] | the Threema Safe format |
//! | [`client`] | a phone in Rust: the Android and iOS ways to speak to a server |
//! | [`cli`] | one file for each command: its arguments and its words |
//!


pub mod account;
pub mod audit;
pub mod backup;
pub mod cli;
pub mod client;
pub mod config;
pub mod durable;
pub mod file_version;
pub mod private_file;
pub mod retention;
pub mod scrub;
pub mod server;
pub mod state;
pub mod store;
