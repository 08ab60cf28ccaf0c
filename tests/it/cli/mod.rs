//! Command line of the server and of its operators.

mod audit;
mod commands;
mod first_account;
