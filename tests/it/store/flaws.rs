//! Broken stores, and the promise of `contract` that each of them fails: the contract sees more
//! than that a store does something.
//!
//! Over 500 lines: one store for each way to break a promise.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each store has one flaw, and keeps every other promise"
)]

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use threema_safe_server::backup::BackupId;
use threema_safe_server::durable;
use threema_safe_server::store::{
    Contents, Error, KeepReplaced, Meta, Put, Restored, Store, TrashKind, Trashed, Upload,
    Verified, Version,
};
use tokio::task::yield_now;

use crate::store::contract::{CONTRACT, Promise, hold_to};
use crate::support::stores::{Backup, MemoryStore};

/// A promise that a store breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// It writes into the backup that is there.
    WritesInPlace,
    /// It acknowledges before others see it.
    AcknowledgesEarly,
    /// It takes every upload for the first.
    SaysCreated,
    /// It gives the same bytes the same version.
    VersionsBytes,
    /// It goes by its own clock.
    KeepsItsOwnTime,
    /// It removes for good.
    SkipsTrash,
    /// It replaces in the trash what was removed in the same second.
    ReplacesInTrash,
    /// It has a removed backup nowhere for a while.
    LetsGoBetween,
    /// It expires what is exactly as old as is allowed.
    ExpiresAtTheLimit,
    /// It counts time in whole seconds.
    ExpiresBySeconds,
    /// It expires without a look at the time.
    ExpiresUnlooked,
    /// It restores over a newer backup.
    RestoresOver,
    /// It restores with the old time.
    RestoresTheTime,
    /// It changes the time in the trash although it does not restore.
    TouchesTrash,
    /// It restores whatever version is the oldest.
    RestoresAny,
    /// It erases all versions of a backup from the trash.
    ErasesAll,
    /// It lists what has vanished as a failure.
    ListsTheVanished,
    /// It compares with the first version.
    VerifiesTheFirst,
    /// It passes over the end of an id.
    CutsIds,
    /// It lists what it has read in one go.
    ListsAPart,
    /// It says of every removal that it removed something.
    SaysRemoved,
    /// It leaves in the trash what it restores.
    CopiesOutOfTrash,
    /// It keeps no replaced version.
    KeepsNothing,
    /// It keeps every replaced version.
    KeepsEverything,
    /// It does not know uploaders.
    ForgetsUploaders,
    /// It keeps the newest versions.
    KeepsTheNewest,
    /// It looks at the version before, and then replaces whatever is there.
    KeepsWhatItSawBefore,
    /// It rolls back whatever is there.
    RollsBackAnything,
    /// It erases what it rolls back.
    RollsBackForGood,
    /// It has rolled back when something else may already be there.
    RollsBackInSteps,
    /// It leaves a version that is passed over as it was.
    PassesOverNothing,
    /// It erases a version that is passed over.
    ErasesPassedOver,
}

/// Which promises each of them breaks; others may break with them.
const BROKEN: &[(Flaw, &[&str])] = &[
    (
        Flaw::WritesInPlace,
        &[
            "readers_beside_writers_get_whole_versions",
            "an_upload_beside_a_removal_comes_before_or_after_it",
            "a_caller_that_goes_away_leaves_one_whole_version",
        ],
    ),
    (
        Flaw::AcknowledgesEarly,
        &[
            "what_is_stored_is_read_back_and_the_first_upload_is_told_from_later_ones",
            "bodies_of_any_length_are_kept_to_the_byte",
        ],
    ),
    (
        Flaw::SaysCreated,
        &[
            "what_is_stored_is_read_back_and_the_first_upload_is_told_from_later_ones",
            "uploads_at_once_leave_one_whole_version_and_one_of_them_is_the_first",
        ],
    ),
    (
        Flaw::VersionsBytes,
        &["every_upload_has_a_version_of_its_own"],
    ),
    (
        Flaw::KeepsItsOwnTime,
        &["an_upload_has_the_time_that_the_caller_gives"],
    ),
    (Flaw::SkipsTrash, &["what_is_removed_is_in_the_trash"]),
    (
        Flaw::ReplacesInTrash,
        &["removed_twice_in_a_second_both_are_in_the_trash"],
    ),
    (
        Flaw::LetsGoBetween,
        &["a_caller_that_goes_away_leaves_one_whole_version"],
    ),
    (
        Flaw::ExpiresAtTheLimit,
        &["a_backup_as_old_as_is_allowed_stays_and_one_nanosecond_older_expires"],
    ),
    (
        Flaw::ExpiresBySeconds,
        &["a_backup_as_old_as_is_allowed_stays_and_one_nanosecond_older_expires"],
    ),
    (
        Flaw::ExpiresUnlooked,
        &[
            "a_renewed_backup_does_not_expire",
            "an_upload_beside_an_expiry_is_kept",
        ],
    ),
    (
        Flaw::RestoresOver,
        &[
            "a_restore_never_overwrites",
            "a_restore_beside_an_upload_never_wins_over_it",
            "of_restores_at_once_one_restores",
            "a_kept_version_is_restored_as_a_removed_one_is",
        ],
    ),
    (
        Flaw::RestoresTheTime,
        &["a_restored_backup_is_as_if_it_had_been_uploaded_then"],
    ),
    (Flaw::TouchesTrash, &["a_restore_never_overwrites"]),
    (
        Flaw::RestoresAny,
        &["of_two_versions_in_the_trash_the_one_that_is_meant_is_restored"],
    ),
    (
        Flaw::ErasesAll,
        &[
            "nothing_is_known_of_an_id_under_which_nothing_was_stored",
            "one_version_alone_is_erased_from_the_trash",
        ],
    ),
    (
        Flaw::ListsTheVanished,
        &["what_vanishes_while_it_is_listed_is_left_out"],
    ),
    (
        Flaw::VerifiesTheFirst,
        &["what_was_stored_is_found_sound_and_left_alone"],
    ),
    (Flaw::CutsIds, &["all_ids_are_alike"]),
    (Flaw::ListsAPart, &["a_listing_has_every_backup_once"]),
    (Flaw::SaysRemoved, &["of_removals_at_once_one_removes"]),
    (
        Flaw::CopiesOutOfTrash,
        &["a_restore_beside_an_erasure_is_before_or_too_late"],
    ),
    (
        Flaw::KeepsNothing,
        &[
            "a_replaced_version_is_kept_where_the_change_looks_wrong",
            "what_is_kept_is_bounded_and_the_oldest_stays",
        ],
    ),
    (
        Flaw::KeepsEverything,
        &["a_replaced_version_is_kept_where_the_change_looks_wrong"],
    ),
    (
        Flaw::ForgetsUploaders,
        &[
            "a_replaced_version_is_kept_where_the_change_looks_wrong",
            "a_kept_version_is_exchanged_with_the_backup_and_back",
        ],
    ),
    (
        Flaw::KeepsTheNewest,
        &["what_is_kept_is_bounded_and_the_oldest_stays"],
    ),
    (
        Flaw::KeepsWhatItSawBefore,
        &["overwrites_at_once_keep_what_they_replace"],
    ),
    (
        Flaw::RollsBackAnything,
        &["what_was_uploaded_properly_since_is_rolled_back_by_force_alone"],
    ),
    (
        Flaw::RollsBackForGood,
        &["a_kept_version_is_exchanged_with_the_backup_and_back"],
    ),
    (
        Flaw::RollsBackInSteps,
        &["an_upload_beside_a_roll_back_is_never_lost"],
    ),
    (
        Flaw::PassesOverNothing,
        &["a_version_that_is_passed_over_is_rolled_back"],
    ),
    (
        Flaw::ErasesPassedOver,
        &["a_version_that_is_passed_over_is_rolled_back"],
    ),
];

struct Flawed {
    store: MemoryStore,
    flaw: Flaw,
    first: Mutex<HashMap<BackupId, Bytes>>,
}

impl Flawed {
    fn new(flaw: Flaw) -> Self {
        Self {
            store: MemoryStore::default(),
            flaw,
            first: Mutex::default(),
        }
    }

    async fn discard(&self, id: BackupId, now: SystemTime) -> bool {
        let unix = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let place = (id, unix.as_secs());
        let taken = match self.flaw {
            Flaw::SkipsTrash => return self.store.kept().backups.remove(&id).is_some(),
            Flaw::ReplacesInTrash | Flaw::LetsGoBetween => self.store.kept().backups.remove(&id),
            _ => return self.store.kept().discard(id, now),
        };
        let Some(backup) = taken else {
            return false;
        };
        if self.flaw == Flaw::LetsGoBetween {
            yield_now().await;
        }
        self.store.kept().trash.insert(place, backup);
        true
    }
}

impl Flawed {
    /// Erases the oldest version of a backup in the trash where there are three.
    fn make_room_for_newer(&self, id: BackupId) {
        let mut kept = self.store.kept();
        let of_id = kept.trash.keys().filter(|(of, _)| *of == id);
        let of_id: Vec<_> = of_id.copied().collect();
        if of_id.len() == 3 {
            kept.trash.remove(&of_id[0]);
        }
    }

    fn keep_present(&self, id: BackupId, now: SystemTime) {
        let mut kept = self.store.kept();
        if let Some(present) = kept.backups.get(&id).cloned() {
            kept.keep(id, present, TrashKind::RolledBack, now);
        }
    }
}

impl Store for Flawed {
    fn put(&self, id: BackupId, upload: Upload) -> BoxFuture<'_, Result<Put, Error>> {
        Box::pin(async move {
            match self.flaw {
                Flaw::WritesInPlace => {
                    let Upload { body, at, .. } = upload;
                    let half = body.slice(..body.len() / 2);
                    let put = self.store.put(id, Upload::new(half, at)).await?;
                    yield_now().await;
                    if let Some(backup) = self.store.kept().backups.get_mut(&id) {
                        backup.body = body;
                    }
                    Ok(put)
                }
                Flaw::AcknowledgesEarly => {
                    let store = self.store.clone();
                    tokio::spawn(async move { store.put(id, upload).await });
                    Ok(match self.store.stat(id).await? {
                        None => Put::Created,
                        Some(_) => Put::Replaced,
                    })
                }
                Flaw::SaysCreated => self.store.put(id, upload).await.map(|_| Put::Created),
                Flaw::VersionsBytes => {
                    let body = upload.body.clone();
                    let put = self.store.put(id, upload).await;
                    if let Some(backup) = self.store.kept().backups.get_mut(&id) {
                        let sum = body.iter().map(|byte| u128::from(*byte)).sum();
                        backup.version = Version(sum);
                    }
                    put
                }
                Flaw::KeepsItsOwnTime => {
                    let at = SystemTime::now();
                    self.store.put(id, Upload { at, ..upload }).await
                }
                Flaw::CutsIds => {
                    let mut bytes = [0; 32];
                    hex::decode_to_slice(id.to_hex(), &mut bytes).unwrap();
                    bytes[31] &= 0x7f;
                    self.store.put(BackupId::from_bytes(bytes), upload).await
                }
                Flaw::KeepsNothing => {
                    let keep = None;
                    self.store.put(id, Upload { keep, ..upload }).await
                }
                Flaw::KeepsEverything => {
                    let keep = upload.keep.map(|keep| KeepReplaced {
                        every: true,
                        ..keep
                    });
                    self.store.put(id, Upload { keep, ..upload }).await
                }
                Flaw::ForgetsUploaders => {
                    let uploader = None;
                    self.store.put(id, Upload { uploader, ..upload }).await
                }
                Flaw::KeepsTheNewest => {
                    self.make_room_for_newer(id);
                    self.store.put(id, upload).await
                }
                Flaw::KeepsWhatItSawBefore => {
                    let previous = self.store.kept().keep_if_wrong(id, &upload);
                    yield_now().await;
                    let keep = None;
                    let put = self.store.put(id, Upload { keep, ..upload }).await?;
                    Ok(previous.map_or(put, Put::Suspicious))
                }
                _ => {
                    let first = upload.body.clone();
                    self.first.lock().unwrap().entry(id).or_insert(first);
                    self.store.put(id, upload).await
                }
            }
        })
    }

    fn get(&self, id: BackupId) -> BoxFuture<'_, Result<Option<(Meta, Bytes)>, Error>> {
        self.store.get(id)
    }

    fn stat(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Meta>, Error>> {
        self.store.stat(id)
    }

    fn remove(&self, id: BackupId, now: SystemTime) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            let removed = self.discard(id, now).await;
            Ok(removed || self.flaw == Flaw::SaysRemoved)
        })
    }

    fn expire(
        &self,
        id: BackupId,
        not_before: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            let Some(found) = self.store.stat(id).await? else {
                return Ok(false);
            };
            let limit = match self.flaw {
                Flaw::ExpiresAtTheLimit => not_before + Duration::from_nanos(1),
                Flaw::ExpiresBySeconds => {
                    let unix = not_before.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                    SystemTime::UNIX_EPOCH + Duration::from_secs(unix.as_secs())
                }
                Flaw::ExpiresUnlooked => found.last_upload + Duration::from_secs(1),
                _ => not_before,
            };
            Ok(found.last_upload < limit && self.discard(id, now).await)
        })
    }

    fn list(&self) -> BoxStream<'static, Result<(BackupId, Meta), Error>> {
        match self.flaw {
            Flaw::ListsAPart => return self.store.list().take(256).boxed(),
            Flaw::ListsTheVanished => {}
            _ => return self.store.list(),
        }
        let ids: Vec<_> = self.store.kept().backups.keys().copied().collect();
        let store = self.store.clone();
        let listed = stream::iter(ids).then(move |id| {
            let store = store.clone();
            async move {
                let vanished = durable::Error::at("stat")(std::io::ErrorKind::NotFound.into());
                let found = store.stat(id).await?;
                found.map(|meta| (id, meta)).ok_or(vanished.into())
            }
        });
        listed.boxed()
    }

    fn list_trash(&self) -> BoxStream<'static, Result<Trashed, Error>> {
        self.store.list_trash()
    }

    fn restore(&self, trashed: Trashed, now: SystemTime) -> BoxFuture<'_, Result<Restored, Error>> {
        Box::pin(async move {
            let mut place = (trashed.id, trashed.removed_at);
            let left = self.store.kept().trash.get(&place).cloned();
            let Some(left) = left else {
                return Ok(Restored::Gone);
            };
            let mut time = now;
            match self.flaw {
                Flaw::RestoresOver => {
                    self.store.kept().backups.remove(&trashed.id);
                }
                Flaw::TouchesTrash => {
                    let mut kept = self.store.kept();
                    kept.trash.get_mut(&place).unwrap().last_upload = now;
                }
                Flaw::RestoresAny => {
                    let kept = self.store.kept();
                    place = *kept.trash.keys().find(|(id, _)| *id == place.0).unwrap();
                }
                Flaw::RestoresTheTime => time = trashed.last_upload,
                _ => {}
            }
            let (id, removed_at) = place;
            let meant = Trashed {
                id,
                removed_at,
                ..trashed
            };
            let restored = self.store.restore(meant, time).await?;
            if self.flaw == Flaw::CopiesOutOfTrash && restored == Restored::Back {
                self.store.kept().trash.insert(place, left);
            }
            Ok(restored)
        })
    }

    fn roll_back(
        &self,
        trashed: Trashed,
        now: SystemTime,
        forced: bool,
    ) -> BoxFuture<'_, Result<Restored, Error>> {
        Box::pin(async move {
            match self.flaw {
                Flaw::RollsBackAnything => self.store.roll_back(trashed, now, true).await,
                Flaw::RollsBackForGood => {
                    let restored = self.store.roll_back(trashed, now, forced).await?;
                    let mut kept = self.store.kept();
                    kept.trash
                        .retain(|_, backup| backup.kind != TrashKind::RolledBack);
                    Ok(restored)
                }
                Flaw::RollsBackInSteps => {
                    self.keep_present(trashed.id, now);
                    yield_now().await;
                    self.store.kept().backups.remove(&trashed.id);
                    self.store.roll_back(trashed, now, forced).await
                }
                _ => self.store.roll_back(trashed, now, forced).await,
            }
        })
    }

    fn pass_over(&self, trashed: Trashed) -> BoxFuture<'_, Result<(), Error>> {
        match self.flaw {
            Flaw::PassesOverNothing => Box::pin(async { Ok(()) }),
            Flaw::ErasesPassedOver => {
                Box::pin(async move { self.store.erase_trashed(trashed).await.map(drop) })
            }
            _ => self.store.pass_over(trashed),
        }
    }

    fn verify(&self, id: BackupId) -> BoxFuture<'_, Result<Option<Verified>, Error>> {
        Box::pin(async move {
            let verified = self.store.verify(id).await?;
            if self.flaw != Flaw::VerifiesTheFirst {
                return Ok(verified);
            }
            let first = self.first.lock().unwrap().get(&id).cloned();
            let kept = self.store.kept();
            let body = |backup: &Backup| backup.body.clone();
            let is_first = kept.backups.get(&id).map(body) == first;
            let contents = if is_first {
                Contents::Same
            } else {
                Contents::Changed
            };
            Ok(verified.map(|verified| Verified {
                contents,
                ..verified
            }))
        })
    }

    fn try_write(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.store.try_write()
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        self.store.free_bytes()
    }

    fn erase_trashed(&self, trashed: Trashed) -> BoxFuture<'_, Result<bool, Error>> {
        if self.flaw == Flaw::ErasesAll {
            let mut kept = self.store.kept();
            let is_another = |at: u64| at != trashed.removed_at;
            kept.trash
                .retain(|(id, at), _| *id != trashed.id || !is_another(*at));
        }
        self.store.erase_trashed(trashed)
    }
}

fn promise(name: &str) -> Promise {
    let found = CONTRACT.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("there is no {name}")).1
}

#[test]
fn a_store_that_breaks_a_promise_fails_it() {
    for (flaw, broken) in BROKEN {
        for name in *broken {
            let held = || hold_to(promise(name), &Flawed::new(*flaw));
            let failed = catch_unwind(AssertUnwindSafe(held)).is_err();
            assert!(failed, "{flaw:?} passes for {name}");
        }
    }
}

#[test]
fn every_promise_fails_for_some_store() {
    let seen: Vec<_> = BROKEN.iter().flat_map(|(_, broken)| *broken).collect();
    for (name, _) in CONTRACT {
        assert!(seen.contains(&name), "nothing breaks {name}");
    }
}
