//! Operation: start and stop, reload, health, metrics, logs, privacy and hardening.

mod hardening;
mod health;
mod lifecycle;
mod log;
mod metrics;
mod permissions;
mod privacy;
mod reload;
mod status_page;
mod supervised;
