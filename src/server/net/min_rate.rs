//! The minimum transfer rate of request bodies and responses.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limits;

/// The slowest transfer that is allowed: a grace period, then `limits.bytesPerSecond` on average
/// since the transfer started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MinRate {
    grace: Duration,
    bytes_per_second: u32,
}

impl MinRate {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            grace: limits.grace,
            bytes_per_second: limits.bytes_per_second,
        }
    }

    /// The time by which more than `bytes` must have passed of a transfer that began at `start`.
    pub(crate) fn deadline(&self, start: Instant, bytes: u64) -> Instant {
        // 2³² bytes are more than every body and response.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1) * bytes / self.bytes_per_second;
        start + self.grace + earned
    }
}
