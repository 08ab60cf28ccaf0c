//! Keeps a certificate in force: looks at the clock, and begins an order when one is due.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use crate::error_chain::with_causes;
use crate::server::acme::challenge::Challenges;
use crate::server::acme::error::Error;
use crate::server::acme::http::{Http, authorities};
use crate::server::acme::order::order;
use crate::server::acme::progress::Progress;
use crate::server::acme::schedule;
use crate::server::acme::schedule::{Failed, Held, Kind};
use crate::server::acme::store::Store;
use crate::time::{DAY, unix};

/// How often the clock is looked at. Not a sleep until the time has come: clocks jump, and machines sleep.
const LOOK: Duration = Duration::from_secs(5);

/// What keeps the certificate in force.
pub(crate) struct Keeper {
    store: Store,
    challenges: Arc<Challenges>,
    progress: Arc<Progress>,
    clock: fn() -> SystemTime,
    held: Option<Held>,
    failed: Option<Failed>,
}

impl Keeper {
    /// Looks at what there is.
    ///
    /// # Errors
    /// When that cannot be told, or the authority's own authority cannot be read.
    pub(crate) fn open(
        store: Store,
        challenges: Arc<Challenges>,
        progress: Arc<Progress>,
        clock: fn() -> SystemTime,
    ) -> Result<Self, Error> {
        if let Some(path) = &store.acme().authority_file {
            drop(authorities(path)?);
        }
        drop(store.account()?);
        let failed = store.failed()?;
        progress.remember(failed.as_ref());
        Ok(Self {
            held: store.certificate()?,
            failed,
            store,
            challenges,
            progress,
            clock,
        })
    }

    /// Asks for certificates as long as the server runs.
    pub(crate) async fn keep(mut self) {
        if self.held.is_none() {
            tracing::warn!(
                "there is no certificate yet: no phone can connect until the authority has issued one"
            );
        }
        let started = unix((self.clock)());
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let now = unix((self.clock)());
            let next = schedule::next(self.held, self.failed.as_ref(), started, now);
            self.progress.next_order(next.max(now));
            if next <= now {
                self.order(started).await;
            }
        }
    }

    async fn order(&mut self, started: u64) {
        tracing::info!(domains = ?self.store.acme().domains, "asking the authority for a certificate");
        self.progress.begins();
        let ended = self.attempt().await;
        let now = unix((self.clock)());
        match ended {
            Ok(held) => {
                self.held = Some(held);
                self.failed = None;
            }
            Err((error, kind)) => {
                let mut random = [0];
                // Without it, the wait is a little shorter.
                let _ = getrandom::fill(&mut random);
                let [random] = random;
                let text = with_causes(&error);
                let failed = Failed::after(self.failed.as_ref(), kind, text, now, random);
                self.failed = Some(failed);
            }
        }
        // Before it is told: what somebody has seen is remembered.
        let (store, failed) = (self.store.clone(), self.failed.clone());
        let written = aside(move || store.replace_failed(failed.as_ref())).await;
        if let Err(error) = written {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "how the order ended could not be written down"
            );
        }
        let next = schedule::next(self.held, self.failed.as_ref(), started, now);
        self.progress.next_order(next);
        self.progress.ended(self.failed.as_ref());
        match &self.failed {
            None => tracing::info!(
                days_until_renewal = next.saturating_sub(now) / DAY,
                "the authority has issued a certificate, and it is in force"
            ),
            Some(failed) => tracing::error!(
                reason = failed.text,
                times = failed.count,
                minutes_until_next = next.saturating_sub(now).div_ceil(60),
                has_certificate = self.held.is_some(),
                "no certificate was obtained; one that was there stays in force"
            ),
        }
    }

    /// One order, and how it failed.
    async fn attempt(&self) -> Result<Held, (Error, Kind)> {
        let plain = |error| (error, Kind::default());
        let path = self.store.acme().authority_file.clone();
        let http = aside(move || Http::new(path.as_deref()))
            .await
            .map_err(plain)?;
        let ordered = Box::pin(order(&self.store, &http, &self.challenges)).await;
        let issued = ordered.map_err(|error| {
            let kind = Kind {
                is_cheap: error.is_cheap(),
                is_rate_limit: error.is_rate_limit(),
                retry_after: http.retry_after(),
            };
            (error, kind)
        })?;
        let (store, now) = (self.store.clone(), unix((self.clock)()));
        aside(move || store.replace_certificate(&issued.private_key, &issued.chain, now))
            .await
            .map_err(plain)
    }
}

/// Does what waits for the disk on a thread for that. Once begun it runs to its end.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and nobody waits for this.
            Err(_) => Err(Error::Slow),
        },
    }
}
