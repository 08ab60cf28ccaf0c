//! Store contract: what every [`Store`] promises, as one list of functions over `&dyn Store`, and
//! every store held to all of them.
//!
//! A promise is about what any caller can see. What is true of files alone is in
//! `retention::expiry` and `tests/system/faults.rs`; `flaws` shows which promise a broken store
//! fails.
//!
//! Over 500 lines: one function for each promise of the trait.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::StreamExt;
use threema_safe_server::backup::BackupId;
use threema_safe_server::store::{
    Contents, FileStore, Meta, Put, Restored, Store, TrashKind, Trashed, Upload,
};
use tokio::runtime::Builder;

use crate::store::at_once::{
    a_caller_that_goes_away_leaves_one_whole_version,
    a_restore_beside_an_erasure_is_before_or_too_late,
    a_restore_beside_an_upload_never_wins_over_it,
    an_upload_beside_a_removal_comes_before_or_after_it, an_upload_beside_an_expiry_is_kept,
    of_removals_at_once_one_removes, of_restores_at_once_one_restores,
    readers_beside_writers_get_whole_versions,
    uploads_at_once_leave_one_whole_version_and_one_of_them_is_the_first,
};
use crate::store::overwritten::{
    a_kept_version_is_exchanged_with_the_backup_and_back,
    a_kept_version_is_restored_as_a_removed_one_is,
    a_replaced_version_is_kept_where_the_change_looks_wrong,
    a_version_that_is_passed_over_is_rolled_back, an_upload_beside_a_roll_back_is_never_lost,
    overwrites_at_once_keep_what_they_replace, what_is_kept_is_bounded_and_the_oldest_stays,
    what_was_uploaded_properly_since_is_rolled_back_by_force_alone,
};
use crate::support::stores::{FaultyStore, MemoryStore, upload};
use crate::support::wire::soon;
use crate::support::{names, now};

/// What a store is held to. It begins empty.
pub(crate) type Promise = for<'a> fn(&'a dyn Store) -> BoxFuture<'a, ()>;

/// Hands all promises to a macro, after what comes first: no store can miss one. One that is not in
/// this list is dead code, and that is an error.
macro_rules! every_promise {
    ($then:ident $(, $first:ident)*) => {
        $then! { [$($first),*]
            nothing_is_known_of_an_id_under_which_nothing_was_stored,
            what_is_stored_is_read_back_and_the_first_upload_is_told_from_later_ones,
            every_upload_has_a_version_of_its_own,
            an_upload_has_the_time_that_the_caller_gives,
            bodies_of_any_length_are_kept_to_the_byte,
            all_ids_are_alike,
            a_listing_has_every_backup_once,
            what_vanishes_while_it_is_listed_is_left_out,
            what_is_removed_is_in_the_trash,
            removed_twice_in_a_second_both_are_in_the_trash,
            a_backup_as_old_as_is_allowed_stays_and_one_nanosecond_older_expires,
            a_renewed_backup_does_not_expire,
            a_restored_backup_is_as_if_it_had_been_uploaded_then,
            a_restore_never_overwrites,
            of_two_versions_in_the_trash_the_one_that_is_meant_is_restored,
            one_version_alone_is_erased_from_the_trash,
            what_was_stored_is_found_sound_and_left_alone,
            uploads_at_once_leave_one_whole_version_and_one_of_them_is_the_first,
            readers_beside_writers_get_whole_versions,
            an_upload_beside_an_expiry_is_kept,
            an_upload_beside_a_removal_comes_before_or_after_it,
            of_removals_at_once_one_removes,
            a_restore_beside_an_upload_never_wins_over_it,
            of_restores_at_once_one_restores,
            a_restore_beside_an_erasure_is_before_or_too_late,
            a_caller_that_goes_away_leaves_one_whole_version,
            a_replaced_version_is_kept_where_the_change_looks_wrong,
            what_is_kept_is_bounded_and_the_oldest_stays,
            a_kept_version_is_exchanged_with_the_backup_and_back,
            what_was_uploaded_properly_since_is_rolled_back_by_force_alone,
            a_kept_version_is_restored_as_a_removed_one_is,
            a_version_that_is_passed_over_is_rolled_back,
            overwrites_at_once_keep_what_they_replace,
            an_upload_beside_a_roll_back_is_never_lost,
        }
    };
}

macro_rules! contract {
    ([] $($promise:ident,)*) => {
        /// The whole contract, each promise with its name.
        pub(crate) const CONTRACT: &[(&str, Promise)] =
            &[$((stringify!($promise), |store| Box::pin($promise(store)))),*];
    };
}

/// A module of tests that hold a store to the contract.
macro_rules! held_to_it {
    ([$backend:ident] $($promise:ident,)*) => {
        mod $backend {
            $(
                #[test]
                fn $promise() {
                    super::$backend(|store| Box::pin(super::$promise(store)));
                }
            )*
        }
    };
}

every_promise!(contract);
every_promise!(held_to_it, files);
every_promise!(held_to_it, memory);
every_promise!(held_to_it, a_double_in_which_nothing_fails);

fn files(promise: Promise) {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();

    hold_to(promise, &store);

    // Operations whose caller went away are done now, too.
    assert!(names(&folder.path().join("tmp")).is_empty());
}

fn memory(promise: Promise) {
    hold_to(promise, &MemoryStore::default());
}

fn a_double_in_which_nothing_fails(promise: Promise) {
    hold_to(promise, &FaultyStore::over(MemoryStore::default()));
}

/// Panics if an empty store does not keep the promise. Waits for what it has begun.
pub(crate) fn hold_to(promise: Promise, store: &dyn Store) {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { soon(promise(store)).await });
    drop(runtime);
}

/// A time long before any upload of these tests, with a part of a second.
pub(crate) fn long_ago() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789)
}

const NANOSECOND: Duration = Duration::from_nanos(1);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An id of these tests.
pub(crate) fn id(number: u8) -> BackupId {
    BackupId::from_bytes([number; 32])
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Bytes of which no piece is like another, and no two seeds give the same.
pub(crate) fn body(seed: u8, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 8);
    for at in 0.. {
        if bytes.len() >= length {
            break;
        }
        let word = u64::wrapping_mul(at << 8 | u64::from(seed), 0x9e37_79b9_7f4a_7c15);
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

pub(crate) async fn put(store: &dyn Store, id: BackupId, body: impl Into<Bytes>) -> Put {
    store.put(id, upload(body)).await.unwrap()
}

/// The backup, after making sure that all ways to look at it agree.
pub(crate) async fn read(store: &dyn Store, id: BackupId) -> Option<(Meta, Bytes)> {
    let found = store.get(id).await.unwrap();
    let seen = store.stat(id).await.unwrap();
    assert_eq!(seen, found.as_ref().map(|(meta, _)| *meta));
    if let Some((meta, body)) = &found {
        assert_eq!(meta.length, body.len() as u64);
    }
    found
}

pub(crate) async fn bytes(store: &dyn Store, id: BackupId) -> Option<Bytes> {
    store.get(id).await.unwrap().map(|(_, body)| body)
}

async fn meta(store: &dyn Store, id: BackupId) -> Meta {
    store.stat(id).await.unwrap().unwrap()
}

/// All backups in order, after making sure that none is listed twice.
pub(crate) async fn listed(store: &dyn Store) -> Vec<(BackupId, Meta)> {
    let mut all: Vec<_> = store.list().map(Result::unwrap).collect().await;
    all.sort_by_key(|(id, _)| *id);
    assert!(all.windows(2).all(|two| two[0].0 != two[1].0));
    all
}

/// What is in the trash of a backup, the oldest removal first.
pub(crate) async fn trash_of(store: &dyn Store, id: BackupId) -> Vec<Trashed> {
    let mut all: Vec<_> = store.list_trash().map(Result::unwrap).collect().await;
    all.retain(|trashed| trashed.id == id);
    all.sort_by_key(|trashed| trashed.removed_at);
    all
}

/// The bytes of what is in the trash of a backup, the oldest removal first. There must be no backup
/// in its place.
pub(crate) async fn trashed_bytes(store: &dyn Store, id: BackupId) -> Vec<Bytes> {
    let mut all = Vec::new();
    for trashed in trash_of(store, id).await {
        let back = store.restore(trashed, long_ago()).await.unwrap();
        assert_eq!(back, Restored::Back);
        all.push(bytes(store, id).await.unwrap());
        let removed_at = UNIX_EPOCH + Duration::from_secs(trashed.removed_at);
        assert!(store.remove(id, removed_at).await.unwrap());
    }
    all
}

/// Puts a backup there as if it had been uploaded at `last_upload`.
pub(crate) async fn put_at(
    store: &dyn Store,
    id: BackupId,
    body: impl Into<Bytes>,
    last_upload: SystemTime,
) {
    let trashed = put_into_trash(store, id, body, long_ago()).await;
    let back = store.restore(trashed, last_upload).await.unwrap();
    assert_eq!(back, Restored::Back);
}

/// Uploads and removes a backup; it is then the latest of its id in the trash.
pub(crate) async fn put_into_trash(
    store: &dyn Store,
    id: BackupId,
    body: impl Into<Bytes>,
    removed: SystemTime,
) -> Trashed {
    let before = trash_of(store, id).await;
    assert_eq!(put(store, id, body).await, Put::Created);
    assert!(store.remove(id, removed).await.unwrap());
    let mut after = trash_of(store, id).await;
    after.retain(|trashed| !before.contains(trashed));
    assert_eq!(after.len(), 1, "it is in the trash");
    after[0]
}

async fn nothing_is_known_of_an_id_under_which_nothing_was_stored(store: &dyn Store) {
    let other = put_into_trash(store, id(2), "removed", long_ago()).await;
    put(store, id(1), "another backup").await;
    let missing = id(3);
    let no_trash = Trashed {
        id: missing,
        ..other
    };

    assert!(read(store, missing).await.is_none());
    assert!(store.verify(missing).await.unwrap().is_none());
    assert!(!store.remove(missing, long_ago()).await.unwrap());
    let expired = store.expire(missing, long_ago() + DAY, long_ago());
    assert!(!expired.await.unwrap());
    let restored = store.restore(no_trash, long_ago()).await.unwrap();
    assert_eq!(restored, Restored::Gone);
    assert!(!store.erase_trashed(no_trash).await.unwrap());
    let at_another_time = Trashed {
        removed_at: other.removed_at + 1,
        ..other
    };
    let restored = store.restore(at_another_time, long_ago()).await.unwrap();
    assert_eq!(restored, Restored::Gone);
    assert!(!store.erase_trashed(at_another_time).await.unwrap());

    // Asking leaves nothing, and touches nothing.
    let ids: Vec<_> = listed(store).await.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [id(1)]);
    assert_eq!(bytes(store, id(1)).await.unwrap(), "another backup");
    assert_eq!(trash_of(store, id(2)).await, [other]);
    assert!(trash_of(store, missing).await.is_empty());
}

async fn what_is_stored_is_read_back_and_the_first_upload_is_told_from_later_ones(
    store: &dyn Store,
) {
    assert!(listed(store).await.is_empty());
    assert_eq!(put(store, id(1), "first").await, Put::Created);
    let first = read(store, id(1)).await.unwrap();
    assert_eq!(put(store, id(1), "the second").await, Put::Replaced);
    let second = read(store, id(1)).await.unwrap();

    assert_eq!((&*first.1, &*second.1), (&b"first"[..], &b"the second"[..]));
    assert!(first.0.last_upload > long_ago() && second.0.last_upload >= first.0.last_upload);
    assert_eq!(listed(store).await, [(id(1), second.0)]);
    assert_eq!(
        store.list_trash().count().await,
        0,
        "what is replaced is gone"
    );
    assert!(store.remove(id(1), long_ago()).await.unwrap());
    assert_eq!(put(store, id(1), "third").await, Put::Created);
    assert_eq!(put(store, id(2), "another").await, Put::Created);
    assert_eq!(bytes(store, id(1)).await.unwrap(), "third");
}

async fn every_upload_has_a_version_of_its_own(store: &dyn Store) {
    let mut versions = Vec::new();
    for body in [
        "the same",
        "the same",
        "other",
        "the same",
        "longer than it",
    ] {
        put(store, id(1), body).await;
        let version = meta(store, id(1)).await.version;
        assert_eq!(
            meta(store, id(1)).await.version,
            version,
            "it stays the same"
        );
        assert_eq!(listed(store).await[0].1.version, version);
        versions.push(version);
    }

    for (at, version) in versions.iter().enumerate() {
        assert!(!versions[..at].contains(version), "{at}: {versions:?}");
    }
}

async fn an_upload_has_the_time_that_the_caller_gives(store: &dyn Store) {
    for at in [long_ago(), now() + DAY, long_ago() + DAY] {
        store.put(id(1), Upload::new(body(1, 9), at)).await.unwrap();
        assert_eq!(meta(store, id(1)).await.last_upload, at);
        assert_eq!(listed(store).await[0].1.last_upload, at);
    }
}

async fn bodies_of_any_length_are_kept_to_the_byte(store: &dyn Store) {
    let lengths = [
        0,
        1,
        4_095,
        4_096,
        4_097,
        65_536,
        524_288,
        524_289,
        (8 << 20) + 1,
    ];
    for length in lengths {
        let sent = body(1, length);
        put(store, id(1), sent.clone()).await;

        let (_, found) = read(store, id(1)).await.unwrap();
        assert!(found == sent, "{length}: {} bytes are there", found.len());
        let verified = store.verify(id(1)).await.unwrap().unwrap();
        assert_eq!(verified.length, length as u64);
    }
    // Also one that is much shorter than the one before it.
    put(store, id(1), "short").await;
    assert_eq!(bytes(store, id(1)).await.unwrap(), "short");
}

async fn all_ids_are_alike(store: &dyn Store) {
    let mut ids = vec![[0; 32], [255; 32], *b"../../../../../../../etc/passwd\0"];
    ids.extend([*b"a/b\\c:d*e?f\"g<h>i|j\r\n %00.tmp\0\0\0", [b'.'; 32]]);
    // Neighbours, at both ends.
    for (at, byte) in [(0, 1), (0, 128), (31, 1), (31, 128)] {
        let mut neighbour = [0; 32];
        neighbour[at] = byte;
        ids.push(neighbour);
    }
    let ids: BTreeSet<_> = ids.into_iter().map(BackupId::from_bytes).collect();
    for (id, number) in ids.iter().zip(0..) {
        assert_eq!(put(store, *id, body(number, 100)).await, Put::Created);
    }

    let found: BTreeSet<_> = listed(store).await.iter().map(|(id, _)| *id).collect();
    assert_eq!(found, ids);
    for (id, number) in ids.iter().zip(0..) {
        assert!(bytes(store, *id).await.unwrap() == body(number, 100));
        assert!(store.remove(*id, long_ago()).await.unwrap());
        assert!(bytes(store, *id).await.is_none());
        let left = listed(store).await.len();
        assert_eq!(left, ids.len() - 1 - usize::from(number));
    }
    for (id, number) in ids.iter().zip(0..) {
        let trashed = trash_of(store, *id).await;
        assert_eq!(trashed.len(), 1);
        let back = store.restore(trashed[0], long_ago()).await.unwrap();
        assert_eq!(back, Restored::Back);
        assert!(bytes(store, *id).await.unwrap() == body(number, 100));
    }
}

/// More than a store may read at once.
fn many_ids() -> Vec<BackupId> {
    let id = |number: u16| {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        BackupId::from_bytes(bytes)
    };
    (0..300).map(id).collect()
}

async fn a_listing_has_every_backup_once(store: &dyn Store) {
    let ids = many_ids();
    assert!(listed(store).await.is_empty());
    join_all(ids.iter().map(|id| put(store, *id, "backup"))).await;

    let all = listed(store).await;
    assert_eq!(all.len(), ids.len());
    for ((listed, seen), id) in all.into_iter().zip(&ids) {
        assert_eq!((listed, seen), (*id, meta(store, *id).await));
    }

    let removals = ids.iter().map(|id| store.remove(*id, long_ago()));
    assert!(join_all(removals).await.into_iter().all(Result::unwrap));
    assert!(listed(store).await.is_empty());
    let trash: BTreeSet<_> = store
        .list_trash()
        .map(|trashed| trashed.unwrap().id)
        .collect()
        .await;
    assert!(trash.into_iter().eq(ids));
}

async fn what_vanishes_while_it_is_listed_is_left_out(store: &dyn Store) {
    let ids = many_ids();
    join_all(ids.iter().map(|id| put(store, *id, "backup"))).await;
    let mut backups = store.list();
    let first = backups.next().await.unwrap().unwrap();

    let removals = ids.iter().map(|id| store.remove(*id, long_ago()));
    join_all(removals).await;
    let mut trash = store.list_trash();
    let first_trashed = trash.next().await.unwrap().unwrap();
    let rest: Vec<_> = backups.map(Result::unwrap).collect().await;
    let all: Vec<_> = store.list_trash().map(Result::unwrap).collect().await;
    let erasures = all.iter().map(|trashed| store.erase_trashed(*trashed));
    join_all(erasures).await;
    let rest_of_trash: Vec<_> = trash.map(Result::unwrap).collect().await;

    // Which of them were seen in time is not said.
    let listed = rest.into_iter().chain([first]).map(|(id, _)| id);
    let seen: Vec<_> = listed.collect();
    assert!(seen.iter().all(|id| ids.contains(id)));
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
    let mut trashed = rest_of_trash.into_iter().chain([first_trashed]);
    assert!(trashed.all(|trashed| ids.contains(&trashed.id)));
    assert_eq!(store.list_trash().count().await, 0);
}

async fn what_is_removed_is_in_the_trash(store: &dyn Store) {
    put(store, id(1), "removed").await;
    put(store, id(2), "stays").await;
    let before = meta(store, id(1)).await;
    let removed = long_ago() + DAY;

    assert!(store.remove(id(1), removed).await.unwrap());

    assert!(read(store, id(1)).await.is_none());
    assert!(!store.remove(id(1), removed).await.unwrap());
    assert_eq!(bytes(store, id(2)).await.unwrap(), "stays");
    let expected = Trashed {
        id: id(1),
        kind: TrashKind::Removed,
        removed_at: unix(removed),
        length: before.length,
        last_upload: before.last_upload,
    };
    assert_eq!(trash_of(store, id(1)).await, [expected]);
    assert_eq!(trashed_bytes(store, id(1)).await, ["removed"]);
    assert_eq!(store.list_trash().count().await, 1);
}

async fn removed_twice_in_a_second_both_are_in_the_trash(store: &dyn Store) {
    for body in ["first", "second", "third"] {
        put(store, id(1), body).await;
        assert!(store.remove(id(1), long_ago()).await.unwrap());
    }

    let trashed = trash_of(store, id(1)).await;
    assert_eq!(trashed[0].removed_at, unix(long_ago()));
    assert_eq!(
        trashed_bytes(store, id(1)).await,
        ["first", "second", "third"]
    );
    put_at(store, id(1), "expired", long_ago()).await;
    let expired = store
        .expire(id(1), long_ago() + DAY, long_ago())
        .await
        .unwrap();
    assert!(expired);
    let all = trashed_bytes(store, id(1)).await;
    assert_eq!(all, ["first", "second", "third", "expired"]);
}

async fn a_backup_as_old_as_is_allowed_stays_and_one_nanosecond_older_expires(store: &dyn Store) {
    put_at(store, id(1), "old", long_ago()).await;
    let now = long_ago() + DAY;
    let second = Duration::from_secs(1);

    for not_before in [
        UNIX_EPOCH,
        long_ago() - second,
        long_ago() - NANOSECOND,
        long_ago(),
    ] {
        assert!(!store.expire(id(1), not_before, now).await.unwrap());
        assert_eq!(meta(store, id(1)).await.last_upload, long_ago());
        assert!(trash_of(store, id(1)).await.is_empty());
    }
    assert!(
        store
            .expire(id(1), long_ago() + NANOSECOND, now)
            .await
            .unwrap()
    );

    assert!(read(store, id(1)).await.is_none());
    let trashed = trash_of(store, id(1)).await;
    assert_eq!(trashed.len(), 1);
    assert_eq!(trashed[0].removed_at, unix(now));
    assert_eq!(trashed[0].last_upload, long_ago());
    assert!(
        !store
            .expire(id(1), long_ago() + NANOSECOND, now)
            .await
            .unwrap()
    );
    assert_eq!(trashed_bytes(store, id(1)).await, ["old"]);
}

async fn a_renewed_backup_does_not_expire(store: &dyn Store) {
    for renewed_as in ["old", "another"] {
        put_at(store, id(1), "old", long_ago()).await;
        let mut backups = store.list();
        let seen = backups.next().await.unwrap().unwrap().1.last_upload;
        assert_eq!(seen, long_ago());

        assert_eq!(put(store, id(1), renewed_as).await, Put::Replaced);
        let expired = store.expire(id(1), seen + DAY, seen + DAY).await.unwrap();

        assert!(!expired);
        assert_eq!(bytes(store, id(1)).await.unwrap(), renewed_as);
        assert!(trash_of(store, id(1)).await.is_empty());
        assert!(store.remove(id(1), long_ago()).await.unwrap());
        let trashed = trash_of(store, id(1)).await[0];
        assert!(store.erase_trashed(trashed).await.unwrap());
    }
}

async fn a_restored_backup_is_as_if_it_had_been_uploaded_then(store: &dyn Store) {
    put(store, id(1), "backup").await;
    let uploaded = meta(store, id(1)).await;
    assert!(store.remove(id(1), long_ago()).await.unwrap());
    let trashed = trash_of(store, id(1)).await[0];

    let restored = store.restore(trashed, long_ago() + DAY).await.unwrap();

    assert_eq!(restored, Restored::Back);
    let (found, body) = read(store, id(1)).await.unwrap();
    assert_eq!(body, "backup");
    assert_eq!(found.last_upload, long_ago() + DAY);
    assert_ne!(found.version, uploaded.version);
    assert_eq!(listed(store).await, [(id(1), found)]);
    assert_eq!(store.list_trash().count().await, 0);
    let again = store.restore(trashed, long_ago() + DAY).await.unwrap();
    assert_eq!(again, Restored::Gone);
    assert_eq!(put(store, id(1), "next").await, Put::Replaced);
}

async fn a_restore_never_overwrites(store: &dyn Store) {
    let trashed = put_into_trash(store, id(1), "removed", long_ago()).await;
    put(store, id(1), "newer").await;
    let newer = read(store, id(1)).await;

    for now in [long_ago(), long_ago() + DAY * 20_000] {
        let restored = store.restore(trashed, now).await.unwrap();
        assert_eq!(restored, Restored::Newer);
    }

    assert_eq!(read(store, id(1)).await, newer);
    assert_eq!(trash_of(store, id(1)).await, [trashed], "it is untouched");
    // Newer is whatever was stored later, also if its time does not show it.
    assert!(store.remove(id(1), long_ago() + DAY).await.unwrap());
    put_at(store, id(1), "with an old time", UNIX_EPOCH).await;
    let restored = store.restore(trashed, long_ago()).await.unwrap();
    assert_eq!(restored, Restored::Newer);
    assert_eq!(bytes(store, id(1)).await.unwrap(), "with an old time");
}

async fn of_two_versions_in_the_trash_the_one_that_is_meant_is_restored(store: &dyn Store) {
    let first = put_into_trash(store, id(1), "first", long_ago()).await;
    let second = put_into_trash(store, id(1), "the second", long_ago() + DAY).await;

    for (meant, other, text) in [(second, first, "the second"), (first, second, "first")] {
        let restored = store.restore(meant, long_ago()).await.unwrap();
        assert_eq!(restored, Restored::Back);
        assert_eq!(bytes(store, id(1)).await.unwrap(), text);
        assert_eq!(trash_of(store, id(1)).await.len(), 1);
        let restored = store.restore(other, long_ago()).await.unwrap();
        assert_eq!(restored, Restored::Newer);
        assert_eq!(bytes(store, id(1)).await.unwrap(), text);
        let removed = UNIX_EPOCH + Duration::from_secs(meant.removed_at);
        assert!(store.remove(id(1), removed).await.unwrap());
    }
}

async fn one_version_alone_is_erased_from_the_trash(store: &dyn Store) {
    let first = put_into_trash(store, id(1), "first", long_ago()).await;
    let second = put_into_trash(store, id(1), "second", long_ago() + DAY).await;
    let other = put_into_trash(store, id(2), "another", long_ago()).await;
    put(store, id(1), "in its place").await;

    assert!(store.erase_trashed(first).await.unwrap());

    assert!(!store.erase_trashed(first).await.unwrap());
    assert_eq!(trash_of(store, id(1)).await, [second]);
    assert_eq!(trash_of(store, id(2)).await, [other]);
    assert_eq!(bytes(store, id(1)).await.unwrap(), "in its place");
    let restored = store.restore(first, long_ago()).await.unwrap();
    assert_eq!(restored, Restored::Gone);
    assert!(store.erase_trashed(second).await.unwrap());
    assert!(store.erase_trashed(other).await.unwrap());
    assert_eq!(store.list_trash().count().await, 0);
    assert_eq!(bytes(store, id(1)).await.unwrap(), "in its place");
}

async fn what_was_stored_is_found_sound_and_left_alone(store: &dyn Store) {
    let sound = async |length: u64| {
        let before = read(store, id(1)).await;
        for _ in 0..2 {
            let verified = store.verify(id(1)).await.unwrap().unwrap();
            assert_eq!(verified.length, length);
            assert_ne!(verified.contents, Contents::Changed);
        }
        assert_eq!(read(store, id(1)).await, before);
    };
    put(store, id(1), "first").await;
    sound(5).await;
    put(store, id(1), "after").await;
    sound(5).await;
    put(store, id(1), "of another length").await;
    sound(17).await;

    assert!(store.remove(id(1), long_ago()).await.unwrap());
    assert!(store.verify(id(1)).await.unwrap().is_none());
    let trashed = trash_of(store, id(1)).await[0];
    store.restore(trashed, long_ago() + DAY).await.unwrap();
    sound(17).await;
}
