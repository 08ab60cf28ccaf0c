//! Limits: connections, rates, guesses, memory and quotas.

mod guessing;
mod quotas;
mod resources;
