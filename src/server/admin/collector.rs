//! Status collector: builds the [`Status`] and the metrics of the running server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use crate::account::Authenticator;
use crate::error_chain::with_causes;
use crate::server::acme::Progress;
use crate::server::metrics::Metrics;
use crate::server::metrics::upload_history::Uploads;
use crate::server::settings::SettingsHandle;
use crate::server::status::{AccountsStatus, CertificateStatus, RunState, Status, StorageStatus};
use crate::server::tls::certificates::Certificates;
use crate::store::{Scope, Store};
use crate::time::unix;

/// How long the trial write to the storage may take before the storage counts as unavailable, and
/// the check of the files beside it. Less than `status` and `healthcheck` wait for the response.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(4);

/// The parts of the server that a status is collected from.
pub(crate) struct StatusCollector {
    pub(crate) run_state: Arc<RunState>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) uploads: Arc<Uploads>,
    /// `None` if a proxy terminates TLS.
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// `None` without ACME.
    pub(crate) acme: Option<Arc<Progress>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: Arc<SettingsHandle>,
    pub(crate) authenticator: Arc<Authenticator>,
    /// The wall clock.
    pub(crate) clock: fn() -> SystemTime,
}

impl StatusCollector {
    /// The status now, with a check of the accounts and certificate files and a trial write to the
    /// storage.
    pub(super) async fn status(&self) -> Status {
        let storage = async {
            let tried = self.store.try_write().await;
            let exposed = self.store.exposures(Scope::Directories).await;
            StorageStatus {
                exposed: exposed.unwrap_or_default(),
                free_bytes: self.store.free_bytes().await.ok().flatten(),
                problem: tried.err().map(|error| with_causes(&error)),
            }
        };
        let (storage, refreshed) = tokio::join!(
            timeout(STORAGE_TIMEOUT, storage),
            timeout(STORAGE_TIMEOUT, self.refresh()),
        );
        // Files that cannot be checked in time leave the status of the last check.
        drop(refreshed);
        let unavailable = |_| StorageStatus {
            problem: Some(format!(
                "no response within {} seconds",
                STORAGE_TIMEOUT.as_secs()
            )),
            ..StorageStatus::default()
        };
        let storage = storage.unwrap_or_else(unavailable);
        let settings = self.settings.current();
        let quota = settings.shared.quotas.used_up(storage.free_bytes);
        Status {
            accounts: AccountsStatus {
                none: self.authenticator.is_empty() && !settings.config.allow_anonymous,
                bad: self.authenticator.is_bad(),
            },
            quota_used_up: quota.map(str::to_owned),
            storage,
            ..self.status_without_storage()
        }
    }

    /// Reloads accounts and certificate if their files were replaced.
    async fn refresh(&self) {
        let certificates = async {
            if let Some(certificates) = &self.certificates {
                certificates.files().refresh().await;
            }
        };
        tokio::join!(self.authenticator.file().refresh(), certificates);
    }

    /// The status now, without storage, accounts and quotas, which are reported as good.
    pub(crate) fn status_without_storage(&self) -> Status {
        let now = (self.clock)();
        let facts = self.run_state.facts();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.run_state.started(),
            now: unix(now),
            sweep: facts.sweep,
            last_sweep: facts.last_sweep,
            storage: StorageStatus::default(),
            accounts: AccountsStatus::default(),
            quota_used_up: None,
            seconds_without_sweep: self.run_state.seconds_without_sweep(),
            uploads: self.uploads.last_days(now),
            max_backup_bytes: self.settings.current().config.max_backup_bytes as u64,
            draining: self.run_state.is_draining(),
            config_problem: facts.config_problem,
            waiting_for_restart: facts.waiting_for_restart,
            scrub: facts.scrub,
            certificate: self.certificate(),
        }
    }

    fn certificate(&self) -> Option<CertificateStatus> {
        let certificates = self.certificates.as_ref()?;
        Some(CertificateStatus {
            acme: self.acme.as_ref().map(|orders| orders.status()),
            ..certificates.status()
        })
    }

    /// The metrics as OpenMetrics text, for a server with this status.
    pub(super) fn metrics_text(&self, status: &Status) -> String {
        self.metrics.health(status);
        if let (Some(status), Some(certificates)) = (&status.certificate, &self.certificates) {
            self.metrics
                .certificate(status, certificates.files().reloads());
        }
        self.metrics.text()
    }
}
