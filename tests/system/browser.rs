//! Status page in a real browser.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::past::server_with_a_past;

tests! {
    a_browser_draws_the_page_in_light_and_dark_and_on_a_phone: tokio [CHROMIUM];
}

/// Where pictures are kept, to be looked at.
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

async fn a_browser_draws_the_page_in_light_and_dark_and_on_a_phone() {
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
