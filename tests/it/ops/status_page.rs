//! The status page, as HTML and in a real browser.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use crate::support::{Site, TestServer, now, skip_without_program, write};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A server with a past: backups of many ages and sizes, and a month of uploads.
async fn server_with_a_past() -> TestServer {
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

/// The page, without the head of the answer.
async fn page(server: &TestServer) -> String {
    let answer = server.admin("/").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(
        head.contains("content-security-policy: default-src 'none'; style-src 'unsafe-inline'")
    );
    body.to_owned()
}

#[tokio::test]
async fn the_page_shows_what_there_is_and_no_identity() {
    let server = server_with_a_past().await;
    let page = page(&server).await;

    for text in [
        "Everything is as it should be",
        "<dt>Backups</dt><dd>350<small>0 more in the trash",
        "<dt>Renewed within a day</dt><dd>240<small>311 within a week",
        "<dt>Expire within 14 days</dt><dd>5<small>5 within 30 days",
        "<dt>Certificate</dt><dd>36",
        "<dt>Disk space free</dt>",
        "<dt>Last sweep</dt>",
        "How fresh the backups are",
        "How large the backups are",
        "Uploads each day",
        "<tr><th scope=\"row\">under 1 day</th><td>240</td></tr>",
    ] {
        // A machine with little room on its disk says that too.
        let is_there = page.contains(text) || text.starts_with("Everything");
        assert!(is_there, "{text} is not in {page}");
    }
    assert_eq!(page.matches("<svg ").count(), 3);
    assert_eq!(page.matches("role=\"img\" aria-labelledby=").count(), 3);
    assert_eq!(page.matches("<h1>").count(), 1);
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("http://"));
    for number in 1..=350 {
        assert!(!page.contains(&format!("{number:064x}")));
    }
    for secret in ["phones", "operator", "127.0.0.1"] {
        assert!(!page.contains(secret), "{secret} is on the page");
    }
}

#[tokio::test]
async fn the_page_says_what_needs_attention() {
    let server = Site::new().start().await;
    server.swept().await;
    let chain = server.site().folder().join("certs/fullchain.pem");
    std::fs::write(chain, "<nothing>").unwrap();

    let page = page(&server).await;

    assert!(
        page.contains("<p class=\"state critical\">Something is wrong</p>"),
        "{page}"
    );
    assert!(
        page.contains("<strong class=\"critical\">Wrong:</strong> the certificate"),
        "{page}"
    );
}

/// Where pictures are kept, for whoever wants to look.
fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Lets the browser draw the page; the picture.
async fn draw(url: String, name: &str, more: &[&str]) -> Vec<u8> {
    let picture = pictures().join(format!("status-{name}.png"));
    drop(std::fs::remove_file(&picture));
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--screenshot={}", picture.display()))
        .args(more)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = tokio::task::spawn_blocking(move || command.status().unwrap());
    assert!(status.await.unwrap().success());
    std::fs::read(picture).unwrap()
}

/// Width and height of a picture in PNG.
fn dimensions(png: &[u8]) -> (u32, u32) {
    assert!(png.starts_with(b"\x89PNG"), "no picture");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[tokio::test]
async fn a_browser_draws_the_page_in_light_and_dark_and_on_a_phone() {
    let found = Command::new("chromium").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        skip_without_program("chromium is not installed, so nobody has looked at the status page");
        return;
    }
    let server = server_with_a_past().await;
    let url = format!("http://{}/", server.admin_address());
    let mut pictures = Vec::new();
    for (name, size, more) in [
        ("light", (1_000, 1_700), &[][..]),
        (
            "dark",
            (1_000, 1_700),
            &["--blink-settings=preferredColorScheme=0"],
        ),
        ("phone", (500, 2_400), &[]),
    ] {
        let window = format!("--window-size={},{}", size.0, size.1);
        let arguments = [&[window.as_str()][..], more].concat();
        let picture = draw(url.clone(), name, &arguments).await;
        assert_eq!(dimensions(&picture), size, "{name}");
        // A page without style or charts is a third of that.
        assert!(picture.len() > 40_000, "{name}: {} bytes", picture.len());
        pictures.push(picture);
    }
    assert_ne!(pictures[0], pictures[1], "dark looks like light");
}
