//! Scrub of real files: damage is reported and never removed, and nothing else is taken for damage.

use std::fs::{self};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use threema_safe_server::scrub::scrub;
use threema_safe_server::state::{Scrubbed, StateFile};
use threema_safe_server::store::{FileStore, Store};

use crate::support::commands::{metrics, run, status};
use crate::support::damage::{damage, flip};
use crate::support::has_extended_attributes;
use crate::support::process::ServerProcess;
use crate::support::stores::upload;
use crate::support::wire::{Protocol, soon};
use crate::support::{ID, Listening, Site, digits, files, now, write};

#[tokio::test]
async fn what_the_server_finds_is_in_the_log_the_metrics_and_the_status() {
    let server = ServerProcess::start(Site::new());
    let mut phone = server.phone(Protocol::Http2).await;
    for number in 0..6 {
        let path = format!("/backups/{}", digits(number));
        assert_eq!(phone.send("PUT", &path, &[], vec![7; 64]).await.status, 201);
    }
    drop(phone);
    server.has_no_new_descriptors().await;
    let (_, site) = server.stop();
    let can_remember = has_extended_attributes(site.folder());
    damage(&site.backup_file(&digits(0)), flip);
    damage(&site.backup_file(&digits(1)), |file| {
        file.set_len(1).unwrap();
    });
    damage(&site.backup_file(&digits(2)), |file| {
        file.set_len(0).unwrap();
    });
    let changed = u64::from(can_remember);
    let before = files(&site.data().join("backups"));
    // As if the week were over.
    fs::remove_file(site.data().join("state.json")).unwrap();

    let server = ServerProcess::start(site);

    let admin = server.admin_address();
    let damaged = [
        format!("safe_damaged_backups{{kind=\"changed\"}} {changed}"),
        "safe_damaged_backups{kind=\"short\"} 2".into(),
        "safe_damaged_backups{kind=\"unreadable\"} 0".into(),
    ];
    assert_eq!(metrics(admin, "safe_damaged_backups").await, damaged);
    let text = format!(
        "alerts      warning: {} backups are damaged (2 too short, {changed} changed, 0 unreadable); run `scrub` to list them\n",
        2 + changed
    );
    let shown = status(server.site(), admin, &[]);
    assert!(shown.with_code(0).contains(&text), "{shown:?}");
    let shown = status(server.site(), admin, &["--json"]).json();
    assert_eq!(shown["scrub"]["short"], 2);
    let (log, site) = server.stop();
    let line = log
        .lines()
        .find(|line| line.contains("damaged backups found"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for word in [
        "ERROR",
        "short=2",
        &format!("changed={changed}"),
        "unreadable=0",
    ] {
        assert!(line.contains(word), "{line}");
    }
    for number in 0..6 {
        assert!(!log.contains(&digits(number)), "{log}");
    }
    assert_eq!(files(&site.data().join("backups")), before);
}

#[tokio::test]
async fn a_server_reports_what_a_scrub_by_hand_found_until_the_phone_has_uploaded_again() {
    let site = Site::new();
    site.place_backup(ID, &[7; 40], now());
    run(&site, &["scrub"]).with_code(1);
    let server = ServerProcess::start(site);
    let damaged = "safe_damaged_backups{kind=\"short\"}";
    let found = metrics(server.admin_address(), damaged).await;
    assert_eq!(found, [format!("{damaged} 1")]);

    let mut phone = server.phone(Protocol::Http1).await;
    let path = format!("/backups/{ID}");
    assert_eq!(phone.send("PUT", &path, &[], vec![7; 64]).await.status, 204);
    drop(phone);
    let scrubbed = run(server.site(), &["scrub"]);
    assert_eq!(scrubbed.with_code(0), "1 sound, 0 damaged\n");
    server.has_no_new_descriptors().await;
    let server = ServerProcess::start(server.stop().1);
    let found = metrics(server.admin_address(), damaged).await;
    assert_eq!(found, [format!("{damaged} 0")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn uploads_during_a_scrub_are_no_damage() {
    let site = Site::new();
    let store = Arc::new(FileStore::open(&site.data()).unwrap());
    let put = |number: usize, byte: u8| {
        let store = Arc::clone(&store);
        let length = 50_000 + usize::from(byte);
        async move {
            let id = digits(number).parse().unwrap();
            store.put(id, upload(vec![byte; length])).await.unwrap();
            id
        }
    };
    for number in 0..16 {
        put(number, 0).await;
    }
    let ended = Arc::new(AtomicBool::new(false));
    let phones: Vec<_> = (0..4)
        .map(|phone| {
            let (ended, store) = (Arc::clone(&ended), Arc::clone(&store));
            tokio::spawn(async move {
                for turn in 0..100_000_usize {
                    if ended.load(Relaxed) {
                        break;
                    }
                    let id = digits(phone * 4 + turn % 4).parse().unwrap();
                    let byte = u8::try_from(turn % 251).unwrap();
                    let body = vec![byte; 50_000 + usize::from(byte)];
                    store.put(id, upload(body)).await.unwrap();
                    if turn % 5 == 0 {
                        store.remove(id, now()).await.unwrap();
                    }
                }
            })
        })
        .collect();

    let mut all = Scrubbed::default();
    for _ in 0..30 {
        let scrubbed = scrub(&*store, None, |_, _| ()).await.unwrap();
        all.sound += scrubbed.sound;
        assert_eq!(scrubbed.findings(), 0, "{scrubbed:?}");
    }
    ended.store(true, Relaxed);
    for phone in phones {
        soon(phone).await.unwrap();
    }
    assert!(all.sound > 0);
}

#[tokio::test]
async fn a_scrub_that_a_stop_cuts_off_leaves_no_trace_and_begins_anew() {
    let site = Site::new();
    // At the server's pace that is most of a minute.
    for number in 0..1_000 {
        site.place_backup(&digits(number), &[7; 41], now());
    }
    let state = StateFile::in_directory(&site.data());
    let mut site = site;
    for _ in 0..2 {
        let server = site.start().await;
        soon(async {
            while state.load().unwrap().last_sweep.is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        site = server.stop().await;
        assert_eq!(state.load().unwrap().scrub, None);
        state.update(|state| state.last_sweep = None).unwrap();
    }

    let whole = run(&site, &["scrub"]);
    assert_eq!(whole.with_code(0), "1000 sound, 0 damaged\n");
}

#[test]
fn what_was_found_is_said_also_when_it_cannot_be_remembered() {
    let site = Site::new();
    site.place_backup(ID, &[7; 40], now());
    write(&site.data().join("state.json"), "{");

    let found = run(&site, &["scrub"]);

    assert_eq!(found.code, Some(1));
    assert!(found.out.starts_with(ID), "{found:?}");
    assert!(found.errors.contains("state.json"), "{found:?}");
    let emptied = run(&site, &["trash", "empty", "--yes"]);
    assert_eq!(
        (emptied.code, emptied.out.as_str()),
        (Some(1), "0 erased\n")
    );
}
