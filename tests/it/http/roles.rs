//! Roles of accounts: an operator reads everything and changes nothing.

use std::fs;

use serde_json::json;

use crate::support::commands::metrics;
use crate::support::wire::Protocol;
use crate::support::{ID, OTHER_ID, TestServer, backup_path, names};

const READ_ONLY: &str = "GET, HEAD, OPTIONS, PROPFIND";
const REFUSED: &str = "this account may only read\n";

fn other_path() -> String {
    format!("/backups/{OTHER_ID}")
}

#[tokio::test]
async fn an_operator_reads_everything_and_changes_nothing() {
    let server = TestServer::start().await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "a backup").await;
    let before = fs::metadata(server.site().backup_file(ID)).unwrap();
    for protocol in Protocol::BOTH {
        let mut operator = server.operator_client(protocol).await;
        for path in [&backup_path(), &other_path()] {
            for (method, header, body) in [
                ("PUT", None, "ruined"),
                ("PUT", None, ""),
                ("PUT", Some(("if-match", "*")), "ruined"),
                ("PUT", Some(("if-none-match", "*")), "ruined"),
                ("PUT", Some(("content-range", "bytes 0-5/6")), "ruined"),
                ("DELETE", None, ""),
                ("DELETE", Some(("if-match", "*")), ""),
            ] {
                let headers: Vec<_> = header.into_iter().collect();
                let answer = operator.send(method, path, &headers, body).await;
                answer.assert_refused(403);
                // Whether the backup exists makes no difference.
                assert_eq!(answer.text(), REFUSED, "{method} {headers:?}");
            }
            let options = operator.ask("OPTIONS", path, &[]).await;
            assert_eq!(options.header("allow"), Some(READ_ONLY));
            let post = operator.send("POST", path, &[], "x").await;
            post.assert_refused(405);
            assert_eq!(post.header("allow"), Some(READ_ONLY));
        }
        for path in ["/", "/config", "/backups/"] {
            operator
                .send("PUT", path, &[], "x")
                .await
                .assert_refused(405);
        }
        assert_eq!(
            operator.ask("GET", &backup_path(), &[]).await.text(),
            "a backup"
        );
        assert_eq!(operator.ask("HEAD", &backup_path(), &[]).await.status, 200);
        let listed = operator
            .ask("PROPFIND", "/backups/", &[("depth", "1")])
            .await;
        assert_eq!(listed.hrefs(), ["/backups/", &backup_path()]);
    }

    let after = fs::metadata(server.site().backup_file(ID)).unwrap();
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    assert_eq!(names(&server.site().data().join("backups")), [ID]);
    assert!(names(&server.site().data().join("trash")).is_empty());
}

#[tokio::test]
async fn a_maintainer_is_an_operator_that_may_write() {
    let server = TestServer::start().await;
    for protocol in Protocol::BOTH {
        let mut maintainer = server.maintainer_client(protocol).await;
        let put = maintainer.send("PUT", &backup_path(), &[], "a copy").await;
        let options = maintainer.ask("OPTIONS", &backup_path(), &[]).await;
        let listed = maintainer
            .ask("PROPFIND", "/backups/", &[("depth", "1")])
            .await;
        let read = maintainer.ask("GET", &backup_path(), &[]).await;
        let removed = maintainer.ask("DELETE", &backup_path(), &[]).await;

        assert_eq!((put.status, removed.status), (201, 204));
        let all = "DELETE, GET, HEAD, OPTIONS, PROPFIND, PUT";
        assert_eq!(options.header("allow"), Some(all));
        assert_eq!(listed.hrefs(), ["/backups/", &backup_path()]);
        assert_eq!(read.text(), "a copy");
    }
}

#[tokio::test]
async fn a_refused_upload_of_any_size_gets_its_answer_and_costs_no_budget() {
    let server = TestServer::start_with(json!({
        "maxBackupBytes": 600_000,
        "quotas": { "newBackupsPerAccountAndDay": 1 },
        "limits": {
            "newBackupsPerAddressAndHour": 1,
            "unknownBackupsPerAddressAndHour": 1,
        },
    }))
    .await;
    for protocol in Protocol::BOTH {
        for length in [1, 600_000, 1_100_000] {
            let mut operator = server.operator_client(protocol).await;
            for _ in 0..3 {
                let body = vec![7; length];
                let answer = operator.send("PUT", &other_path(), &[], body).await;
                answer.assert_refused(403);
            }
            // The body was read: the connection goes on.
            assert_eq!(operator.ask("GET", "/config", &[]).await.status, 200);
        }
    }
    let mut phone = server.phone(Protocol::Http1).await;
    let put = phone.send("PUT", &other_path(), &[], "mine").await;
    assert_eq!(put.status, 201, "a budget of this address is used up");
    for limit in ["new_backups_per_address", "new_backups_per_account_and_day"] {
        assert_eq!(server.refused(limit).await, 0, "{limit}");
    }
    let counted = metrics(server.admin_address(), "safe_requests_total").await;
    let refused = r#"safe_requests_total{route="backup",method="PUT",class="4xx"} 18"#;
    assert!(counted.iter().any(|line| line == refused), "{counted:?}");
}

#[tokio::test]
async fn an_upload_by_an_operator_with_a_wrong_password_is_unauthorized() {
    let server = TestServer::start().await;
    let mut stranger = server.stranger(Protocol::Http1).await;
    for header in [None, Some("Basic b3BlcmF0b3I6d3Jvbmc=")] {
        for method in ["PUT", "DELETE"] {
            let headers: Vec<_> = header
                .map(|value| ("authorization", value))
                .into_iter()
                .collect();
            let answer = stranger.send(method, &backup_path(), &headers, "x").await;
            answer.assert_refused(401);
        }
    }
}
