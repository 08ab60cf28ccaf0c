//! Quotas: beyond them, new backups are refused, and existing backups can still be renewed.

use serde_json::{Value, json};
use threema_safe_server::account::Role;

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
        assert_eq!(put.text(), "no space left for new backups\n");
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
            assert_eq!(put(&mut phone, number, 1_000).await, 204);
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
    // A renewal may grow beyond it.
    assert_eq!(put(&mut phone, 1, 10_000).await, 204);
    assert_eq!(remove(&mut phone, 1).await, 204);
    assert_eq!(
        put(&mut phone, 5, 1).await,
        507,
        "the trash is on the disk, too"
    );
    assert_eq!(put(&mut phone, 2, 1).await, 204);
    assert_eq!(server.refused("max_total_bytes").await, 4);
}

#[tokio::test]
async fn where_too_little_would_stay_free_only_renewals_are_taken() {
    let server = server(json!({ "minFreeBytes": 1_u64 << 60 })).await;
    let mut phone = server.phone(Protocol::Http2).await;

    assert_eq!(put(&mut phone, 3, 1).await, 507);
    assert_eq!(put(&mut phone, 1, 10_000).await, 204);
    assert_eq!(server.refused("min_free_bytes").await, 1);
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
