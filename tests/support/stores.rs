//! Store doubles: one in memory, and one that fails or waits where a test says.
//!
//! Over 500 lines: two implementations of all operations of a store.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture};
use futures_util::stream::{self, BoxStream, StreamExt};
use threema_safe_server::backup::BackupId;
use threema_safe_server::durable;
use threema_safe_server::state::{self, Change, IfInvalid, State, StateStore};
use threema_safe_server::store::{
    Contents, Error, Meta, Opened, Previous, Put, Restored, Store, TrashKind, Trashed, Upload,
    Uploader, Verified, Version,
};
use tokio::sync::{Semaphore, watch};

use crate::support::now;
use crate::support::wire::soon;

/// Backups and state in memory: a second opinion on what a backend promises.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore(Arc<Mutex<Kept>>);

/// What a [`MemoryStore`] keeps.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) backups: BTreeMap<BackupId, Backup>,
    pub(crate) trash: BTreeMap<(BackupId, u64), Backup>,
    pub(crate) state: State,
    /// Whether every operation fails, as if a network were down.
    is_unreachable: bool,
    /// A backup, and how many times verifying it fails, as if its part of the storage were down.
    pub(crate) unreadable: Option<(BackupId, u32)>,
    /// So many versions there have been.
    versions: u128,
}

#[derive(Clone)]
pub(crate) struct Backup {
    pub(crate) body: Bytes,
    pub(crate) last_upload: SystemTime,
    pub(crate) version: Version,
    pub(crate) uploader: Option<Uploader>,
    /// How it came into the trash, if it is there.
    pub(crate) kind: TrashKind,
}

impl Kept {
    /// A backup that was uploaded at `last_upload`.
    pub(crate) fn backup(&mut self, body: Bytes, last_upload: SystemTime) -> Backup {
        self.versions += 1;
        Backup {
            body,
            last_upload,
            version: Version(self.versions),
            uploader: None,
            kind: TrashKind::Removed,
        }
    }

    /// Moves a backup into the trash; says whether there was one.
    pub(crate) fn discard(&mut self, id: BackupId, now: SystemTime) -> bool {
        let Some(backup) = self.backups.remove(&id) else {
            return false;
        };
        self.keep(id, backup, TrashKind::Removed, now);
        true
    }

    /// Puts a version into the trash.
    pub(crate) fn keep(
        &mut self,
        id: BackupId,
        mut backup: Backup,
        kind: TrashKind,
        now: SystemTime,
    ) {
        let mut removed_at = unix(now);
        while self.trash.contains_key(&(id, removed_at)) {
            removed_at += 1;
        }
        backup.kind = kind;
        self.trash.insert((id, removed_at), backup);
    }

    /// Makes a version in the trash the backup.
    fn bring_back(&mut self, key: (BackupId, u64), now: SystemTime) {
        let old = self.trash.remove(&key).unwrap();
        let mut backup = self.backup(old.body, now);
        backup.uploader = old.uploader;
        self.backups.insert(key.0, backup);
    }

    /// What becomes of the backup that this upload is about to replace; `None` if it is as usual.
    pub(crate) fn keep_if_wrong(&mut self, id: BackupId, upload: &Upload) -> Option<Previous> {
        let (old, keep) = (self.backups.get(&id)?.clone(), upload.keep?);
        let is_half = upload.body.len() * 2 < old.body.len();
        let is_another = match (upload.uploader, old.uploader) {
            (Some(new), Some(old)) => new != old,
            _ => false,
        };
        if !keep.every && !is_half && !is_another {
            return None;
        }
        let kept = self.trash.iter();
        let kept = kept.filter(|((of, _), old)| *of == id && old.kind == TrashKind::Replaced);
        let length = old.body.len() as u64;
        if kept.count() >= 3 || length > keep.room {
            return Some(Previous::Lost);
        }
        self.keep(id, old, TrashKind::Replaced, upload.at);
        Some(Previous::InTrash(length))
    }
}

impl Backup {
    fn meta(&self) -> Meta {
        Meta {
            length: self.body.len() as u64,
            last_upload: self.last_upload,
            version: self.version,
        }
    }
}

impl MemoryStore {
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    /// The same memory as both halves of a backend.
    pub(crate) fn opened(&self) -> Opened {
        Opened {
            store: Arc::new(self.clone()),
            state: Arc::new(self.clone()),
        }
    }

    /// Takes the network away, or brings it back.
    pub(crate) fn set_reachable(&self, is_reachable: bool) {
        self.kept().is_unreachable = !is_reachable;
    }

    /// Does `work` in one step, when the result is first waited for.
    fn at_once<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut Kept) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, Error>> {
        Box::pin(future::lazy(move |_| {
            let mut kept = self.kept();
            if kept.is_unreachable {
                return Err(Error::Unavailable(UNREACHABLE.into()));
            }
            Ok(work(&mut kept))
        }))
    }

    /// A listing of what is there now, or the error of a store that cannot be reached.
    fn listing<T: Send + 'static>(
        &self,
        items: impl Iterator<Item = Result<T, Error>> + Send + 'static,
    ) -> BoxStream<'static, Result<T, Error>> {
        if self.kept().is_unreachable {
            let error = Error::Unavailable(UNREACHABLE.into());
            return stream::once(future::ready(Err(error))).boxed();
        }
        stream::iter(items).boxed()
    }
}

/// An upload of these bytes now.
pub(crate) fn upload(body: impl Into<Bytes>) -> Upload {
    Upload::new(body.into(), now())
}

/// The cause of what an unreachable store answers.
pub(crate) const UNREACHABLE: &str = "the test took the network away";

impl StateStore for MemoryStore {
    fn load(&self) -> BoxFuture<'_, Result<State, state::Error>> {
        let read = self.at_once(|kept| kept.state.clone());
        Box::pin(async move {
            read.await.map_err(|source| state::Error::Read {
                place: "memory".into(),
                source: source.into(),
            })
        })
    }

    fn apply(&self, mut change: Change, _: IfInvalid) -> BoxFuture<'_, Result<(), state::Error>> {
        let written = self.at_once(move |kept| change(&mut kept.state));
        Box::pin(async move {
            written.await.map_err(|source| state::Error::Write {
                place: "memory".into(),
                source: source.into(),
            })
        })
    }
}

impl Store for MemoryStore {
    fn put(&self, id: BackupId, upload: Upload) -> BoxFuture<'_, Result<Put, Error>> {
        self.at_once(move |kept| {
            // The body itself is dropped, and with it the memory and the permit of the request.
            let mut backup = kept.backup(Bytes::copy_from_slice(&upload.body), upload.at);
            backup.uploader = upload.uploader;
            let previous = kept.keep_if_wrong(id, &upload);
            match (kept.backups.insert(id, backup), previous) {
                (None, _) => Put::Created,
                (Some(_), None) => Put::Replaced,
                (Some(_), Some(previous)) => Put::Suspicious(previous),
            }
        })
    }

    fn get(&self, id: BackupId) -> BoxFuture<'_, Result<Option<(Meta, Bytes)>, Error>> {
        self.at_once(move |kept| {
            let backup = kept.backups.get(&id)?;
            Some((backup.meta(), backup.body.clone()))
        })
    }

    fn stat(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Meta>, Error>> {
        self.at_once(move |kept| kept.backups.get(&id).map(Backup::meta))
    }

    fn remove(&self, id: BackupId, now: SystemTime) -> BoxFuture<'_, Result<bool, Error>> {
        self.at_once(move |kept| kept.discard(id, now))
    }

    fn expire(
        &self,
        id: BackupId,
        not_before: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, Error>> {
        self.at_once(move |kept| {
            let found = kept.backups.get(&id);
            found.is_some_and(|backup| backup.last_upload < not_before) && kept.discard(id, now)
        })
    }

    fn list(&self) -> BoxStream<'static, Result<(BackupId, Meta), Error>> {
        let ids: Vec<_> = self.kept().backups.keys().copied().collect();
        let store = self.clone();
        let listed = ids.into_iter().filter_map(move |id| {
            let meta = store.kept().backups.get(&id).map(Backup::meta)?;
            Some(Ok((id, meta)))
        });
        self.listing(listed)
    }

    fn list_trash(&self) -> BoxStream<'static, Result<Trashed, Error>> {
        let keys: Vec<_> = self.kept().trash.keys().copied().collect();
        let store = self.clone();
        let listed = keys.into_iter().filter_map(move |(id, removed_at)| {
            let (meta, kind) = {
                let kept = store.kept();
                let backup = kept.trash.get(&(id, removed_at))?;
                (backup.meta(), backup.kind)
            };
            Some(Ok(Trashed {
                id,
                kind,
                removed_at,
                length: meta.length,
                last_upload: meta.last_upload,
            }))
        });
        self.listing(listed)
    }

    fn restore(&self, trashed: Trashed, now: SystemTime) -> BoxFuture<'_, Result<Restored, Error>> {
        self.at_once(move |kept| {
            let key = (trashed.id, trashed.removed_at);
            if !kept.trash.contains_key(&key) {
                return Restored::Gone;
            }
            if kept.backups.contains_key(&trashed.id) {
                return Restored::Newer;
            }
            kept.bring_back(key, now);
            Restored::Back
        })
    }

    fn roll_back(
        &self,
        trashed: Trashed,
        now: SystemTime,
        forced: bool,
    ) -> BoxFuture<'_, Result<Restored, Error>> {
        self.at_once(move |kept| {
            let key = (trashed.id, trashed.removed_at);
            let Some(old) = kept.trash.get(&key).cloned() else {
                return Restored::Gone;
            };
            if let Some(present) = kept.backups.get(&trashed.id).cloned() {
                let is_half = present.body.len() * 2 < old.body.len();
                let is_another = present.uploader.is_some()
                    && old.uploader.is_some()
                    && present.uploader != old.uploader;
                let is_next = unix(present.last_upload) <= trashed.removed_at;
                if !forced && !is_half && !is_another && !is_next {
                    return Restored::Newer;
                }
                kept.keep(trashed.id, present, TrashKind::RolledBack, now);
            }
            kept.bring_back(key, now);
            Restored::Back
        })
    }

    fn pass_over(&self, trashed: Trashed) -> BoxFuture<'_, Result<(), Error>> {
        self.at_once(move |kept| {
            if let Some(backup) = kept.trash.get_mut(&(trashed.id, trashed.removed_at)) {
                backup.kind = TrashKind::RolledBack;
            }
        })
    }

    fn verify(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Verified>, Error>> {
        let verified = self.at_once(move |kept| {
            if let Some((unreadable, times)) = &mut kept.unreadable
                && *unreadable == id
                && *times > 0
            {
                *times -= 1;
                return Err(Error::Unavailable(UNREACHABLE.into()));
            }
            Ok(kept.backups.get(&id).map(|backup| Verified {
                length: backup.meta().length,
                contents: Contents::Same,
            }))
        });
        Box::pin(async { verified.await? })
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.at_once(|_| ())
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        self.at_once(|_| None)
    }

    fn erase_trashed(&self, trashed: Trashed) -> BoxFuture<'_, Result<bool, Error>> {
        let key = (trashed.id, trashed.removed_at);
        self.at_once(move |kept| kept.trash.remove(&key).is_some())
    }
}

/// An operation of a store. Of a listing, each look at its next item is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Put,
    Get,
    Stat,
    Remove,
    Expire,
    List,
    ListTrash,
    EraseTrashed,
    TryWrite,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Full,
    Unavailable,
    Io,
}

impl Fault {
    pub(crate) const BOTH: [Self; 2] = [Self::Full, Self::Io];

    fn error(self) -> Error {
        let kind = match self {
            Self::Full => ErrorKind::StorageFull,
            Self::Unavailable => ErrorKind::StaleNetworkFileHandle,
            Self::Io => ErrorKind::Other,
        };
        durable::Error::at("fail in a test")(kind.into()).into()
    }
}

/// On which side of an operation it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// When it has been asked for.
    Before,
    /// When it is done, and the caller has not been told.
    After,
}

/// Another store, of which operations fail, or are held at a gate.
#[derive(Clone)]
pub(crate) struct FaultyStore {
    store: Arc<dyn Store>,
    rules: Arc<Mutex<Vec<Rule>>>,
}

struct Rule {
    operation: Operation,
    /// How many operations are let be before.
    spared: usize,
    /// How many are struck.
    left: usize,
    effect: Effect,
}

#[derive(Clone)]
enum Effect {
    Fail(Fault),
    Panic,
    Hold(Side, Gate),
}

impl FaultyStore {
    pub(crate) fn over(store: impl Store) -> Self {
        Self {
            store: Arc::new(store),
            rules: Arc::default(),
        }
    }

    /// Lets the `nth` operation of this kind fail, and all later ones; the next one is the first.
    pub(crate) fn fail_from(&self, nth: usize, operation: Operation, fault: Fault) {
        self.add(operation, nth - 1, usize::MAX, Effect::Fail(fault));
    }

    /// Lets the `nth` operation of this kind panic, as a bug would; the next one is the first.
    pub(crate) fn panic_at(&self, nth: usize, operation: Operation) {
        self.add(operation, nth - 1, 1, Effect::Panic);
    }

    /// Holds all operations of this kind from now on, until the gate is open.
    pub(crate) fn hold(&self, side: Side, operation: Operation) -> Gate {
        let gate = Gate::default();
        let effect = Effect::Hold(side, gate.clone());
        self.add(operation, 0, usize::MAX, effect);
        gate
    }

    /// Holds the `nth` operation of this kind alone; the next one is the first.
    pub(crate) fn hold_one(&self, nth: usize, side: Side, operation: Operation) -> Gate {
        let gate = Gate::default();
        self.add(operation, nth - 1, 1, Effect::Hold(side, gate.clone()));
        gate
    }

    /// Lets nothing fail any more, and holds nothing that comes from now on.
    pub(crate) fn heal(&self) {
        self.rules.lock().unwrap().clear();
    }

    fn add(&self, operation: Operation, spared: usize, left: usize, effect: Effect) {
        self.rules.lock().unwrap().push(Rule {
            operation,
            spared,
            left,
            effect,
        });
    }

    /// What strikes the next operation of this kind.
    fn next(&self, operation: Operation) -> Vec<Effect> {
        let mut effects = Vec::new();
        for rule in &mut *self.rules.lock().unwrap() {
            if rule.operation != operation {
                continue;
            }
            if rule.spared > 0 {
                rule.spared -= 1;
            } else if rule.left > 0 {
                rule.left -= 1;
                effects.push(rule.effect.clone());
            }
        }
        effects
    }

    async fn strike<T>(
        &self,
        operation: Operation,
        done: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let effects = self.next(operation);
        let hold = async |held| {
            for effect in &effects {
                if let Effect::Hold(side, gate) = effect
                    && *side == held
                {
                    gate.pass().await;
                }
            }
        };
        hold(Side::Before).await;
        for effect in &effects {
            match effect {
                Effect::Fail(fault) => return Err(fault.error()),
                Effect::Panic => panic!("a test wants it"),
                Effect::Hold(..) => {}
            }
        }
        let result = done.await;
        hold(Side::After).await;
        result
    }

    /// A listing ends with its first failure.
    fn listing<T: Send + 'static>(
        &self,
        operation: Operation,
        items: BoxStream<'static, Result<T, Error>>,
    ) -> BoxStream<'static, Result<T, Error>> {
        let store = self.clone();
        stream::unfold(Some(items), move |items| {
            let store = store.clone();
            async move {
                let mut items = items?;
                let item = store
                    .strike(operation, async { items.next().await.transpose() })
                    .await
                    .transpose()?;
                let rest = item.is_ok().then_some(items);
                Some((item, rest))
            }
        })
        .boxed()
    }
}

impl Store for FaultyStore {
    fn put(&self, id: BackupId, upload: Upload) -> BoxFuture<'_, Result<Put, Error>> {
        Box::pin(self.strike(Operation::Put, self.store.put(id, upload)))
    }

    fn get(&self, id: BackupId) -> BoxFuture<'_, Result<Option<(Meta, Bytes)>, Error>> {
        Box::pin(self.strike(Operation::Get, self.store.get(id)))
    }

    fn stat(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Meta>, Error>> {
        Box::pin(self.strike(Operation::Stat, self.store.stat(id)))
    }

    fn remove(&self, id: BackupId, now: SystemTime) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.strike(Operation::Remove, self.store.remove(id, now)))
    }

    fn expire(
        &self,
        id: BackupId,
        not_before: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, Error>> {
        let expired = self.store.expire(id, not_before, now);
        Box::pin(self.strike(Operation::Expire, expired))
    }

    fn list(&self) -> BoxStream<'static, Result<(BackupId, Meta), Error>> {
        self.listing(Operation::List, self.store.list())
    }

    fn list_trash(&self) -> BoxStream<'static, Result<Trashed, Error>> {
        self.listing(Operation::ListTrash, self.store.list_trash())
    }

    fn restore(&self, trashed: Trashed, now: SystemTime) -> BoxFuture<'_, Result<Restored, Error>> {
        self.store.restore(trashed, now)
    }

    fn roll_back(
        &self,
        trashed: Trashed,
        now: SystemTime,
        forced: bool,
    ) -> BoxFuture<'_, Result<Restored, Error>> {
        self.store.roll_back(trashed, now, forced)
    }

    fn pass_over(&self, trashed: Trashed) -> BoxFuture<'_, Result<(), Error>> {
        self.store.pass_over(trashed)
    }

    fn verify(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Verified>, Error>> {
        self.store.verify(id)
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        let tried = self.store.try_write();
        Box::pin(self.strike(Operation::TryWrite, tried))
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        self.store.free_bytes()
    }

    fn erase_trashed(&self, trashed: Trashed) -> BoxFuture<'_, Result<bool, Error>> {
        let erased = self.store.erase_trashed(trashed);
        Box::pin(self.strike(Operation::EraseTrashed, erased))
    }
}

/// Where operations wait until a test lets them go on.
#[derive(Clone)]
pub(crate) struct Gate {
    waiting: Arc<watch::Sender<usize>>,
    /// Closed when the gate is open.
    bar: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            waiting: Arc::new(watch::Sender::new(0)),
            bar: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Gate {
    /// Waits until so many operations stand at the gate at the same time.
    pub(crate) async fn is_reached_by(&self, operations: usize) {
        let mut waiting = self.waiting.subscribe();
        let reached = waiting.wait_for(|waiting| *waiting >= operations);
        drop(soon(reached).await.unwrap());
    }

    /// Waits until no operation stands at the gate.
    pub(crate) async fn is_left(&self) {
        let mut waiting = self.waiting.subscribe();
        drop(
            soon(waiting.wait_for(|waiting| *waiting == 0))
                .await
                .unwrap(),
        );
    }

    /// Lets all go on, also those that come later.
    pub(crate) fn open(&self) {
        self.bar.close();
    }

    async fn pass(&self) {
        /// One less when it goes on, and when its caller has dropped it.
        struct Waiting<'a>(&'a watch::Sender<usize>);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|waiting| *waiting -= 1);
            }
        }
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _waiting = Waiting(&self.waiting);
        // There are no permits: this ends when the gate is opened.
        drop(self.bar.acquire().await);
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}
