//! Retention: expiry, sweeps and the trash.

mod burst_clocks;
mod careful_sweep;
mod clock_corners;
mod clocks;
mod expiry;
mod first_sweep;
mod lowered;
mod ordinary;
mod overwrites;
mod trash;
