//! Storage metrics: backups and trash at the last sweep and scrub, and failed operations.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::retention::{Refusal, Report};
use crate::server::metrics::label::{Kind, Number, Operation, Reason, UpTo, Within, YoungerThan};
use crate::state::Scrubbed;

/// Label values of operations: those of requests, and `sweep` for a file that a sweep cannot
/// remove.
const OPERATIONS: [&str; 6] = ["read", "stat", "list", "store", "remove", "sweep"];
/// Whether the version before a suspicious overwrite was kept.
const OVERWRITES: [&str; 2] = ["kept", "lost"];
/// The periods, in days, for which renewed backups are counted.
const RENEWED_WITHIN: [u32; 2] = [1, 7];

/// The metrics of the storage.
#[derive(Default)]
pub(super) struct Storage {
    ages: Family<YoungerThan, Number>,
    renewed: Family<Within, Number>,
    sizes: Family<UpTo, Number>,
    expiring: Family<Within, Number>,
    sweep_time: Number,
    sweeps_failed: Counter,
    sweep_refused: Family<Reason, Number>,
    removed: Counter,
    trash: Number,
    trash_erased: Counter,
    trash_held: Number,
    overwrites: Family<Kind, Counter>,
    stored_bytes: Family<Kind, Number>,
    scrub_time: Number,
    damaged: Family<Kind, Number>,
    errors: Family<Operation, Counter>,
}

impl Storage {
    /// Creates the metrics and registers them.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let storage = Self::default();
        storage.register_backups(registry);
        storage.register_sweep(registry);
        storage.register_trash(registry);
        registry.register_with_unit(
            "scrub_last_time",
            "When a scrub last completed, in Unix time",
            Unit::Seconds,
            storage.scrub_time.clone(),
        );
        registry.register(
            "damaged_backups",
            "Backups that the last scrub found damaged, by kind of damage",
            storage.damaged.clone(),
        );
        registry.register(
            "storage_errors",
            "Failed operations of the storage, by operation",
            storage.errors.clone(),
        );
        for reason in Refusal::LABELS {
            drop(storage.sweep_refused.get_or_create(&Reason { reason }));
        }
        for kind in OVERWRITES {
            drop(storage.overwrites.get_or_create(&Kind { kind }));
        }
        for operation in OPERATIONS {
            drop(storage.errors.get_or_create(&Operation { operation }));
        }
        storage
    }

    fn register_backups(&self, registry: &mut Registry) {
        registry.register(
            "backups",
            "Backups at the last sweep, by age; each is counted in one class",
            self.ages.clone(),
        );
        registry.register(
            "backups_renewed",
            "Backups that were uploaded within this many days before the last sweep",
            self.renewed.clone(),
        );
        registry.register(
            "backups_by_size",
            "Backups at the last sweep, by size in percent of maxBackupBytes; each is counted in one class",
            self.sizes.clone(),
        );
        registry.register(
            "backups_expiring",
            "Backups that expire within this many days after the last sweep unless renewed",
            self.expiring.clone(),
        );
        registry.register_with_unit(
            "stored",
            "Size of the backups and of the trash at the last sweep",
            Unit::Bytes,
            self.stored_bytes.clone(),
        );
    }

    fn register_sweep(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "sweep_last_time",
            "When a sweep last completed, in Unix time",
            Unit::Seconds,
            self.sweep_time.clone(),
        );
        registry.register(
            "sweeps_failed",
            "Sweeps that were aborted",
            self.sweeps_failed.clone(),
        );
        registry.register(
            "sweep_refused",
            "1 while sweeps remove nothing, by reason",
            self.sweep_refused.clone(),
        );
        registry.register(
            "backups_removed",
            "Backups that expired and were moved to the trash",
            self.removed.clone(),
        );
    }

    fn register_trash(&self, registry: &mut Registry) {
        registry.register("trash_backups", "Backups in the trash", self.trash.clone());
        registry.register(
            "trash_erased",
            "Backups that were erased from the trash",
            self.trash_erased.clone(),
        );
        registry.register(
            "trash_held",
            "1 while nothing is erased from the trash, because many backups were deleted or overwritten within a day",
            self.trash_held.clone(),
        );
        registry.register(
            "suspicious_overwrites",
            "Uploads that looked wrong, by what became of the version before: kept in the trash or lost",
            self.overwrites.clone(),
        );
    }

    /// Counts a suspicious overwrite.
    pub(super) fn overwritten(&self, kept: bool) {
        let [is_kept, is_lost] = OVERWRITES;
        let kind = if kept { is_kept } else { is_lost };
        self.overwrites.get_or_create(&Kind { kind }).inc();
    }

    /// Counts failed operations; `operation` is one of [`OPERATIONS`].
    pub(super) fn failed(&self, operation: &'static str, times: u64) {
        let errors = self.errors.get_or_create(&Operation { operation });
        errors.inc_by(times);
    }

    /// Records a sweep that started at the Unix time `began`; without a report it was aborted.
    pub(super) fn swept(&self, began: u64, report: Option<&Report>) {
        let Some(report) = report else {
            self.sweeps_failed.inc();
            return;
        };
        let refused = report.refused.map(Refusal::label);
        for reason in Refusal::LABELS {
            let is_reason = u64::from(refused == Some(reason));
            self.sweep_refused
                .get_or_create(&Reason { reason })
                .set(is_reason);
        }
        if refused.is_none() {
            self.sweep_time.set(began);
        }
        self.set_backups(report);
        self.failed("sweep", report.failed);
        self.removed.inc_by(report.removed);
        self.trash.set(report.trash_kept);
        self.trash_erased.inc_by(report.trash_erased);
        self.trash_held.set(u64::from(report.trash_held.is_some()));
    }

    fn set_backups(&self, report: &Report) {
        let ages = report.ages.buckets();
        for bucket in ages {
            let younger_than_days = bound(bucket.younger_than_days);
            self.ages
                .get_or_create(&YoungerThan { younger_than_days })
                .set(bucket.backups);
        }
        for within_days in RENEWED_WITHIN {
            let renewed = ages.iter().filter(|bucket| {
                let bound = bucket.younger_than_days;
                bound.is_some_and(|bound| bound <= within_days)
            });
            self.renewed
                .get_or_create(&Within { within_days })
                .set(renewed.map(|bucket| bucket.backups).sum());
        }
        for bucket in report.sizes.buckets() {
            let up_to_percent = bound(bucket.up_to_percent);
            self.sizes
                .get_or_create(&UpTo { up_to_percent })
                .set(bucket.backups);
        }
        for (within_days, backups) in [
            (14, report.expiring_in_14_days),
            (30, report.expiring_in_30_days),
        ] {
            self.expiring
                .get_or_create(&Within { within_days })
                .set(backups);
        }
        for (kind, bytes) in [
            ("backups", report.kept_bytes),
            ("trash", report.trash_bytes),
        ] {
            self.stored_bytes.get_or_create(&Kind { kind }).set(bytes);
        }
    }

    /// Sets the gauges of a completed scrub.
    pub(super) fn scrubbed(&self, scrubbed: Scrubbed) {
        self.scrub_time.set(scrubbed.finished);
        for (kind, backups) in [
            ("short", scrubbed.short),
            ("changed", scrubbed.changed),
            ("unreadable", scrubbed.unreadable),
        ] {
            self.damaged.get_or_create(&Kind { kind }).set(backups);
        }
    }
}

/// The upper bound of a bucket as a label value.
fn bound(bound: Option<u32>) -> String {
    bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string())
}
