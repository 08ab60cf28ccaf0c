//! Retention: expiry, sweeps and the trash.

mod careful_sweep;
mod expiry;
mod trash;
