//! Stores: their contract, failures, races, damage and full disks.

pub(crate) mod at_once;
mod cancellation;
pub(crate) mod contract;
mod disks;
pub(crate) mod failing;
mod faults;
mod flaws;
mod races;
mod scrub;
