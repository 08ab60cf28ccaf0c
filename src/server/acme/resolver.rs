//! Certificate resolver of the public listeners: the certificate in force, and the answers to an
//! authority's challenges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::server::acme::challenge::Challenges;
use crate::server::tls::certificates::Certificates;

/// Answers challenges while an order waits for them, and every other handshake with the
/// certificate.
pub(crate) struct Resolver {
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
    /// True once the warning about a client without a certificate has been logged.
    is_missing_logged: AtomicBool,
}

impl Resolver {
    /// Creates the resolver.
    pub(super) fn new(certificates: Arc<Certificates>, challenges: Arc<Challenges>) -> Self {
        Self {
            certificates,
            challenges,
            is_missing_logged: AtomicBool::new(false),
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if Challenges::is_challenge(&client_hello) {
            return self.challenges.answer(client_hello.server_name());
        }
        let current = self.certificates.current();
        if current.is_none() && !self.is_missing_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!("client refused: there is no certificate yet");
        }
        current
    }
}

// Without the fields, which contain private keys.
impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Resolver").finish_non_exhaustive()
    }
}
