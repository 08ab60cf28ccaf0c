//! Limits on callers: guesses of passwords and ids, storage quotas, kept versions,
//! memory for uploads.

mod bucket_pairs;
pub(crate) mod guess_limiter;
mod keyed_semaphore;
mod log_throttle;
pub(crate) mod overwrites;
pub(crate) mod quotas;
mod token_buckets;
mod tolerated_growth;
pub(crate) mod upload_memory;
mod verified_cache;
