//! Times that no date has, of files and in the state: nothing panics, what looks old is old, and
//! nothing is modified in the future.

use std::fs::{self, File};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use threema_safe_server::store::{FileStore, Store};

use crate::support::commands::{run, run_with};
use crate::support::trash::{TEN, backups, place_trash};
use crate::support::wire::Protocol;
use crate::support::{ID, OTHER_ID, Site, backup_path, digits, now, set_modified, write};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn before_1970(seconds: u64) -> SystemTime {
    UNIX_EPOCH - Duration::from_secs(seconds)
}

fn after_1970(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Times that a file may have: a file system that cannot store one stores the nearest.
fn odd_times() -> [SystemTime; 8] {
    [
        before_1970(1),
        UNIX_EPOCH - Duration::from_nanos(1),
        before_1970(2_208_988_800),
        before_1970(1 << 62),
        // A day ahead, the last second of four digits, the next one, and the last of all.
        now() + DAY,
        after_1970(253_402_300_799),
        after_1970(253_402_300_800),
        after_1970(i64::MAX as u64),
    ]
}

fn path(id: &str) -> String {
    format!("/backups/{id}")
}

/// Seconds since 1970 of an HTTP date.
fn seconds(date: &str) -> i64 {
    let date = date.replace("GMT", "+0000");
    let format = &time::format_description::well_known::Rfc2822;
    time::OffsetDateTime::parse(&date, format)
        .unwrap_or_else(|error| panic!("{date}: {error}"))
        .unix_timestamp()
}

#[tokio::test]
async fn a_backup_with_any_time_is_read_and_listed_and_none_is_modified_in_the_future() {
    // A sweep keeps what looks as old as 1970.
    let site = Site::new().with(json!({ "retentionDays": 36_500 }));
    for (number, time) in odd_times().into_iter().enumerate() {
        site.place_backup(&digits(number), b"backup", time);
    }
    let server = site.start().await;
    server.swept().await;
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        let mut operator = server.operator_client(protocol).await;
        for (number, time) in odd_times().into_iter().enumerate() {
            let path = path(&digits(number));
            for method in ["GET", "HEAD"] {
                let answer = phone.ask(method, &path, &[]).await;
                assert_eq!(answer.status, 200, "{time:?}");
                let modified = seconds(answer.header("last-modified").unwrap());
                let date = seconds(answer.header("date").unwrap());
                assert!(modified <= date, "{time:?}: {answer:?}");
                let is_past = time < UNIX_EPOCH;
                assert_eq!(modified == 0, is_past, "{time:?}: {answer:?}");

                let etag = answer.header("etag").unwrap();
                let unchanged = phone.ask(method, &path, &[("if-none-match", etag)]).await;
                assert_eq!(unchanged.status, 304, "{time:?}");
                for date in [
                    "Thu, 01 Jan 1970 00:00:00 GMT",
                    "Fri, 31 Dec 9999 23:59:59 GMT",
                    "Sunday, 06-Nov-94 08:49:37 GMT",
                    "Wed, 31 Dec 1969 23:59:59 GMT",
                ] {
                    for name in ["if-modified-since", "if-unmodified-since"] {
                        let answer = phone.ask(method, &path, &[(name, date)]).await;
                        let status = answer.status;
                        assert!([200, 304, 412].contains(&status), "{time:?} {answer:?}");
                    }
                }
            }
            let one = operator.ask("PROPFIND", &path, &[("depth", "0")]).await;
            assert_eq!(one.status, 207, "{time:?}");
            assert!(one.text().contains("getlastmodified"), "{time:?}");
        }
        let all = operator
            .ask("PROPFIND", "/backups", &[("depth", "1")])
            .await;
        assert_eq!(all.hrefs().len(), 1 + odd_times().len());
        for part in all.text().split("<D:getlastmodified>").skip(1) {
            let date = part.split_once('<').unwrap().0;
            let date_of_answer = seconds(all.header("date").unwrap());
            assert!(seconds(date) <= date_of_answer, "{date}");
        }
        let condition = [("if-unmodified-since", "Fri, 31 Dec 9999 23:59:59 GMT")];
        for number in 0..odd_times().len() {
            let path = path(&digits(number));
            let put = phone.send("PUT", &path, &condition, "new").await;
            assert_eq!(put.status, 204);
        }
        for (number, time) in odd_times().into_iter().enumerate() {
            set_modified(&server.site().backup_file(&digits(number)), time);
        }
    }
    let metrics = server.admin("/metrics").await;
    assert!(metrics.contains("safe_panics_total 0\n"), "{metrics}");
}

#[test]
fn what_was_uploaded_before_1970_is_old_and_can_be_restored() {
    let site = Site::new();
    site.place_backup(ID, b"old", before_1970(1));
    site.place_backup(OTHER_ID, b"ahead", now() + DAY * 400_000);
    let report = run(&site, &["prune", "--dry-run", "--json"]).json();
    assert_eq!(
        (&report["removed"], &report["kept"]),
        (&json!(1), &json!(1))
    );
    let ages = report["ages"].as_array().unwrap();
    assert_eq!(ages.last().unwrap()["backups"], 1, "{report}");
    assert_eq!(ages[0]["backups"], 1, "{report}");
    fs::remove_file(site.backup_file(ID)).unwrap();

    for (number, time) in odd_times().into_iter().enumerate() {
        set_modified(&place_trash(&site, &digits(number), TEN, "b"), time);
    }
    let list = run(&site, &["trash", "list"]);
    let lines: Vec<_> = list.with_code(0).lines().collect();
    assert_eq!(lines.len(), odd_times().len());
    for number in 0..4 {
        let line = lines.iter().find(|line| line.starts_with(&digits(number)));
        let date = "uploaded 1970-01-01T00:00:00Z";
        assert!(line.unwrap().contains(date), "{line:?}");
    }
    let restored = run_with(&site, &["trash", "restore"], &list.out);
    assert!(
        restored.with_code(0).starts_with("8 restored"),
        "{restored:?}"
    );
    for id in backups(&site) {
        let time = site
            .backup_file(&id)
            .metadata()
            .unwrap()
            .modified()
            .unwrap();
        let is_now = now().duration_since(time).is_ok_and(|age| age < DAY);
        assert!(is_now || id == OTHER_ID, "{id}");
    }
}

#[tokio::test]
async fn a_version_with_an_odd_time_is_told_from_the_next() {
    let site = Site::new();
    let store = FileStore::open(&site.data()).unwrap();
    let id = ID.parse().unwrap();
    let mut versions = Vec::new();
    for time in odd_times() {
        site.place_backup(ID, b"backup", time);
        let stored = site.backup_file(ID).metadata().unwrap().modified().unwrap();
        let version = store.stat(id).await.unwrap().unwrap().version;
        versions.push((stored, version));
    }
    versions.sort_by_key(|(time, _)| *time);
    versions.dedup();
    for two in versions.windows(2) {
        assert_ne!(two[0].1, two[1].1, "{two:?}");
    }
}

#[test]
fn names_in_the_trash_with_times_of_twenty_digits_are_listed_and_restored() {
    let site = Site::new();
    let latest = [u64::MAX, u64::MAX - 1, 253_402_300_800, i64::MAX as u64];
    for (number, removed_at) in latest.into_iter().enumerate() {
        place_trash(&site, &digits(number), removed_at, "backup");
    }
    let beyond = site
        .data()
        .join("trash")
        .join(format!("{ID}.18446744073709551616"));
    File::create(&beyond).unwrap();

    assert_eq!(
        run(&site, &["trash", "list"]).with_code(0).lines().count(),
        4
    );
    run(&site, &["prune"]).with_code(0);
    run(&site, &["prune"]).with_code(0);
    let restored = run(&site, &["trash", "restore", "--since", "9999-12-31"]);
    assert_eq!(restored.with_code(0), "4 restored\n");
    for text in ["9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59"] {
        run(&site, &["trash", "restore", "--since", text]).with_code(0);
    }
    assert!(beyond.exists(), "what is not ours stays");
}

#[test]
fn a_state_with_any_number_stops_no_command() {
    let many = u64::MAX;
    let site = Site::new();
    site.place_backup(ID, &[7; 41], now());
    place_trash(&site, OTHER_ID, TEN, "backup");
    let state = json!({
        "lastSweep": many, "highestTime": 1, "acknowledgedUntil": many,
        "retentionPeriods": [
            { "since": many, "keepSeconds": many },
            { "since": 0, "keepSeconds": many - 1 },
            { "since": many, "keepSeconds": 1 },
        ],
        "deletionBurst": { "noticed": many, "since": many, "removed": many, "of": many },
        "uploads": [{ "day": many, "uploads": many }, { "day": many, "uploads": many }],
        "scrub": { "finished": many, "sound": many, "short": many, "changed": many, "unreadable": many },
    });
    write(&site.data().join("state.json"), state.to_string());

    run(&site, &["prune", "--dry-run"]).with_code(0);
    run(&site, &["prune", "--force"]).with_code(0);
    run(&site, &["trash", "list"]).with_code(0);
    run(&site, &["scrub"]).with_code(0);
    run(&site, &["prune"]).with_code(0);
    assert_eq!(backups(&site), [ID]);
}

#[tokio::test]
async fn a_server_starts_with_a_state_of_any_numbers() {
    let many = u64::MAX;
    let site = Site::new();
    fs::create_dir_all(site.data()).unwrap();
    let today = now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let state = json!({
        "uploads": [
            { "day": many, "uploads": many }, { "day": many, "uploads": 1 },
            { "day": today, "uploads": many }, { "day": today, "uploads": many },
        ],
        "scrub": { "finished": many, "short": many, "changed": many, "unreadable": many },
    });
    write(&site.data().join("state.json"), state.to_string());
    let server = site.start().await;
    server.settled().await;

    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(
        phone.send("PUT", &backup_path(), &[], "new").await.status,
        201
    );
    for path in ["/", "/status.json", "/metrics", "/readyz"] {
        let answer = server.admin(path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let metrics = server.admin("/metrics").await;
    assert!(metrics.contains("safe_panics_total 0\n"), "{metrics}");
}
