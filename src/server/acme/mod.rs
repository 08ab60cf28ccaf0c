//! Certificates by themselves: an authority is asked for one, and again before it ends (ACME, RFC 8555).
//!
//! `keeper.rs` is the loop, `schedule.rs` decides when an order may begin, `order.rs` goes through one, over `http.rs`
//! with the account of `account.rs`; `challenge.rs` proves to the authority, on the public listener itself, that the
//! domain leads here (tls-alpn-01, RFC 8737). `store.rs` is what lies on disk, `progress.rs` what the status tells.
//! Handshakes take the certificate from its file, as one that somebody else renews (`certificates.rs`).

mod account;
pub(crate) mod challenge;
pub(crate) mod error;
pub(crate) mod http;
mod order;
pub(crate) mod progress;
mod renewer;
pub(crate) mod schedule;
pub(crate) mod store;

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Acme;
use crate::server::tls::certificates::Certificates;

use error::Error;
use store::Store;

pub(super) use challenge::{ALPN, Challenges};
pub(super) use progress::Progress;
pub(super) use renewer::Keeper;

/// The certificate that an authority is asked for, which may not be there yet, and what keeps it in force.
pub(super) struct Opened {
    pub(super) certificates: Certificates,
    pub(super) keeper: Keeper,
}

/// Looks at what there is; asks nobody yet.
///
/// # Errors
/// When the directory cannot be used.
pub(super) fn open(acme: &Acme, clock: fn() -> SystemTime) -> Result<Opened, Error> {
    let store = Store::open(acme)?;
    let (challenges, progress) = (Arc::<Challenges>::default(), Arc::<Progress>::default());
    let files = store.files();
    let keeper = Keeper::open(store, Arc::clone(&challenges), Arc::clone(&progress), clock)?;
    Ok(Opened {
        certificates: Certificates::issued(files, challenges, progress),
        keeper,
    })
}
