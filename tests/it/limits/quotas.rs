//! Quotas: beyond them, new backups and much larger ones are refused, and existing backups can still
//! be renewed.

use serde_json::{Value, json};
use threema_safe_server::account::Role;
use threema_safe_server::store::FileStore;

use crate::support::stores::{Fault, FaultyStore, Operation, Side};
use crate::support::wire::{Client, Protocol, basic};
use crate::support::{OTHER_ID, Site, TestServer, add_account, names, now};

async fn server(quotas: Value) -> TestServer {
    let site = Site::new().with(json!({ "quotas": quotas }));
    for id in [id(1), id(2)] {
        site.place_backup(&id, &[b'x'; 100], now());
    }
    // Files in the trash, and files of other programs, do not count as backups.
    site.place_backup(
        &format!("../trash/{OTHER_ID}.{}", u32::MAX),
        b"trash",
        now(),
    );
    site.place_backup("README", b"not ours", now());
    let server = site.start().await;
    server.swept().await;
    server
}

fn id(number: u32) -> String {
    format!("{number:064x}")
}

async fn put(phone: &mut Client, number: u32, length: usize) -> u16 {
    let path = format!("/backups/{}", id(number));
    let put = phone.send("PUT", &path, &[], vec![b'y'; length]).await;
    if put.status == 507 {
        put.assert_refused(507);
        assert_eq!(put.text(), "no space left for new or larger backups\n");
    }
    put.status
}

async fn remove(phone: &mut Client, number: u32) -> u16 {
    let path = format!("/backups/{}", id(number));
    phone.ask("DELETE", &path, &[]).await.status
}

#[tokio::test]
async fn beyond_max_backups_only_renewals_are_taken() {
    for protocol in Protocol::BOTH {
        let server = server(json!({ "maxBackups": 3 })).await;
        let mut phone = server.phone(protocol).await;

        assert_eq!(put(&mut phone, 3, 100).await, 201);
        assert_eq!(put(&mut phone, 4, 100).await, 507);
        for number in 1..=3 {
            assert_eq!(put(&mut phone, number, 100_000).await, 204);
        }
        assert_eq!(server.refused("max_backups").await, 1);
        // A slot of the quota that is given up is free at once, and there is one.
        assert_eq!(remove(&mut phone, 1).await, 204);
        assert_eq!(put(&mut phone, 4, 100).await, 201);
        assert_eq!(put(&mut phone, 1, 100).await, 507);
        assert_eq!(names(&server.site().data().join("tmp")), [""; 0]);
    }
}

#[tokio::test]
async fn beyond_max_total_bytes_only_renewals_are_taken_and_the_trash_counts() {
    // 205 are there, five of them in the trash.
    let server = server(json!({ "maxTotalBytes": 305 })).await;
    let mut phone = server.phone(Protocol::Http1).await;

    assert_eq!(put(&mut phone, 3, 101).await, 507);
    assert_eq!(put(&mut phone, 3, 100).await, 201);
    assert_eq!(put(&mut phone, 4, 1).await, 507);
    assert_eq!(put(&mut phone, 1, 90).await, 204);
    assert_eq!(put(&mut phone, 4, 11).await, 507);
    assert_eq!(put(&mut phone, 4, 10).await, 201);
    // A renewal may grow a little beyond it.
    assert_eq!(put(&mut phone, 1, 10_000).await, 507);
    assert_eq!(put(&mut phone, 1, 4_000).await, 204);
    assert_eq!(remove(&mut phone, 1).await, 204);
    assert_eq!(
        put(&mut phone, 5, 1).await,
        507,
        "the trash is on the disk, too"
    );
    assert_eq!(put(&mut phone, 2, 1).await, 204);
    assert_eq!(server.refused("max_total_bytes").await, 5);
}

#[tokio::test]
async fn where_too_little_would_stay_free_only_renewals_are_taken() {
    let server = server(json!({ "minFreeBytes": 1_u64 << 60 })).await;
    let mut phone = server.phone(Protocol::Http2).await;

    assert_eq!(put(&mut phone, 3, 1).await, 507);
    assert_eq!(put(&mut phone, 1, 10_000).await, 507);
    for length in [100, 4_196, 1, 4_196, 100] {
        assert_eq!(put(&mut phone, 1, length).await, 204, "{length}");
    }
    assert_eq!(server.refused("min_free_bytes").await, 2);
}

#[tokio::test]
async fn sixty_backups_that_grow_do_not_pass_a_quota_and_are_still_renewed() {
    const LARGEST: usize = 500 << 10;
    // Room for four of the largest.
    let quota: usize = 60 * 100 + 4 * LARGEST;
    let site = Site::new().with(json!({ "quotas": { "maxTotalBytes": quota } }));
    for number in 0..60 {
        site.place_backup(&id(number), &[b'x'; 100], now());
    }
    let server = site.start().await;
    server.swept().await;
    let mut phone = server.phone(Protocol::Http2).await;

    let mut grown = 0;
    for number in 0..60 {
        match put(&mut phone, number, LARGEST).await {
            204 => grown += 1,
            status => assert_eq!(status, 507),
        }
    }
    assert_eq!(grown, 4);
    for number in 0..60 {
        let length = if number < 4 { LARGEST } else { 100 };
        assert_eq!(put(&mut phone, number, length).await, 204, "{number}");
        assert_eq!(put(&mut phone, number, length + 280).await, 204, "{number}");
    }
    // What one of them gives up, another may take.
    assert_eq!(put(&mut phone, 5, LARGEST).await, 507);
    for number in 0..2 {
        assert_eq!(put(&mut phone, number, 100).await, 204);
    }
    assert_eq!(put(&mut phone, 5, LARGEST).await, 204);
    assert_eq!(put(&mut phone, 6, LARGEST).await, 507);
}

#[tokio::test]
async fn many_small_steps_reach_no_further_than_one() {
    for quotas in [
        json!({ "maxTotalBytes": 1 }),
        json!({ "minFreeBytes": 1_u64 << 60 }),
    ] {
        let server = server(quotas).await;
        for (number, largest, factor) in [(1, 4_196, (5, 4)), (2, 4_196, (101, 100))] {
            let mut phone = server.phone(Protocol::Http1).await;
            let mut length = 100;
            let mut refusals = 0;
            while refusals == 0 && length < 100_000 {
                let next = length * factor.0 / factor.1 + 1;
                match put(&mut phone, number, next).await {
                    204 => length = next,
                    status => {
                        assert_eq!(status, 507);
                        refusals += 1;
                    }
                }
            }
            assert!(length <= largest && length * 4 > largest * 3, "{length}");
            // The same again is never refused.
            assert_eq!(put(&mut phone, number, length).await, 204);
            let path = format!("/backups/{}", id(number));
            let kept = phone.ask("GET", &path, &[]).await;
            assert_eq!(kept.body.len(), length);
        }
    }
}

#[tokio::test]
async fn backups_that_grow_at_the_same_time_do_not_pass_a_quota_together() {
    const LARGE: usize = 100_000;
    let site = Site::new().with(json!({ "quotas": { "maxTotalBytes": 20 * 100 + 3 * LARGE } }));
    for number in 0..20 {
        site.place_backup(&id(number), &[b'x'; 100], now());
    }
    let store = FaultyStore::over(FileStore::open(&site.data()).unwrap());
    let gate = store.hold(Side::Before, Operation::Put);
    let server = site.start_over(store.clone()).await;
    server.swept().await;
    let mut uploads = Vec::new();
    for number in 0..20 {
        let mut phone = server.phone(Protocol::Http1).await;
        uploads.push(tokio::spawn(
            async move { put(&mut phone, number, LARGE).await },
        ));
    }
    gate.is_reached_by(3).await;
    // Another upload of a backup that grows already is charged, too: which of them fails is not
    // known yet.
    gate.open();
    let mut statuses = Vec::new();
    for upload in uploads {
        statuses.push(upload.await.unwrap());
    }
    let stored = statuses.iter().filter(|status| **status == 204).count();
    assert_eq!(stored, 3, "{statuses:?}");
    assert!(statuses.iter().all(|status| [204, 507].contains(status)));

    // What fails is given back.
    store.heal();
    store.fail_from(1, Operation::Put, Fault::Io);
    let grown = statuses.iter().position(|status| *status == 204).unwrap();
    let small = statuses.iter().position(|status| *status == 507).unwrap();
    let [grown, small] = [grown, small].map(|number| u32::try_from(number).unwrap());
    let mut phone = server.phone(Protocol::Http2).await;
    assert_eq!(put(&mut phone, grown, 100).await, 500);
    assert_eq!(put(&mut phone, small, LARGE).await, 507);
    store.heal();
    assert_eq!(put(&mut phone, grown, 100).await, 204);
    store.fail_from(1, Operation::Put, Fault::Io);
    assert_eq!(put(&mut phone, small, LARGE).await, 500);
    store.heal();
    assert_eq!(put(&mut phone, small, LARGE).await, 204);
}

#[tokio::test]
async fn an_account_has_a_limit_of_new_backups_in_a_day() {
    let site = Site::new().with(json!({ "quotas": { "newBackupsPerAccountAndDay": 2 } }));
    let other = add_account(&site.accounts_file(), "other", Role::Phone);
    let server = site.start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    let authorization = Some(basic(format!("other:{other}")));
    let mut other = Client::connect(&server, Protocol::Http1, authorization).await;

    for number in 1..=2 {
        assert_eq!(put(&mut phone, number, 1).await, 201);
        assert_eq!(put(&mut phone, number, 2).await, 204);
    }
    assert_eq!(put(&mut phone, 3, 1).await, 507);
    assert_eq!(put(&mut phone, 1, 3).await, 204);
    // What was removed was new all the same.
    assert_eq!(remove(&mut phone, 1).await, 204);
    assert_eq!(put(&mut phone, 1, 3).await, 507);
    assert_eq!(put(&mut other, 3, 1).await, 201);
    assert_eq!(server.refused("new_backups_per_account_and_day").await, 2);
}

/// 507 tells as well as 201 that there is no backup, and leaves no trace.
#[tokio::test]
async fn a_quota_that_is_used_up_is_no_way_to_learn_which_ids_exist() {
    for (limit, headers) in [
        (
            "unknownBackupsPerAddressAndHour",
            &[("if-none-match", "*")][..],
        ),
        ("newBackupsPerAddressAndHour", &[]),
    ] {
        let site = Site::new().with(json!({
            "quotas": { "maxBackups": 1 },
            "limits": { limit: 2 },
        }));
        site.place_backup(&id(1), b"mine", now());
        let server = site.start().await;
        server.swept().await;
        let mut phone = server.phone(Protocol::Http1).await;
        let mut statuses = Vec::new();
        for number in [2, 3, 4, 1] {
            let path = format!("/backups/{}", id(number));
            let put = phone.send("PUT", &path, headers, "junk").await;
            statuses.push(put.status);
        }

        assert_eq!(statuses, [507, 507, 429, 429], "{limit}");
    }
}
