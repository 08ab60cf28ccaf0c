//! Automatic certificates (ACME, RFC 8555): ordered from an authority, and renewed before they
//! expire.
//!
//! `renewer.rs` is the loop; `schedule.rs` decides when an order may start; `order.rs` runs one,
//! over `http.rs` and with the account of `account.rs`. `challenge.rs` proves to the authority, on
//! the public listener itself, that the server controls the domain (tls-alpn-01, RFC 8737), and
//! `resolver.rs` distinguishes the authority's handshakes from those of clients. `store.rs` reads
//! and writes the files, and `progress.rs` holds the state of the orders for the status. The
//! certificate is loaded from its file, like one that another program renews
//! (`tls/certificates.rs`).

mod account;
mod challenge;
mod error;
pub(crate) mod http;
mod order;
mod progress;
mod renewer;
mod resolver;
mod schedule;
pub(crate) mod store;

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Acme;
use crate::server::tls::certificates::Certificates;

use self::challenge::Challenges;
use self::error::Error;
use self::resolver::Resolver;
use self::store::Store;

pub(super) use progress::Progress;
pub(super) use renewer::Renewer;

/// The certificate, which may not be issued yet, and the parts that serve and renew it.
pub(super) struct Opened {
    pub(super) certificates: Arc<Certificates>,
    pub(super) resolver: Resolver,
    pub(super) progress: Arc<Progress>,
    pub(super) renewer: Renewer,
}

/// Opens the files in the ACME directory; sends nothing to the authority yet.
///
/// # Errors
/// When the directory, a file in it, or the file of trusted root certificates cannot be used.
pub(super) fn open(acme: &Acme, clock: fn() -> SystemTime) -> Result<Opened, Error> {
    let store = Store::open(acme)?;
    let (challenges, progress) = (Arc::<Challenges>::default(), Arc::<Progress>::default());
    let certificates = Arc::new(Certificates::open_or_wait(&store.files()));
    let renewer = Renewer::open(
        store,
        Arc::clone(&certificates),
        Arc::clone(&challenges),
        Arc::clone(&progress),
        clock,
    )?;
    Ok(Opened {
        resolver: Resolver::new(Arc::clone(&certificates), challenges),
        certificates,
        progress,
        renewer,
    })
}
