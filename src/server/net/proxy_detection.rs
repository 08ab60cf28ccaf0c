//! Notices when everybody seems to come from one address: then a proxy stands in front of which nobody told the
//! server, and what one client may do is what all may do together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::server::net::client_address::{ClientAddress, Prefix};

/// After so many requests, one address is no chance any more: a household's phones need more than a month for them.
const REQUESTS: u32 = 1_000;

/// What was seen of addresses since the start.
#[derive(Default)]
pub(crate) struct Crowd {
    known: AtomicBool,
    only: Mutex<Option<(Prefix, u32)>>,
}

impl Crowd {
    /// Looks at where one request comes from; says so, once, if it is where all came from. `is_client` where that is no
    /// trusted proxy, which would have to tell.
    pub(crate) fn see(&self, address: ClientAddress, is_client: bool) {
        // What did not come in through a listener has no address.
        let is_known = address == ClientAddress::Unknown || self.known.load(Ordering::Relaxed);
        if is_known || !self.is_one(address.prefix()) {
            return;
        }
        if is_client {
            tracing::warn!(
                requests = REQUESTS,
                "all requests since the start came from one address. If a proxy stands in front of this server, name \
                 it in trustedProxies: until then, what is allowed to one address is all that everybody has \
                 together. This is said once"
            );
        } else {
            tracing::warn!(
                requests = REQUESTS,
                "all requests since the start came from a trusted proxy, which does not say who its clients are: let \
                 it set X-Forwarded-For or speak the PROXY protocol. Until then, what is allowed to one address is all \
                 that everybody has together. This is said once"
            );
        }
    }

    /// Whether this is the request at which it is clear that there is one address only.
    fn is_one(&self, prefix: Prefix) -> bool {
        let mut only = self.only.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, count) = only.get_or_insert((prefix, 0));
        *count += 1;
        let is_one = *first == prefix && *count == REQUESTS;
        if *first != prefix || is_one {
            self.known.store(true, Ordering::Relaxed);
        }
        is_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFICE: Prefix = Prefix::V4([192, 0, 2, 1]);

    #[test]
    fn one_address_is_noticed_once() {
        let crowd = Crowd::default();

        let noticed: Vec<_> = (1..=3 * REQUESTS)
            .filter(|_| crowd.is_one(OFFICE))
            .collect();

        assert_eq!(noticed, [REQUESTS]);
        assert!(crowd.known.load(Ordering::Relaxed));
    }

    #[test]
    fn two_addresses_are_as_it_should_be() {
        let crowd = Crowd::default();
        for _ in 1..REQUESTS {
            assert!(!crowd.is_one(OFFICE));
        }

        assert!(!crowd.is_one(Prefix::V4([192, 0, 2, 2])));
        assert!(crowd.known.load(Ordering::Relaxed));
    }
}
