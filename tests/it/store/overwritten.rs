//! Store contract, part about overwrites: which replaced versions are kept in the trash, and how
//! they come back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::{join, join_all};
use threema_safe_server::backup::BackupId;
use threema_safe_server::store::{
    KeepReplaced, Previous, Put, Restored, Store, TrashKind, Trashed, Upload, Uploader,
};

use crate::store::contract::{DAY, body, bytes, id, listed, long_ago, put, read, trash_of};

/// What the store keeps of what these tests upload.
const KEEP: KeepReplaced = KeepReplaced {
    every: false,
    room: u64::MAX,
    min_free: 0,
};

/// The time of the `n`th upload.
fn at(n: u32) -> SystemTime {
    long_ago() + DAY * n
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn by(id: BackupId, account: &str) -> Option<Uploader> {
    Some(Uploader::of(id, Some(account)))
}

fn suspicious(length: u64) -> Put {
    Put::Suspicious(Previous::InTrash(length))
}

/// Uploads as an account.
async fn put_by(
    store: &dyn Store,
    id: BackupId,
    account: &str,
    body: Bytes,
    at: SystemTime,
) -> Put {
    let upload = Upload {
        uploader: by(id, account),
        keep: Some(KEEP),
        ..Upload::new(body, at)
    };
    store.put(id, upload).await.unwrap()
}

/// What becomes of `first` when `second` is uploaded over it, each with its uploader.
async fn replaced(
    store: &dyn Store,
    id: BackupId,
    (first, before): (Bytes, Option<Uploader>),
    (second, now): (Bytes, Option<Uploader>),
    keep: Option<KeepReplaced>,
) -> Put {
    let upload = |body, uploader, at| Upload {
        uploader,
        keep,
        ..Upload::new(body, at)
    };
    let created = store.put(id, upload(first, before, at(1))).await.unwrap();
    assert_eq!(created, Put::Created);
    store.put(id, upload(second, now, at(2))).await.unwrap()
}

/// A backup of 1,000 bytes by `phones`, and one that `other` put in its place.
async fn overwritten(store: &dyn Store, id: BackupId) -> Trashed {
    put_by(store, id, "phones", body(1, 1_000), at(1)).await;
    let put = put_by(store, id, "other", body(2, 1_000), at(2)).await;
    assert_eq!(put, suspicious(1_000));
    let kept = trash_of(store, id).await;
    assert_eq!(kept.len(), 1);
    kept[0]
}

pub(crate) async fn a_replaced_version_is_kept_where_the_change_looks_wrong(store: &dyn Store) {
    let every = Some(KeepReplaced {
        every: true,
        ..KEEP
    });
    for (number, (account, length, keep, is_kept)) in [
        (Some("phones"), 1_000, Some(KEEP), false),
        (Some("phones"), 500, Some(KEEP), false),
        (Some("phones"), 5_000, Some(KEEP), false),
        (None, 1_000, Some(KEEP), false),
        (Some("phones"), 499, None, false),
        (Some("other"), 1_000, None, false),
        (Some("phones"), 499, Some(KEEP), true),
        (None, 1, Some(KEEP), true),
        (Some("other"), 1_000, Some(KEEP), true),
        (Some("phones"), 1_000, every, true),
    ]
    .into_iter()
    .enumerate()
    {
        let id = id(u8::try_from(number).unwrap());
        let uploader = account.map(|name| Uploader::of(id, Some(name)));
        let first = (body(1, 1_000), by(id, "phones"));
        let second = (body(2, length), uploader);

        let put = replaced(store, id, first, second, keep).await;

        assert_eq!(bytes(store, id).await.unwrap(), body(2, length));
        let kept = trash_of(store, id).await;
        if !is_kept {
            assert_eq!((put, kept.len()), (Put::Replaced, 0), "{number}");
            continue;
        }
        assert_eq!(put, suspicious(1_000), "{number}");
        let expected = Trashed {
            id,
            kind: TrashKind::Replaced,
            removed_at: unix(at(2)),
            length: 1_000,
            last_upload: at(1),
        };
        assert_eq!(kept, [expected], "{number}");
        let back = store.roll_back(kept[0], at(3), true).await.unwrap();
        assert_eq!(back, Restored::Back);
        assert_eq!(bytes(store, id).await.unwrap(), body(1, 1_000));
    }
    // A version of which nobody knows the uploader.
    let (first, second) = ((body(1, 9), None), (body(2, 9), by(id(99), "phones")));
    let put = replaced(store, id(99), first, second, Some(KEEP)).await;
    assert_eq!(put, Put::Replaced);
}

pub(crate) async fn what_is_kept_is_bounded_and_the_oldest_stays(store: &dyn Store) {
    let room = |room| Some(KeepReplaced { room, ..KEEP });
    for (number, keep, put) in [
        (1, room(1_000), suspicious(1_000)),
        (2, room(999), Put::Suspicious(Previous::Lost)),
        (3, room(0), Put::Suspicious(Previous::Lost)),
    ] {
        let id = id(number);
        let (first, second) = ((body(1, 1_000), None), (body(2, 1), None));
        assert_eq!(replaced(store, id, first, second, keep).await, put);
        let kept = usize::from(put == suspicious(1_000));
        assert_eq!(trash_of(store, id).await.len(), kept, "{keep:?}");
        assert_eq!(bytes(store, id).await.unwrap(), body(2, 1));
    }

    let id = id(9);
    for n in 0..12_u8 {
        let account = ["phones", "other"][usize::from(n % 2)];
        // Several within one second, too.
        let time = at(1) + Duration::from_millis(300) * n.into();
        let put = put_by(store, id, account, body(n, 100), time).await;
        let expected = match n {
            0 => Put::Created,
            1..=3 => suspicious(100),
            _ => Put::Suspicious(Previous::Lost),
        };
        assert_eq!(put, expected, "{n}");
    }
    let kept = trash_of(store, id).await;
    assert_eq!(kept.len(), 3);
    for (kept, seed) in kept.into_iter().zip(0..) {
        let back = store.roll_back(kept, at(3), true).await.unwrap();
        assert_eq!(back, Restored::Back);
        assert_eq!(bytes(store, id).await.unwrap(), body(seed, 100));
    }
}

pub(crate) async fn a_kept_version_is_exchanged_with_the_backup_and_back(store: &dyn Store) {
    let kept = overwritten(store, id(1)).await;
    for forced in [false, true] {
        let id = id(2 + u8::from(forced));
        let kept = overwritten(store, id).await;
        let back = store.roll_back(kept, at(5), forced).await.unwrap();
        assert_eq!(back, Restored::Back);

        let (meta, found) = read(store, id).await.unwrap();
        assert_eq!((meta.last_upload, found), (at(5), body(1, 1_000)));
        let trash = trash_of(store, id).await;
        let expected = Trashed {
            kind: TrashKind::RolledBack,
            removed_at: unix(at(5)),
            last_upload: at(2),
            ..kept
        };
        assert_eq!(trash, [expected]);
        // What is no longer in the trash cannot be restored from it.
        let again = store.roll_back(kept, at(6), true).await.unwrap();
        assert_eq!(again, Restored::Gone);

        // And back.
        let back = store.roll_back(trash[0], at(6), true).await.unwrap();
        assert_eq!(back, Restored::Back);
        assert_eq!(bytes(store, id).await.unwrap(), body(2, 1_000));
        let trash = trash_of(store, id).await;
        assert_eq!((trash.len(), trash[0].last_upload), (1, at(5)));

        // The uploader is still known.
        store.roll_back(trash[0], at(7), true).await.unwrap();
        let put = put_by(store, id, "phones", body(3, 1_000), at(8)).await;
        assert_eq!(put, Put::Replaced);
        let put = put_by(store, id, "other", body(4, 1_000), at(9)).await;
        assert_eq!(put, suspicious(1_000));
    }
    // Nothing happened to another backup.
    assert_eq!(trash_of(store, id(1)).await, [kept]);
    assert_eq!(bytes(store, id(1)).await.unwrap(), body(2, 1_000));
    assert_eq!(listed(store).await.len(), 3);
}

pub(crate) async fn what_was_uploaded_properly_since_is_rolled_back_by_force_alone(
    store: &dyn Store,
) {
    for (number, (account, length, stays)) in [
        ("phones", 1_000, true),
        ("phones", 500, true),
        ("phones", 499, false),
        ("other", 1_000, false),
    ]
    .into_iter()
    .enumerate()
    {
        let id = id(u8::try_from(number).unwrap());
        let kept = overwritten(store, id).await;
        put_by(store, id, account, body(3, length), at(3)).await;
        let before = trash_of(store, id).await;

        let found = store.roll_back(kept, at(4), false).await.unwrap();

        if !stays {
            assert_eq!(found, Restored::Back, "{account} {length}");
            assert_eq!(bytes(store, id).await.unwrap(), body(1, 1_000));
            continue;
        }
        assert_eq!(found, Restored::Newer, "{account} {length}");
        assert_eq!(bytes(store, id).await.unwrap(), body(3, length));
        assert_eq!(trash_of(store, id).await, before);
        let forced = store.roll_back(kept, at(4), true).await.unwrap();
        assert_eq!(forced, Restored::Back);
        assert_eq!(bytes(store, id).await.unwrap(), body(1, 1_000));
    }
}

pub(crate) async fn a_kept_version_is_restored_as_a_removed_one_is(store: &dyn Store) {
    let kept = overwritten(store, id(1)).await;

    // Over a backup, only by rolling it back.
    let newer = store.restore(kept, at(3)).await.unwrap();
    assert_eq!(newer, Restored::Newer);
    assert_eq!(trash_of(store, id(1)).await, [kept]);
    assert_eq!(bytes(store, id(1)).await.unwrap(), body(2, 1_000));

    for by_rolling_back in [false, true] {
        let id = id(2 + u8::from(by_rolling_back));
        let kept = overwritten(store, id).await;
        assert!(store.remove(id, at(2)).await.unwrap());
        let restored = if by_rolling_back {
            store.roll_back(kept, at(3), false).await
        } else {
            store.restore(kept, at(3)).await
        };
        assert_eq!(restored.unwrap(), Restored::Back);
        let (meta, found) = read(store, id).await.unwrap();
        assert_eq!((meta.last_upload, found), (at(3), body(1, 1_000)));
        let trash = trash_of(store, id).await;
        assert_eq!((trash.len(), trash[0].kind), (1, TrashKind::Removed));
    }
    assert!(store.erase_trashed(kept).await.unwrap());
    assert!(trash_of(store, id(1)).await.is_empty());
    assert_eq!(bytes(store, id(1)).await.unwrap(), body(2, 1_000));
    put(store, id(1), "renewed").await;
    assert!(trash_of(store, id(1)).await.is_empty());
}

pub(crate) async fn a_version_that_is_passed_over_is_rolled_back(store: &dyn Store) {
    let first = overwritten(store, id(1)).await;
    put_by(store, id(1), "phones", body(3, 1_000), at(3)).await;
    let kept = trash_of(store, id(1)).await;
    let second = kept[1];
    let kind = TrashKind::RolledBack;
    let passed_over = Trashed { kind, ..second };

    // The second time, it is no longer there under its name.
    for _ in 0..2 {
        store.pass_over(second).await.unwrap();
        assert_eq!(trash_of(store, id(1)).await, [first, passed_over]);
    }
    assert_eq!(bytes(store, id(1)).await.unwrap(), body(3, 1_000));

    // It can still be restored by its name.
    let back = store.roll_back(passed_over, at(4), true).await.unwrap();
    assert_eq!(back, Restored::Back);
    assert_eq!(bytes(store, id(1)).await.unwrap(), body(2, 1_000));
}

pub(crate) async fn overwrites_at_once_keep_what_they_replace(store: &dyn Store) {
    for round in 0..16 {
        let id = id(round);
        put_by(store, id, "phones", body(0, 1_000), at(1)).await;
        let accounts = ["one", "two", "three"].into_iter().zip(1..);
        let uploads =
            accounts.map(|(account, seed)| put_by(store, id, account, body(seed, 1_000), at(2)));

        let puts = join_all(uploads).await;

        assert_eq!(puts, [suspicious(1_000); 3]);
        let mut found = vec![bytes(store, id).await.unwrap()];
        for kept in trash_of(store, id).await {
            assert_eq!(kept.kind, TrashKind::Replaced);
            store.roll_back(kept, at(3), true).await.unwrap();
            found.push(bytes(store, id).await.unwrap());
        }
        for seed in 0..4 {
            let version = body(seed, 1_000);
            let times = found.iter().filter(|found| **found == version).count();
            assert_eq!(times, 1, "version {seed} of round {round}");
        }
    }
}

pub(crate) async fn an_upload_beside_a_roll_back_is_never_lost(store: &dyn Store) {
    for round in 0..16 {
        let id = id(round);
        let kept = overwritten(store, id).await;

        let rolled_back = store.roll_back(kept, at(4), true);
        let uploaded = put_by(store, id, "phones", body(3, 1_000), at(4));
        let (rolled_back, _) = if round % 2 == 0 {
            join(rolled_back, uploaded).await
        } else {
            let (put, rolled_back) = join(uploaded, rolled_back).await;
            (rolled_back, put)
        };

        assert_eq!(rolled_back.unwrap(), Restored::Back);
        let present = bytes(store, id).await.unwrap();
        let last = trash_of(store, id).await;
        let last = last.iter().find(|kept| kept.kind == TrashKind::RolledBack);
        let last = *last.expect("what was there is in the trash");
        store.roll_back(last, at(5), true).await.unwrap();
        let before = bytes(store, id).await.unwrap();
        // Rolled back before the upload, or after it.
        let (old, wrong, new) = (body(1, 1_000), body(2, 1_000), body(3, 1_000));
        assert!([(&new, &wrong), (&old, &new)].contains(&(&present, &before)));
    }
}
