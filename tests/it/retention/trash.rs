//! Trash: list, restore, empty, and how a burst of deletions holds it.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::commands::{Ended, metrics, run, run_with, status};
use crate::support::process::ServerProcess;
use crate::support::trash::{HOUR, TEN, backups, in_trash, place_trash};
use crate::support::wire::Protocol;
use crate::support::{
    ID, Listening, OTHER_ID, Site, TestServer, backup_path, digits, files, now, set_modified, write,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn the_list_has_the_newest_first_and_nothing_that_is_not_ours() {
    let site = Site::new();
    place_trash(&site, ID, TEN, [1; 41]);
    place_trash(&site, ID, TEN + HOUR, [2; 42]);
    place_trash(&site, OTHER_ID, u64::MAX, [3; 43]);
    let trash = site.data().join("trash");
    for name in [ID, &format!("{ID}."), &format!("{ID}.x"), "README"] {
        write(&trash.join(name), "not ours");
    }
    fs::create_dir(trash.join(format!("{ID}.7"))).unwrap();
    symlink("/etc/passwd", trash.join(format!("{ID}.8"))).unwrap();

    let list = run(&site, &["trash", "list"]);
    let whole: Vec<_> = list.with_code(0).lines().collect();
    assert!(whole[0].starts_with(&format!(
        "{OTHER_ID}  removed 18446744073709551615  uploaded "
    )));
    assert_eq!(
        whole[1..],
        [
            format!("{ID}  removed 2026-11-24T11:00:00Z  uploaded 2026-11-23T11:00:00Z  42 bytes"),
            format!("{ID}  removed 2026-11-24T10:00:00Z  uploaded 2026-11-23T10:00:00Z  41 bytes"),
        ]
    );
    let list = run(&site, &["trash", "list", "--json"]).json();
    assert_eq!(list.as_array().unwrap().len(), 3);
    let last = json!({
        "id": ID, "removed": "2026-11-24T10:00:00Z", "lastUpload": "2026-11-23T10:00:00Z",
        "bytes": 41,
    });
    assert_eq!(list[2], last);
    let empty = Site::new();
    fs::create_dir_all(empty.data().join("backups")).unwrap();
    assert_eq!(run(&empty, &["trash", "list", "--json"]).out, "[]\n");
}

fn report(restored: u64, newer: u64, missing: u64) -> Value {
    json!({ "restored": restored, "newer": newer, "missing": missing, "failed": 0 })
}

#[test]
fn ids_and_lines_of_the_list_bring_back_the_newest_version_as_uploaded_now() {
    let site = Site::new();
    place_trash(&site, ID, TEN, "old version");
    let newest = place_trash(&site, ID, TEN + 1, "new version");
    let inode = fs::metadata(newest).unwrap().ino();
    place_trash(&site, OTHER_ID, TEN, "another");
    let begun = now();

    let list = run(&site, &["trash", "list"]).out;
    let chosen: String = list
        .lines()
        .rev()
        .map(|line| format!("\t{line}\r\n"))
        .collect();
    let restored = run_with(&site, &["trash", "restore"], format!("\n{chosen}\n{ID}"));

    assert_eq!(restored.with_code(0), "2 restored\n");
    assert_eq!(in_trash(&site), [format!("{ID}.{TEN}")]);
    assert_eq!(fs::read(site.backup_file(ID)).unwrap(), b"new version");
    for id in [ID, OTHER_ID] {
        let found = fs::metadata(site.backup_file(id)).unwrap();
        assert!(found.modified().unwrap() >= begun - Duration::from_secs(1));
    }
    assert_eq!(fs::metadata(site.backup_file(ID)).unwrap().ino(), inode);

    let ids = format!("{ID}\n{}\n", digits(1));
    let again = run_with(&site, &["trash", "restore", "--json"], ids);
    again.with_code(1);
    assert_eq!(again.json(), report(0, 1, 1));
}

#[test]
fn a_time_brings_back_what_was_removed_then_or_later() {
    for (since, expected) in [
        ("2026-11-24", 3),
        ("2026-11-25", 0),
        ("2026-11-24T10:00:00Z", 2),
        ("2026-11-24T11:00:00+01:00", 2),
        ("2026-11-24T10:00:01Z", 1),
        ("1969-12-31", 4),
        ("9999-12-31", 0),
        ("36500d", 4),
    ] {
        let site = Site::new();
        for (number, removed_at) in [TEN - 10 * HOUR - 1, TEN - 1, TEN, TEN + 1]
            .iter()
            .enumerate()
        {
            place_trash(&site, &digits(number), *removed_at, [7; 41]);
        }

        let restored = run(&site, &["trash", "restore", "--json", "--since", since]);

        restored.with_code(0);
        assert_eq!(restored.json(), report(expected, 0, 0), "{since}");
        assert_eq!(backups(&site).len() as u64, expected, "{since}");
    }

    for (since, expected) in [
        ("50m", 0),
        ("70m", 1),
        ("1h", 0),
        ("2h", 1),
        ("1d", 1),
        ("3d", 2),
    ] {
        let site = Site::new();
        place_trash(&site, ID, unix(now()) - HOUR - 120, [7; 41]);
        place_trash(&site, OTHER_ID, unix(now()) - 49 * HOUR, [7; 41]);
        let restored = run(&site, &["trash", "restore", "--json", "--since", since]);
        assert_eq!(restored.json(), report(expected, 0, 0), "{since}");
    }
}

#[test]
fn what_cannot_be_meant_changes_nothing() {
    let site = Site::new();
    place_trash(&site, ID, TEN, [7; 41]);
    run(&site, &["trash", "list"]).with_code(0);
    let before = files(&site.data().join("trash"));
    let shorter = ID.strip_prefix('0').unwrap();
    for (arguments, input, code) in [
        (&["restore"][..], String::new(), 2),
        (&["restore"], " \n\r\n".into(), 2),
        (&["restore"], format!("{ID}\n{shorter}\n"), 2),
        (&["restore"], ID.to_uppercase(), 2),
        (&["restore"], format!("{ID}.{TEN}"), 2),
        (&["restore"], format!("{ID},{OTHER_ID}"), 2),
        (&["restore"], format!("\u{feff}{ID}"), 2),
        (&["restore", "--since", "yesterday"], String::new(), 2),
        (&["restore", "--since", ""], String::new(), 2),
        (&["restore", "--since", "3d ago"], String::new(), 2),
        (
            &["restore", "--since", "99999999999999999999d"],
            String::new(),
            2,
        ),
        (&["restore", "--since", "1d", "--all"], String::new(), 2),
        (&["empty"], "y\n".into(), 2),
    ] {
        let arguments = [&["trash"], arguments].concat();
        let ended = run_with(&site, &arguments, &input);
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (Some(code), ""),
            "{input}"
        );
        assert!(
            !ended.errors.contains(shorter),
            "an id is a secret: {ended:?}"
        );
    }
    let not_text = run_with(&site, &["trash", "restore"], b"\xff\xfe");
    assert_eq!(not_text.code, Some(1), "{not_text:?}");

    assert_eq!(files(&site.data().join("trash")), before);
    assert!(backups(&site).is_empty());
}

#[tokio::test]
async fn nothing_is_brought_back_over_a_backup_that_is_there() {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http2).await;
    phone.send("PUT", &backup_path(), &[], "first").await;
    phone.ask("DELETE", &backup_path(), &[]).await;
    phone.send("PUT", &backup_path(), &[], "second").await;
    let newer = phone.ask("GET", &backup_path(), &[]).await;
    let trash = server.site().data().join("trash");
    let before = files(&trash);

    let kept = run(server.site(), &["trash", "restore", "--all", "--json"]);

    kept.with_code(0);
    assert_eq!(kept.json(), report(0, 1, 0));
    assert_eq!(files(&trash), before);
    let after = phone.ask("GET", &backup_path(), &[]).await;
    assert_eq!(
        (after.text(), after.header("etag")),
        ("second", newer.header("etag"))
    );
}

#[tokio::test]
async fn a_phone_gets_what_was_brought_back_under_a_new_time_and_tag_and_it_stays() {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "a backup").await;
    let ten_years = now() - DAY * 3_650;
    set_modified(&server.site().backup_file(ID), ten_years);
    let old = phone.ask("GET", &backup_path(), &[]).await;
    phone.ask("DELETE", &backup_path(), &[]).await;
    assert_eq!(phone.ask("GET", &backup_path(), &[]).await.status, 404);

    run(server.site(), &["trash", "restore", "--all"]).with_code(0);
    let swept = run(server.site(), &["prune"]);
    assert!(
        swept
            .with_code(0)
            .starts_with("backups: 1 kept, 0 removed\n")
    );

    let back = phone.ask("GET", &backup_path(), &[]).await;
    assert_eq!((back.status, back.text()), (200, "a backup"));
    for header in ["etag", "last-modified"] {
        assert_ne!(back.header(header), old.header(header), "{header}");
    }
    // What a phone remembers of the old version does not hide it.
    let tag = old.header("etag").unwrap().to_owned();
    let conditional = phone
        .ask("GET", &backup_path(), &[("if-none-match", &tag)])
        .await;
    assert_eq!(conditional.status, 200);
}

#[test]
fn the_trash_is_emptied_only_with_yes_where_there_is_no_terminal() {
    let site = Site::new();
    site.place_backup(ID, &[7; 41], now());
    for number in 0..3 {
        place_trash(&site, &digits(number), TEN, [7; 41]);
    }
    let refused = run_with(&site, &["trash", "empty"], "yes\n");
    assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""));
    assert!(refused.errors.contains("--yes"), "{refused:?}");
    assert_eq!(in_trash(&site).len(), 3);

    place_trash(&site, OTHER_ID, TEN, [7; 41]);
    let emptied = run(&site, &["trash", "empty", "--yes", "--json"]);
    assert_eq!(emptied.with_code(0), "{\"erased\":4}\n");
    assert!(in_trash(&site).is_empty());
    assert_eq!(backups(&site), [ID]);
}

/// A backup that expired long ago and has been in the trash for too long: the next sweep erases it.
fn place_over(site: &Site) -> String {
    let path = place_trash(site, &digits(99), 1_000_000_000, [7; 41]);
    set_modified(&path, UNIX_EPOCH);
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Uploads so many backups over TLS, and deletes so many of them.
async fn upload_and_delete(server: &ServerProcess, uploads: usize, deletions: usize) {
    let mut phone = server.phone(Protocol::Http2).await;
    for number in 0..uploads {
        let path = format!("/backups/{}", digits(number));
        assert_eq!(phone.send("PUT", &path, &[], vec![7; 64]).await.status, 201);
    }
    for number in 0..deletions {
        let path = format!("/backups/{}", digits(number));
        assert_eq!(phone.ask("DELETE", &path, &[]).await.status, 204);
    }
    // A stop would wait for the connection.
    drop(phone);
    server.has_no_new_descriptors().await;
}

fn held(ended: &Ended) -> (Value, Value) {
    let burst = &ended.json()["trashHeld"];
    (burst["removed"].clone(), burst["of"].clone())
}

#[tokio::test]
async fn a_burst_of_deletions_keeps_the_trash_until_an_operator_has_confirmed_it() {
    let server = ServerProcess::start(Site::new());
    upload_and_delete(&server, 19, 4).await;
    let (_, mut site) = server.stop();
    let over = place_over(&site);
    let text = "4 of 19 backups were deleted within a day";

    // Also after a restart, and when there are many more backups again.
    for more in [0, 100] {
        for number in 0..more {
            site.place_backup(&digits(1_000 + number), &[7; 41], now());
        }
        let server = ServerProcess::start(site);
        let admin = server.admin_address();
        assert_eq!(
            metrics(admin, "safe_trash_held").await,
            ["safe_trash_held 1"]
        );
        let shown = status(server.site(), admin, &[]);
        assert!(
            shown
                .with_code(0)
                .contains(&format!("alerts      warning: {text}")),
            "{shown:?}"
        );
        let shown = status(server.site(), admin, &["--json"]).json();
        assert_eq!(shown["sweep"]["report"]["trashHeld"]["removed"], 4);
        let by_hand = run(server.site(), &["prune"]);
        assert!(by_hand.with_code(0).contains(text), "{by_hand:?}");
        assert!(by_hand.out.contains("`trash confirm`"), "{by_hand:?}");
        let (log, left) = server.stop();
        let line = log.lines().find(|line| line.contains("removed=4 of=19"));
        let line = line.unwrap_or_else(|| panic!("{log}"));
        assert!(
            line.contains("ERROR") && line.contains("deletion burst"),
            "{line}"
        );
        assert!(
            !log.contains(&digits(0)) && !log.contains(&digits(99)),
            "{log}"
        );
        assert!(in_trash(&left).contains(&over), "it was erased");
        site = left;
    }
    // Nor does a forced sweep erase it: that is about expired backups.
    run(&site, &["prune", "--force"]).with_code(0);
    assert!(in_trash(&site).contains(&over));

    let confirmed = run(&site, &["trash", "confirm"]);
    assert!(confirmed.with_code(0).contains("4 of 19"), "{confirmed:?}");
    let swept = run(&site, &["prune", "--json"]);
    assert_eq!(
        (held(&swept).0, swept.json()["trashErased"].clone()),
        (json!(null), json!(1))
    );
    assert_eq!(in_trash(&site).len(), 4, "their days are not over");
    let server = ServerProcess::start(site);
    let admin = server.admin_address();
    assert_eq!(
        metrics(admin, "safe_trash_held").await,
        ["safe_trash_held 0"]
    );
    let calm = status(server.site(), admin, &[]);
    assert!(calm.out.ends_with("alerts      none\n"), "{calm:?}");
    let (log, site) = server.stop();
    assert!(!log.contains("deletion burst"), "{log}");
    let again = run(&site, &["trash", "confirm"]);
    assert!(
        again
            .with_code(0)
            .starts_with("No deletion burst was pending"),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_burst_is_over_when_all_is_back() {
    let server = ServerProcess::start(Site::new());
    upload_and_delete(&server, 6, 6).await;
    let (_, site) = server.stop();
    // What expired stays behind: it has nothing to do with the burst.
    let expired = unix(now()) - HOUR;
    let path = place_trash(&site, OTHER_ID, expired, [7; 41]);
    set_modified(&path, now() - DAY * 188);
    let over = place_over(&site);
    assert_eq!(
        held(&run(&site, &["prune", "--json"])),
        (json!(6), json!(6))
    );
    let part = format!("{}\n{}\n", digits(0), digits(1));
    run_with(&site, &["trash", "restore"], part).with_code(0);
    assert_eq!(
        held(&run(&site, &["prune", "--json"])),
        (json!(6), json!(6))
    );
    assert!(in_trash(&site).contains(&over));

    let ids: String = (2..6).map(|number| digits(number) + "\n").collect();
    run_with(&site, &["trash", "restore"], ids).with_code(0);

    let swept = run(&site, &["prune", "--json"]).json();
    assert_eq!(
        (&swept["trashHeld"], &swept["trashErased"]),
        (&json!(null), &json!(1))
    );
    assert_eq!(backups(&site).len(), 6);
    assert_eq!(in_trash(&site), [format!("{OTHER_ID}.{expired}")]);
}

#[tokio::test]
async fn all_comes_back_at_once_and_is_served() {
    let server = ServerProcess::start(Site::new());
    upload_and_delete(&server, 30, 30).await;
    assert_eq!(
        held(&run(server.site(), &["prune", "--json"])),
        (json!(30), json!(30))
    );

    let restored = run(server.site(), &["trash", "restore", "--all"]);

    assert_eq!(restored.with_code(0), "30 restored\n");
    let mut phone = server.phone(Protocol::Http1).await;
    for number in 0..30 {
        let path = format!("/backups/{}", digits(number));
        assert_eq!(phone.ask("GET", &path, &[]).await.body, vec![7; 64]);
    }
    let calm = run(server.site(), &["prune", "--json"]);
    assert_eq!(held(&calm).0, json!(null));
    assert_eq!(calm.json()["kept"], 30);
    assert_eq!(
        run(server.site(), &["scrub"]).with_code(0),
        "30 sound, 0 damaged\n"
    );
}

#[tokio::test]
async fn a_fifth_within_a_day_or_more_over_many_days_is_no_burst() {
    let server = ServerProcess::start(Site::new());
    upload_and_delete(&server, 20, 4).await;
    let (_, site) = server.stop();
    // As many in each of the days before.
    for day in 1..7 {
        let hours = 26 * day * HOUR;
        for number in 0..4 {
            let id = digits(100 + usize::try_from(day).unwrap() * 10 + number);
            place_trash(&site, &id, unix(now()) - hours, [7; 41]);
        }
    }
    let over = place_over(&site);

    let server = ServerProcess::start(site);

    let admin = server.admin_address();
    assert_eq!(
        metrics(admin, "safe_trash_held").await,
        ["safe_trash_held 0"]
    );
    let (log, site) = server.stop();
    assert!(!log.contains("deletion burst"), "{log}");
    assert!(!in_trash(&site).contains(&over));
    assert_eq!(in_trash(&site).len(), 28);
}

#[test]
fn without_days_in_the_trash_what_expires_still_passes_through_it() {
    let site = Site::new().with(json!({ "trashDays": 0 }));
    site.place_backup(ID, &[7; 41], now() - DAY * 188);
    site.place_backup(OTHER_ID, &[7; 41], now());
    site.swept_at(now());

    let first = run(&site, &["prune", "--json"]).json();

    assert_eq!(
        (&first["removed"], &first["trashKept"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(in_trash(&site).len(), 1);
}
