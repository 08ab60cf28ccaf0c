//! Server with a history of backups and uploads, for its status page.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use crate::support::{Site, TestServer, now, write};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A server with a past: backups of many ages and sizes, and a month of uploads.
pub(crate) async fn server_with_a_past() -> TestServer {
    let site = Site::new();
    let ages = [
        (0, 240),
        (1, 31),
        (4, 40),
        (20, 18),
        (60, 9),
        (120, 7),
        (175, 3),
        (182, 2),
    ];
    let mut number = 0_u64;
    for (days, backups) in ages {
        for _ in 0..backups {
            number += 1;
            let length = 6_000 + number * 1_400;
            let contents = vec![0x5a; usize::try_from(length).unwrap()];
            site.place_backup(
                &format!("{number:064x}"),
                &contents,
                now() - DAY * days - DAY / 2,
            );
        }
    }
    let today = now().duration_since(UNIX_EPOCH).unwrap().as_secs() / DAY.as_secs();
    let uploads: Vec<_> = (0..30)
        .map(|back| json!({ "day": today - back, "uploads": 200 + (back * 37) % 90 }))
        .collect();
    write(
        &site.data().join("state.json"),
        json!({ "uploads": uploads }).to_string(),
    );
    let server = site.start().await;
    server.swept().await;
    server
}
