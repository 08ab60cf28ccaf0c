//! Detection of an unconfigured reverse proxy: all requests come from one address.
//!
//! Behind such a proxy, all clients share the limits of one address.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lock::lock;
use crate::server::net::client_address::{ClientAddress, Prefix};

/// Number of requests from one address that is evidence of a proxy: the phones of a household need
/// more than a month for them.
const REQUESTS: u32 = 1_000;

/// The addresses of the requests since the start.
#[derive(Default)]
pub(crate) struct ProxyDetector {
    /// True once there are two addresses, or the warning is logged.
    is_decided: AtomicBool,
    /// The first address, and its requests.
    first: Mutex<Option<(Prefix, u32)>>,
}

impl ProxyDetector {
    /// Counts the address of one request, and logs a warning, once, if all requests came from it.
    /// `is_client` is false if the address is that of a trusted proxy, which should have sent the
    /// address of its client.
    pub(crate) fn observe(&self, address: ClientAddress, is_client: bool) {
        // A connection that no listener accepted has no address.
        let is_irrelevant = address == ClientAddress::Unknown;
        let is_decided = self.is_decided.load(Ordering::Relaxed);
        if is_irrelevant || is_decided || !self.is_single(address.prefix()) {
            return;
        }
        if is_client {
            tracing::warn!(
                requests = REQUESTS,
                "proxy suspected: all requests from one address"
            );
        } else {
            tracing::warn!(
                requests = REQUESTS,
                "trusted proxy sends no client addresses"
            );
        }
    }

    /// Whether this request is the one that makes a single address evident.
    fn is_single(&self, prefix: Prefix) -> bool {
        let mut first = lock(&self.first);
        let (first, count) = first.get_or_insert((prefix, 0));
        *count += 1;
        let is_single = *first == prefix && *count == REQUESTS;
        if *first != prefix || is_single {
            self.is_decided.store(true, Ordering::Relaxed);
        }
        is_single
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFICE: Prefix = Prefix::V4([192, 0, 2, 1]);

    #[test]
    fn a_single_address_is_detected_once() {
        let detector = ProxyDetector::default();

        let detected: Vec<_> = (1..=3 * REQUESTS)
            .filter(|_| detector.is_single(OFFICE))
            .collect();

        assert_eq!(detected, [REQUESTS]);
        assert!(detector.is_decided.load(Ordering::Relaxed));
    }

    #[test]
    fn two_addresses_are_no_evidence() {
        let detector = ProxyDetector::default();
        for _ in 1..REQUESTS {
            assert!(!detector.is_single(OFFICE));
        }

        assert!(!detector.is_single(Prefix::V4([192, 0, 2, 2])));
        assert!(detector.is_decided.load(Ordering::Relaxed));
    }
}
