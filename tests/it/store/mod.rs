//! Stores: their contract, failures, races, and damage.

pub(crate) mod at_once;
mod cancellation;
pub(crate) mod contract;
mod descriptors;
pub(crate) mod failing;
mod flaws;
mod listings;
mod odd_files;
mod odd_times;
mod overwritten;
mod races;
mod scrub;
mod seam;
mod trial;
