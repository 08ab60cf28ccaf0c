//! Overwrites: a replaced version is kept in the trash where the change looks wrong, within bounds,
//! and comes back by `trash restore`.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::commands::{metrics, run, run_with, status};
use crate::support::process::ServerProcess;
use crate::support::trash::{backups, in_trash};
use crate::support::wire::{Client, Protocol, basic};
use crate::support::{
    ID, Listening, Site, TestServer, backup_path, digits, has_extended_attributes, names, now,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn path(number: usize) -> String {
    format!("/backups/{}", digits(number))
}

/// A server process of which a maintainer, too, is a client.
async fn maintainer(server: &ServerProcess) -> Client {
    let secret = server.site().maintainer_secret();
    let authorization = basic(format!("maintainer:{secret}"));
    Client::connect(server, Protocol::Http2, Some(authorization)).await
}

/// How many files in the trash have this end.
fn ending(site: &Site, end: &str) -> usize {
    let trash = in_trash(site);
    trash.iter().filter(|name| name.ends_with(end)).count()
}

async fn put(client: &mut Client, path: &str, byte: u8, length: usize, status: u16) {
    let answer = client.send("PUT", path, &[], vec![byte; length]).await;
    assert_eq!(answer.status, status, "{path}");
}

async fn overwrites(server: &TestServer) -> Vec<String> {
    let name = "safe_suspicious_overwrites_total";
    let counted = metrics(server.admin_address(), name).await;
    let number = |line: &String| line.rsplit_once(' ').unwrap().1.to_owned();
    counted.iter().map(number).collect()
}

fn report(restored: u64, newer: u64) -> Value {
    json!({ "restored": restored, "newer": newer, "missing": 0, "failed": 0 })
}

#[tokio::test]
async fn a_much_smaller_upload_keeps_what_it_replaces_and_that_comes_back() {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    put(&mut phone, &backup_path(), 1, 10_000, 201).await;
    put(&mut phone, &backup_path(), 2, 5_000, 204).await;
    assert!(in_trash(server.site()).is_empty());
    let file = server.site().backup_file(ID);
    let uploaded = fs::metadata(&file).unwrap().modified().unwrap();

    put(&mut phone, &backup_path(), 3, 2_499, 204).await;

    assert_eq!(overwrites(&server).await, ["1", "0"]);
    let trash = server.site().data().join("trash");
    let [kept] = &names(&trash)[..] else {
        panic!("it is not in the trash alone");
    };
    assert!(kept.starts_with(&format!("{ID}.")) && kept.ends_with(".replaced"));
    assert_eq!(fs::read(trash.join(kept)).unwrap(), [2; 5_000]);
    let kept = fs::metadata(trash.join(kept)).unwrap().modified().unwrap();
    assert_eq!(kept, uploaded, "it keeps its time");
    let list = run(server.site(), &["trash", "list"]);
    let list = list.with_code(0);
    assert!(list.starts_with(&format!("{ID}  replaced ")), "{list}");
    let json = run(server.site(), &["trash", "list", "--json"]).json();
    assert_eq!(
        (&json[0]["kind"], &json[0]["bytes"]),
        (&json!("replaced"), &json!(5_000))
    );

    let begun = now();
    let restored = run_with(server.site(), &["trash", "restore"], list);
    assert_eq!(restored.with_code(0), "1 restored\n");
    let got = phone.ask("GET", &backup_path(), &[]).await;
    assert!(got.body == vec![2; 5_000], "{} bytes", got.body.len());
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    assert!(
        time >= begun - Duration::from_secs(1),
        "it counts as uploaded now"
    );
    let list = run(server.site(), &["trash", "list"]);
    assert!(
        list.out.starts_with(&format!("{ID}  rolled-back ")),
        "{list:?}"
    );

    // Not again by a restore of all, but by its id, which undoes the restore.
    let all = run(server.site(), &["trash", "restore", "--all", "--json"]);
    assert_eq!(all.json(), report(0, 0));
    run_with(server.site(), &["trash", "restore"], ID).with_code(0);
    let got = phone.ask("GET", &backup_path(), &[]).await;
    assert!(got.body == vec![3; 2_499], "{} bytes", got.body.len());
    assert_eq!(
        run(server.site(), &["scrub"]).with_code(0),
        "1 sound, 0 damaged\n"
    );
}

#[tokio::test]
async fn a_stolen_maintainer_ruins_nothing_that_does_not_come_back() {
    let server = ServerProcess::start(Site::new());
    if !has_extended_attributes(server.site().folder()) {
        return;
    }
    let mut phone = server.phone(Protocol::Http2).await;
    for number in 0..12 {
        put(&mut phone, &path(number), 1, 700 + number, 201).await;
    }
    let mut thief = maintainer(&server).await;
    for round in 0..4 {
        for number in 0..12 {
            put(&mut thief, &path(number), 50 + round, 800, 204).await;
        }
    }
    // One of them is also deleted, and two phones have uploaded properly since.
    assert_eq!(thief.ask("DELETE", &path(0), &[]).await.status, 204);
    put(&mut phone, &path(1), 2, 701, 204).await;
    put(&mut phone, &path(2), 2, 702, 204).await;
    // Not in the same second as the overwrites, within which nobody could tell the order.
    for number in [1, 2] {
        let file = server.site().backup_file(&digits(number));
        crate::support::set_modified(&file, now() + Duration::from_secs(60));
    }
    drop((phone, thief));
    server.has_no_new_descriptors().await;

    let swept = run(server.site(), &["prune"]);
    assert!(swept.out.contains("12 of 12 backups were"), "{swept:?}");
    let admin = server.admin_address();
    let counted = metrics(admin, "safe_suspicious_overwrites_total").await;
    assert!(!counted[0].ends_with(" 0"), "{counted:?}");

    let restored = run(
        server.site(),
        &["trash", "restore", "--since", "1h", "--json"],
    );
    assert_eq!(restored.json(), report(10, 2));
    let mut phone = server.phone(Protocol::Http1).await;
    for number in 0..12 {
        let byte = if [1, 2].contains(&number) { 2 } else { 1 };
        let got = phone.ask("GET", &path(number), &[]).await;
        assert!(got.body == vec![byte; 700 + number], "{number}: {got:?}");
    }
    // A person who names them brings the older ones back all the same.
    let ids = format!("{}\n{}\n", digits(1), digits(2));
    assert_eq!(
        run_with(server.site(), &["trash", "restore"], ids).with_code(0),
        "2 restored\n"
    );
    let got = phone.ask("GET", &path(1), &[]).await;
    assert!(got.body == vec![1; 701], "{got:?}");
}

#[tokio::test]
async fn a_burst_of_overwrites_holds_the_trash_until_all_is_back() {
    let server = ServerProcess::start(Site::new());
    if !has_extended_attributes(server.site().folder()) {
        return;
    }
    let mut phone = server.phone(Protocol::Http1).await;
    for number in 0..15 {
        put(&mut phone, &path(number), 1, 700, 201).await;
    }
    let mut copy = maintainer(&server).await;
    for number in 0..3 {
        put(&mut copy, &path(number), 2, 700, 204).await;
        put(&mut copy, &path(number), 3, 700, 204).await;
    }
    drop((phone, copy));
    let (_, site) = server.stop();
    let calm = run(&site, &["prune", "--json"]).json();
    assert_eq!(calm["trashHeld"], json!(null), "a fifth is no burst");
    assert_eq!(calm["replacedBytes"], json!(2_100));

    let server = ServerProcess::start(site);
    let mut copy = maintainer(&server).await;
    put(&mut copy, &path(3), 2, 700, 204).await;
    drop(copy);
    let (_, site) = server.stop();
    let server = ServerProcess::start(site);
    let admin = server.admin_address();
    assert_eq!(
        metrics(admin, "safe_trash_held").await,
        ["safe_trash_held 1"]
    );
    let shown = status(server.site(), admin, &[]);
    let text = "4 of 15 backups were overwritten within a day";
    assert!(shown.with_code(0).contains(text), "{shown:?}");
    assert!(shown.out.contains("and the accounts"), "{shown:?}");
    let (log, site) = server.stop();
    let line = log.lines().find(|line| line.contains("deletion burst"));
    assert!(
        line.unwrap().contains("removed=4 of=15 overwritten=4"),
        "{log}"
    );

    let restored = run(&site, &["trash", "restore", "--since", "1h", "--json"]);
    assert_eq!(restored.json(), report(4, 0));
    let over = run(&site, &["prune", "--json"]).json();
    assert_eq!(
        over["trashHeld"],
        json!(null),
        "what a restore replaced is no burst"
    );
    assert_eq!(
        (ending(&site, ".rolled-back"), ending(&site, ".replaced")),
        (4, 0)
    );
    assert_eq!(backups(&site).len(), 15);
    let confirmed = run(&site, &["trash", "confirm"]);
    assert!(
        confirmed.with_code(0).starts_with("No deletion burst"),
        "{confirmed:?}"
    );
}

#[tokio::test]
async fn renewals_of_a_day_keep_nothing_and_many_at_once_do() {
    let server = TestServer::start().await;
    server.swept().await;
    let mut phone = server.phone(Protocol::Http2).await;
    for number in 0..30 {
        put(&mut phone, &path(number), 1, 9_000 + number, 201).await;
    }
    let age = |by: Duration| {
        for number in 0..30 {
            let file = server.site().backup_file(&digits(number));
            let time: SystemTime = now() - by;
            crate::support::set_modified(&file, time);
        }
    };
    // Ten phones renew what is a day old.
    age(DAY);
    for number in 0..10 {
        put(&mut phone, &path(number), 2, 9_100 - number * 100, 204).await;
    }
    assert!(in_trash(server.site()).is_empty());

    // Then something overwrites all of them with the account and the size of the phones.
    age(DAY / 2);
    for number in 0..30 {
        put(&mut phone, &path(number), 3, 9_000, 204).await;
    }
    let kept = ending(server.site(), ".replaced");
    assert_eq!(kept, 24, "all but a fifth");
    let swept = run(server.site(), &["prune", "--json"]).json();
    assert_eq!(swept["trashHeld"]["overwritten"], json!(kept));
    let restored = run(server.site(), &["trash", "restore", "--all", "--json"]);
    assert_eq!(restored.json(), report(kept as u64, 0));
    let got = phone.ask("GET", &path(29), &[]).await;
    assert!(got.body == vec![1; 9_029], "{} bytes", got.body.len());
}

#[tokio::test]
async fn where_there_are_few_backups_all_but_two_of_them_are_kept() {
    for (phones, is_burst) in [(3, false), (8, true)] {
        let server = TestServer::start().await;
        server.swept().await;
        let mut phone = server.phone(Protocol::Http1).await;
        for number in 0..phones {
            put(&mut phone, &path(number), 1, 900, 201).await;
            // An app that got no response sends its upload again.
            put(&mut phone, &path(number), 1, 900, 204).await;
            let file = server.site().backup_file(&digits(number));
            crate::support::set_modified(&file, now() - DAY / 2);
        }
        assert!(in_trash(server.site()).is_empty(), "{phones}");

        // With the account and the size of the phones.
        for number in 0..phones {
            put(&mut phone, &path(number), 2, 900, 204).await;
        }
        let kept = ending(server.site(), ".replaced");
        assert_eq!(kept, phones - 2, "{phones}");
        let swept = run(server.site(), &["prune", "--json"]).json();
        assert_eq!(swept["trashHeld"] != json!(null), is_burst, "{phones}");
    }
}

#[tokio::test]
async fn an_attacker_who_overwrites_again_and_again_pushes_nothing_out() {
    let mut server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http1).await;
    put(&mut phone, &backup_path(), 1, 1_000, 201).await;
    for round in 0..40 {
        let length = [100, 1_000][round % 2];
        put(&mut phone, &backup_path(), 9, length, 204).await;
    }

    assert_eq!(ending(server.site(), ".replaced"), 3);
    let log = server.log_through(|line| line.contains("previous version not kept"));
    assert!(log.last().unwrap().contains("WARN"), "{log:?}");
    let counted = metrics(server.admin_address(), "safe_suspicious_overwrites_total").await;
    let expected = [("kept", 3), ("lost", 17)];
    let expected = expected.map(|(kind, times)| {
        format!("safe_suspicious_overwrites_total{{kind=\"{kind}\"}} {times}")
    });
    assert_eq!(counted, expected);
    run_with(server.site(), &["trash", "restore"], ID).with_code(0);
    let got = phone.ask("GET", &backup_path(), &[]).await;
    assert!(got.body == vec![1; 1_000], "{} bytes", got.body.len());
    drop(phone);
    let (log, _) = server.stop();
    assert!(
        log.matches("previous version not kept").count() <= 1,
        "{log}"
    );
    assert!(!log.contains(ID), "{log}");
}

#[tokio::test]
async fn a_restore_of_all_that_runs_again_brings_back_no_version_of_the_attacker() {
    let server = ServerProcess::start(Site::new());
    if !has_extended_attributes(server.site().folder()) {
        return;
    }
    let mut phone = server.phone(Protocol::Http2).await;
    let mut thief = maintainer(&server).await;
    for number in 0..3 {
        put(&mut phone, &path(number), 1, 900, 201).await;
        put(&mut thief, &path(number), 2, 900, 204).await;
        put(&mut thief, &path(number), 3, 400, 204).await;
    }
    // One was also removed, so that nothing is there when the first version comes back.
    let removed = thief.ask("DELETE", &path(2), &[]).await;
    assert_eq!(removed.status, 204);

    for (again, expected) in [(false, (3, 0)), (true, (0, 0)), (true, (0, 0))] {
        let all = run(server.site(), &["trash", "restore", "--all", "--json"]).json();
        assert!(all["restored"] == expected.0, "{again}: {all}");
        let since = run(
            server.site(),
            &["trash", "restore", "--since", "1h", "--json"],
        )
        .json();
        assert!(since["restored"] == expected.1, "{again}: {since}");
        for number in 0..3 {
            let got = phone.ask("GET", &path(number), &[]).await;
            assert!(
                got.body == vec![1; 900],
                "{again}: {number} has another version"
            );
        }
    }
}

#[tokio::test]
async fn of_another_account_or_none_a_version_is_kept_where_the_uploader_is_known() {
    let server = TestServer::start_with(json!({ "allowAnonymous": true })).await;
    if !has_extended_attributes(server.site().folder()) {
        return;
    }
    let mut phone = server.phone(Protocol::Http1).await;
    let mut maintainer = server.maintainer_client(Protocol::Http1).await;
    let mut stranger = server.stranger(Protocol::Http1).await;
    put(&mut phone, &path(1), 1, 500, 201).await;
    put(&mut stranger, &path(1), 2, 500, 204).await;
    put(&mut stranger, &path(1), 3, 500, 204).await;
    assert_eq!(ending(server.site(), ".replaced"), 1);
    put(&mut phone, &path(1), 4, 500, 204).await;
    assert_eq!(ending(server.site(), ".replaced"), 2);

    // A file that was copied without its attributes.
    server.site().place_backup(&digits(2), &[7; 500], now());
    put(&mut maintainer, &path(2), 1, 500, 204).await;
    // The same bytes, too.
    put(&mut phone, &path(2), 1, 500, 204).await;
    assert_eq!(ending(server.site(), ".replaced"), 3);

    // The attribute survives a scrub and a restore, and names no account.
    put(&mut phone, &path(3), 1, 500, 201).await;
    let file = server.site().backup_file(&digits(3));
    crate::support::set_modified(&file, now() - DAY);
    run(server.site(), &["scrub"]).with_code(0);
    phone.ask("DELETE", &path(3), &[]).await;
    run_with(server.site(), &["trash", "restore"], digits(3)).with_code(0);
    put(&mut phone, &path(3), 2, 500, 204).await;
    assert_eq!(ending(server.site(), ".replaced"), 3);
    put(&mut maintainer, &path(3), 2, 500, 204).await;
    assert_eq!(ending(server.site(), ".replaced"), 4);
    let mut value = [0; 100];
    let length = rustix::fs::getxattr(&file, "user.safe", value.as_mut_slice()).unwrap();
    let text = str::from_utf8(&value[..length]).unwrap();
    assert_eq!(text.split(' ').count(), 4, "{text}");
    assert!(!text.contains("maintainer"), "{text}");
}

#[tokio::test]
async fn kept_versions_take_no_quota_from_new_backups_and_no_reserve() {
    for (quotas, kept) in [
        (json!({ "maxTotalBytes": 100_000 }), 9),
        // Half of what is left is less than one version, until two are lost.
        (json!({ "maxTotalBytes": 90_000 }), 7),
        (json!({ "minFreeBytes": 1_u64 << 60 }), 0),
    ] {
        let is_reserved = quotas.get("minFreeBytes").is_some();
        let site = Site::new().with(json!({ "quotas": quotas }));
        for number in 0..9 {
            site.place_backup(&digits(number), &[1; 9_000], now());
        }
        let server = site.start().await;
        server.swept().await;
        let mut phone = server.phone(Protocol::Http2).await;
        for number in 0..9 {
            put(&mut phone, &path(number), 2, 1, 204).await;
        }

        assert_eq!(ending(server.site(), ".replaced"), kept, "{quotas}");
        if !is_reserved {
            put(&mut phone, &path(20), 1, 9_000, 201).await;
        }
    }
}

#[tokio::test]
async fn a_crash_between_the_trash_and_the_rename_is_harmless() {
    for restore in [false, true] {
        let server = TestServer::start().await;
        let mut phone = server.phone(Protocol::Http1).await;
        put(&mut phone, &backup_path(), 1, 1_000, 201).await;
        let site = server.site();
        let kept = site
            .data()
            .join(format!("trash/{ID}.{}.replaced", 1_700_000_000));
        fs::hard_link(site.backup_file(ID), &kept).unwrap();

        if restore {
            let restored = run_with(site, &["trash", "restore"], ID);
            assert_eq!(restored.with_code(0), "1 restored\n");
            assert!(in_trash(site).is_empty());
            let got = phone.ask("GET", &backup_path(), &[]).await;
            assert!(got.body == vec![1; 1_000]);
            continue;
        }
        // The upload that is tried again keeps it once.
        put(&mut phone, &backup_path(), 2, 100, 204).await;
        assert_eq!(in_trash(site).len(), 1);
        run_with(site, &["trash", "restore"], ID).with_code(0);
        let got = phone.ask("GET", &backup_path(), &[]).await;
        assert!(got.body == vec![1; 1_000]);
    }
}
