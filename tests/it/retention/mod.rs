//! Retention: expiry, sweeps and the trash.

mod careful_sweep;
mod clocks;
mod expiry;
mod first_sweep;
mod lowered;
mod overwrites;
mod trash;
