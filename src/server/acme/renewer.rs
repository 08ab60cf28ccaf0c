//! Certificate renewal: the task that checks the clock, and starts an order when one is due.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use crate::error_chain::with_causes;
use crate::server::acme::challenge::Challenges;
use crate::server::acme::error::Error;
use crate::server::acme::http::{Http, authorities};
use crate::server::acme::order::order;
use crate::server::acme::progress::Progress;
use crate::server::acme::schedule::{self, FailureKind, OrderFailure, StoredCertificate};
use crate::server::acme::store::Store;
use crate::server::tls::certificates::Certificates;
use crate::time::{DAY, unix};

/// Time between two checks of the clock. The renewer does not sleep until the order is due, because
/// clocks jump and machines are suspended.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Orders certificates, stores them and puts them in force.
pub(crate) struct Renewer {
    store: Store,
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
    progress: Arc<Progress>,
    clock: fn() -> SystemTime,
    stored: Option<StoredCertificate>,
    failure: Option<OrderFailure>,
}

impl Renewer {
    /// Reads the stored certificate, account and failure, and checks the file of trusted root
    /// certificates, so that unusable files are reported at the start.
    ///
    /// # Errors
    /// When one of these files cannot be used.
    pub(super) fn open(
        store: Store,
        certificates: Arc<Certificates>,
        challenges: Arc<Challenges>,
        progress: Arc<Progress>,
        clock: fn() -> SystemTime,
    ) -> Result<Self, Error> {
        if let Some(path) = &store.acme().authority_file {
            drop(authorities(path)?);
        }
        drop(store.account()?);
        let failure = store.failure()?;
        progress.set_failure(failure.as_ref());
        Ok(Self {
            stored: store.certificate()?,
            failure,
            store,
            certificates,
            challenges,
            progress,
            clock,
        })
    }

    /// Renews the certificate until this future is dropped.
    pub(crate) async fn run(mut self) {
        if self.stored.is_none() {
            tracing::warn!("no certificate yet: clients are refused until one is issued");
        }
        let started = unix((self.clock)());
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            checks.tick().await;
            let now = unix((self.clock)());
            let next = schedule::next(self.stored, self.failure.as_ref(), started, now);
            self.progress.next_order(next.max(now));
            if next <= now {
                self.order(started).await;
            }
        }
    }

    async fn order(&mut self, started: u64) {
        tracing::info!(domains = ?self.store.acme().domains, "certificate order started");
        self.progress.started();
        let ended = self.attempt().await;
        let now = unix((self.clock)());
        match ended {
            Ok(stored) => {
                self.stored = Some(stored);
                self.failure = None;
                // In force before the status reports the success.
                self.certificates.files().refresh().await;
            }
            Err((error, kind)) => {
                let mut random = [0];
                // If this fails, the delay is the shortest.
                let _ = getrandom::fill(&mut random);
                let [random] = random;
                let text = with_causes(&error);
                let failure = OrderFailure::after(self.failure.as_ref(), kind, text, now, random);
                self.failure = Some(failure);
            }
        }
        // Saved before the status reports it, so that a restart does not forget a reported failure.
        let (store, failure) = (self.store.clone(), self.failure.clone());
        let saved = spawn_blocking(move || store.replace_failure(failure.as_ref())).await;
        if let Err(error) = saved {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "outcome of the certificate order could not be saved"
            );
        }
        let next = schedule::next(self.stored, self.failure.as_ref(), started, now);
        self.progress.next_order(next);
        self.progress.ended(self.failure.as_ref());
        match &self.failure {
            None => tracing::info!(
                days_until_renewal = next.saturating_sub(now) / DAY,
                "certificate issued and in force"
            ),
            Some(failure) => tracing::error!(
                reason = failure.text,
                times = failure.count,
                minutes_until_next = next.saturating_sub(now).div_ceil(60),
                has_certificate = self.stored.is_some(),
                "certificate order failed; previous certificate stays in force"
            ),
        }
    }

    /// Runs one order, and stores the certificate.
    async fn attempt(&self) -> Result<StoredCertificate, (Error, FailureKind)> {
        let local = |error| (error, FailureKind::default());
        let path = self.store.acme().authority_file.clone();
        let http = spawn_blocking(move || Http::new(path.as_deref()))
            .await
            .map_err(local)?;
        let issued = Box::pin(order(&self.store, &http, &self.challenges)).await;
        let issued = issued.map_err(|error| {
            let kind = FailureKind {
                is_unreached: error.is_unreached(),
                is_rate_limit: error.is_rate_limit(),
                retry_after: http.retry_after(),
            };
            (error, kind)
        })?;
        let (store, now) = (self.store.clone(), unix((self.clock)()));
        spawn_blocking(move || store.replace_certificate(&issued.private_key, &issued.chain, now))
            .await
            .map_err(local)
    }
}

/// Runs `work` on a blocking thread. Once started, it runs to its end.
async fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is shutting down, and the waiting task with it.
            Err(_) => Err(Error::Timeout),
        },
    }
}
