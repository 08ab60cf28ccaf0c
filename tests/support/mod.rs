//! Support of all tests: sites, servers, clients, commands and stores.
//!
//! [`Site`] is what an operator has on disk. A server runs on it in the process of its test
//! ([`TestServer`]) or in one of its own (`process::ServerProcess`). `wire` and `frames` are
//! clients, `commands` runs the program's commands, and `stores` are stores for tests. `tests/it`
//! and `tests/system` include this folder.

pub(crate) mod acme;
pub(crate) mod commands;
pub(crate) mod damage;
mod files;
pub(crate) mod frames;
pub(crate) mod past;
pub(crate) mod privacy;
pub(crate) mod process;
pub(crate) mod races;
mod server;
pub(crate) mod service;
mod site;
pub(crate) mod stores;
pub(crate) mod trash;
pub(crate) mod wire;

pub(crate) use files::*;
pub(crate) use server::*;
pub(crate) use site::*;
