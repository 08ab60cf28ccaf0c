//! Limits on what callers may do: guesses of passwords and ids, quotas, memory for uploads.

pub(crate) mod guess_limiter;
mod keyed_semaphore;
mod log_throttle;
pub(crate) mod quotas;
mod token_buckets;
pub(crate) mod upload_memory;
mod verified_cache;
