//! Store contract, concurrent part: operations that begin at once, or whose caller goes away. Which
//! of them comes first is open here; `races` forces it.

use std::pin::pin;
use std::task::Poll;

use futures_util::future::{join, join_all, poll_fn};
use threema_safe_server::store::{Put, Restored, Store};
use tokio::task::yield_now;

use crate::store::contract::{
    DAY, body, bytes, id, listed, long_ago, put, put_at, put_into_trash, read, trash_of,
    trashed_bytes,
};
use crate::support::stores::upload;

/// How often two operations begin at once.
const ROUNDS: u8 = 16;

pub(crate) async fn uploads_at_once_leave_one_whole_version_and_one_of_them_is_the_first(
    store: &dyn Store,
) {
    let uploads = (0..32).map(|seed| put(store, id(1), body(seed, 10_000 + usize::from(seed))));

    let ends = join_all(uploads).await;

    let created = ends.iter().filter(|put| **put == Put::Created).count();
    assert_eq!(created, 1);
    let (_, found) = read(store, id(1)).await.unwrap();
    assert!((0..32).any(|seed| found == body(seed, 10_000 + usize::from(seed))));
    assert_eq!(listed(store).await.len(), 1);
}

pub(crate) async fn readers_beside_writers_get_whole_versions(store: &dyn Store) {
    let bodies: Vec<_> = (0..64)
        .map(|seed| body(seed, 10_000 + usize::from(seed)))
        .collect();
    put(store, id(1), bodies[0].clone()).await;
    let work = async |seed: u8| match seed % 4 {
        1 => drop(store.remove(id(1), long_ago()).await.unwrap()),
        2 => {
            let trashed = trash_of(store, id(1)).await;
            if let Some(last) = trashed.last() {
                store.restore(*last, long_ago()).await.unwrap();
            }
        }
        _ => drop(put(store, id(1), body(seed, 10_000 + usize::from(seed))).await),
    };
    let look = async |_: u8| {
        for _ in 0..4 {
            if let Some((meta, found)) = store.get(id(1)).await.unwrap() {
                assert_eq!(meta.length, found.len() as u64);
                assert!(bodies.contains(&found), "torn: {} bytes", found.len());
            }
            yield_now().await;
        }
    };

    join(join_all((0..64).map(work)), join_all((0..64).map(look))).await;
}

pub(crate) async fn an_upload_beside_an_expiry_is_kept(store: &dyn Store) {
    for round in 0..ROUNDS {
        let id = id(round);
        put_at(store, id, "old", long_ago()).await;

        let uploaded = put(store, id, "new");
        let expired = store.expire(id, long_ago() + DAY, long_ago() + DAY);
        let (put, expired) = if round % 2 == 0 {
            join(uploaded, expired).await
        } else {
            let (expired, put) = join(expired, uploaded).await;
            (put, expired)
        };

        assert_eq!(bytes(store, id).await.unwrap(), "new");
        let expired = expired.unwrap();
        assert_eq!(put == Put::Created, expired);
        assert_eq!(trash_of(store, id).await.len(), usize::from(expired));
    }
}

pub(crate) async fn an_upload_beside_a_removal_comes_before_or_after_it(store: &dyn Store) {
    for round in 0..ROUNDS {
        let id = id(round);
        put(store, id, "old").await;

        let uploaded = put(store, id, "new");
        let removed = store.remove(id, long_ago());
        let (put, removed) = if round % 2 == 0 {
            join(uploaded, removed).await
        } else {
            let (removed, put) = join(removed, uploaded).await;
            (put, removed)
        };

        assert!(removed.unwrap());
        let left = bytes(store, id).await;
        match put {
            Put::Replaced | Put::Suspicious(_) => assert!(left.is_none()),
            Put::Created => {
                assert_eq!(left.unwrap(), "new");
                assert!(store.remove(id, long_ago() + DAY).await.unwrap());
            }
        }
        let expected: &[&str] = match put {
            Put::Replaced | Put::Suspicious(_) => &["new"],
            Put::Created => &["old", "new"],
        };
        assert_eq!(trashed_bytes(store, id).await, expected);
    }
}

pub(crate) async fn of_removals_at_once_one_removes(store: &dyn Store) {
    for round in 0..ROUNDS {
        let id = id(round);
        put_at(store, id, "old", long_ago()).await;

        let removals = (0..2).map(|_| store.remove(id, long_ago()));
        let expiries = (0..2).map(|_| store.expire(id, long_ago() + DAY, long_ago()));
        let ends = join_all(removals.chain(expiries)).await;

        let removed = ends.into_iter().filter(|end| *end.as_ref().unwrap());
        assert_eq!(removed.count(), 1);
        assert!(bytes(store, id).await.is_none());
        assert_eq!(trashed_bytes(store, id).await, ["old"]);
    }
}

pub(crate) async fn a_restore_beside_an_upload_never_wins_over_it(store: &dyn Store) {
    for round in 0..ROUNDS {
        let id = id(round);
        let trashed = put_into_trash(store, id, "removed", long_ago()).await;

        let restored = store.restore(trashed, long_ago() + DAY);
        let uploaded = put(store, id, "new");
        let (restored, put) = if round % 2 == 0 {
            join(restored, uploaded).await
        } else {
            let (put, restored) = join(uploaded, restored).await;
            (restored, put)
        };

        assert_eq!(bytes(store, id).await.unwrap(), "new");
        match restored.unwrap() {
            Restored::Back => {
                assert_eq!(put, Put::Replaced);
                assert!(trash_of(store, id).await.is_empty());
            }
            Restored::Newer => {
                assert_eq!(put, Put::Created);
                assert_eq!(trash_of(store, id).await, [trashed]);
            }
            Restored::Gone => panic!("it was there"),
        }
    }
}

pub(crate) async fn of_restores_at_once_one_restores(store: &dyn Store) {
    for round in 0..ROUNDS {
        let id = id(round);
        let first = put_into_trash(store, id, "first", long_ago()).await;
        let second = put_into_trash(store, id, "second", long_ago() + DAY).await;

        let restores =
            [first, first, second, second].map(|trashed| store.restore(trashed, long_ago()));
        let ends = join_all(restores).await;

        let back: Vec<_> = ends
            .iter()
            .map(|end| *end.as_ref().unwrap() == Restored::Back)
            .collect();
        assert_eq!(back.iter().filter(|back| **back).count(), 1);
        let (left, text) = if back[0] || back[1] {
            (second, "first")
        } else {
            (first, "second")
        };
        assert_eq!(bytes(store, id).await.unwrap(), text);
        assert_eq!(trash_of(store, id).await, [left]);
    }
}

pub(crate) async fn a_restore_beside_an_erasure_is_before_or_too_late(store: &dyn Store) {
    for round in 0..ROUNDS {
        let id = id(round);
        let trashed = put_into_trash(store, id, "removed", long_ago()).await;

        let restored = store.restore(trashed, long_ago());
        let erased = store.erase_trashed(trashed);
        let (restored, erased) = if round % 2 == 0 {
            join(restored, erased).await
        } else {
            let (erased, restored) = join(erased, restored).await;
            (restored, erased)
        };

        let is_back = match restored.unwrap() {
            Restored::Back => true,
            Restored::Gone => false,
            Restored::Newer => panic!("nothing is in its place"),
        };
        assert_eq!(erased.unwrap(), !is_back);
        assert_eq!(bytes(store, id).await.is_some(), is_back);
        assert!(trash_of(store, id).await.is_empty());
    }
}

/// The caller may drop the operation at any moment: after each, the backup is there in one whole
/// version, or in the trash.
pub(crate) async fn a_caller_that_goes_away_leaves_one_whole_version(store: &dyn Store) {
    for polls in 0..4_u8 {
        for operation in 0..4 {
            let id = id(polls * 4 + operation);
            put_at(store, id, body(0, 1_000), long_ago()).await;
            let now = long_ago() + DAY;
            match operation {
                0 => drop(go_away(polls, store.put(id, upload(body(1, 2_000)))).await),
                1 => drop(go_away(polls, store.remove(id, now)).await),
                2 => drop(go_away(polls, store.expire(id, now, now)).await),
                _ => {
                    assert!(store.remove(id, now).await.unwrap());
                    let trashed = trash_of(store, id).await[0];
                    drop(go_away(polls, store.restore(trashed, now)).await);
                }
            }
            for _ in 0..16 {
                let found = bytes(store, id).await;
                let is_new = found.as_ref().is_some_and(|found| *found == body(1, 2_000));
                let is_old = found.as_ref().is_some_and(|found| *found == body(0, 1_000));
                match operation {
                    0 => assert!(is_old || is_new, "{polls}: {found:?}"),
                    // One of these two looks sees a restore that comes in between.
                    _ if found.is_none() => {
                        let trashed = trash_of(store, id).await;
                        let is_there = trashed.len() == 1 || bytes(store, id).await.is_some();
                        assert!(is_there, "{polls} {operation}: it is nowhere");
                    }
                    _ => assert!(is_old, "{polls} {operation}: {found:?}"),
                }
            }
        }
    }
}

/// Waits for something no longer than so many times.
async fn go_away<T>(polls: u8, asked: impl Future<Output = T>) -> Option<T> {
    let mut asked = pin!(asked);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(asked.as_mut().poll(context))).await;
        if let Poll::Ready(done) = polled {
            return Some(done);
        }
        yield_now().await;
    }
    None
}
