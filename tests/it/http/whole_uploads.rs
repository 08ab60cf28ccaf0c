//! Uploads whose body is not the whole backup as it is: refused, and the old one stays. What is
//! whole is stored, whatever else is said about it.

use std::fs;

use crate::support::wire::Protocol;
use crate::support::{ID, TestServer, backup_path, names};

const ENCODED: [(&str, &str); 12] = [
    ("content-encoding", "gzip"),
    ("content-encoding", "Deflate"),
    ("content-encoding", "br"),
    ("content-encoding", "zstd"),
    ("content-encoding", "aws-chunked"),
    ("content-encoding", "identity, gzip"),
    ("content-transfer-encoding", "base64"),
    ("content-type", "multipart/form-data; boundary=x"),
    ("content-type", "MULTIPART/Form-Data"),
    ("content-type", "multipart/byteranges; boundary=x"),
    ("content-type", "application/partial-upload"),
    ("content-type", "message/partial; id=x; number=1"),
];

const PARTS: [(&str, &str); 13] = [
    ("upload-complete", "?0"),
    ("upload-incomplete", "?1"),
    ("upload-complete", "false"),
    ("upload-complete", "0"),
    ("upload-incomplete", ""),
    ("upload-complete", "?1, ?0"),
    ("upload-offset", "0"),
    ("tus-resumable", "1.0.0"),
    ("upload-length", "1000000"),
    ("oc-total-length", "1000000"),
    ("oc-chunked", "1"),
    ("content-range", "bytes 0-2/10"),
    ("x-update-range", "append"),
];

const WHOLE: [(&str, &str); 9] = [
    ("content-encoding", "identity"),
    ("upload-complete", "?1"),
    ("upload-incomplete", "?0"),
    ("upload-draft-interop-version", "6"),
    ("upload-length", "3"),
    ("content-type", "application/octet-stream"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "text/plain; charset=utf-8"),
    ("x-oc-mtime", "1700000000"),
];

#[tokio::test]
async fn a_part_or_another_form_of_a_backup_is_refused_and_changes_nothing() {
    let server = TestServer::start().await;
    server.settled().await;
    let refused = ENCODED.map(|header| (header, 415)).into_iter();
    let refused: Vec<_> = refused.chain(PARTS.map(|header| (header, 400))).collect();
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        let mut stranger = server.stranger(protocol).await;
        for is_there in [false, true] {
            for (header, status) in &refused {
                let answer = phone.send("PUT", &backup_path(), &[*header], "new").await;
                answer.assert_refused(*status);
                let coding = (*status == 415).then_some("identity");
                assert_eq!(answer.header("accept-encoding"), coding, "{header:?}");
                // Who may not upload does not learn what is wrong with the upload.
                let answer = stranger
                    .send("PUT", &backup_path(), &[*header], "new")
                    .await;
                answer.assert_refused(401);
            }
            let data = server.site().data();
            if is_there {
                assert_eq!(fs::read(server.site().backup_file(ID)).unwrap(), b"old");
                assert_eq!(phone.ask("DELETE", &backup_path(), &[]).await.status, 204);
            } else {
                assert!(names(&data.join("backups")).is_empty());
                let put = phone.send("PUT", &backup_path(), &[], "old").await;
                assert_eq!(put.status, 201);
            }
            assert!(names(&data.join("tmp")).is_empty());
        }
    }
}

#[tokio::test]
async fn a_whole_backup_is_stored_whatever_else_is_said_about_it() {
    let server = TestServer::start().await;
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        for header in WHOLE {
            let put = phone.send("PUT", &backup_path(), &[header], "new").await;
            assert_eq!(put.status, 201, "{header:?}");
            let got = phone.ask("GET", &backup_path(), &[]).await;
            assert_eq!(got.text(), "new");
            assert_eq!(got.header("content-encoding"), None);
            assert_eq!(phone.ask("DELETE", &backup_path(), &[]).await.status, 204);
        }
        // Other requests have no upload that this could be about.
        let headers = [
            ENCODED[0],
            PARTS[0],
            ("content-type", "multipart/form-data"),
        ];
        assert_eq!(phone.ask("GET", "/config", &headers).await.status, 200);
    }
}
