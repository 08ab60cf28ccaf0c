//! curl and rclone, as operators and maintainers use them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{ID, OTHER_ID, TestServer, names};

tests! {
    curl_backs_up_and_restores_over_both_protocols: tokio [CURL];
    curl_may_ask_with_anyauth_as_an_iphone_does: tokio [CURL];
    rclone_copies_all_backups_out_and_back_in: tokio [RCLONE];
}

/// Runs a program to its end without blocking the server in this process.
pub(crate) async fn run(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap());
    run.await.unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// curl with the server's authority and a file of options, so that no secret is an argument.
fn curl(server: &TestServer, login: Option<(&str, &str)>, arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    let authority = server.site().folder().join("certs/ca.pem");
    command
        .arg("--silent")
        .arg("--show-error")
        .arg("--cacert")
        .arg(authority)
        .args(arguments);
    if let Some((name, secret)) = login {
        let options = server.site().folder().join(format!("{name}.curl"));
        std::fs::write(&options, format!("user = \"{name}:{secret}\"\n")).unwrap();
        command.arg("--config").arg(options);
    }
    command
}

async fn curl_backs_up_and_restores_over_both_protocols() {
    let server = TestServer::start_with(serde_json::json!({ "maxBackupBytes": 1_000_000 })).await;
    let login = Some(("phones", server.phone_secret()));
    let url = |path: &str| format!("{}{path}", server.url());
    let blob = server.site().folder().join("blob");
    // Larger than what curl sends before it waits for "100 Continue".
    let backup: Vec<u8> = (0..1_000_000_u32)
        .map(|number| number.to_le_bytes()[0] ^ 0x5a)
        .collect();
    std::fs::write(&blob, &backup).unwrap();
    let blob = blob.to_str().unwrap();
    let status = [
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code} %{http_version}",
    ];

    for (protocol, version, first) in [("--http1.1", "1.1", "201"), ("--http2", "2", "204")] {
        let put = url(&format!("backups/{ID}"));
        let upload = [&[protocol, "--upload-file", blob, &put][..], &status].concat();
        let sent = run(curl(&server, login, &upload)).await;
        assert_eq!(
            text(&sent.stdout),
            format!("{first} {version}"),
            "{}",
            text(&sent.stderr)
        );

        let got = run(curl(&server, login, &[protocol, &put])).await;
        assert!(got.stdout == backup, "{}", text(&got.stderr));

        // The same upload without credentials, with a wrong password, and over the limit: the
        // status arrives.
        let refused = run(curl(&server, None, &upload)).await;
        assert_eq!(
            text(&refused.stdout),
            format!("401 {version}"),
            "{}",
            text(&refused.stderr)
        );
        let wrong = run(curl(&server, Some(("nobody", "wrong")), &upload)).await;
        assert_eq!(
            text(&wrong.stdout),
            format!("401 {version}"),
            "{}",
            text(&wrong.stderr)
        );
        let large = server.site().folder().join("large");
        std::fs::write(&large, [backup.as_slice(), b"x"].concat()).unwrap();
        let large = large.to_str().unwrap();
        for expect in ["Expect:", "Expect: 100-continue"] {
            let upload = [protocol, "--header", expect, "--upload-file", large, &put];
            let refused = run(curl(&server, login, &[&upload[..], &status].concat())).await;
            assert_eq!(
                text(&refused.stdout),
                format!("413 {version}"),
                "{}",
                text(&refused.stderr)
            );
        }
    }
}

async fn curl_may_ask_with_anyauth_as_an_iphone_does() {
    let server = TestServer::start().await;
    let login = Some(("phones", server.phone_secret()));
    let arguments = [
        "--anyauth",
        "--write-out",
        "\n%{http_code} %{num_connects}",
        &format!("{}config", server.url()),
    ];

    let answer = run(curl(&server, login, &arguments)).await;

    let expected = "{\"maxBackupBytes\":524288,\"retentionDays\":180}\n200 1";
    assert_eq!(text(&answer.stdout), expected, "{}", text(&answer.stderr));
}

fn rclone(server: &TestServer, login: (&str, &str), arguments: &[&str]) -> Command {
    rclone_at(server, &server.url(), login, arguments)
}

/// rclone with an account of a server at this URL, configured by its environment.
pub(crate) fn rclone_at(
    server: &TestServer,
    url: &str,
    (name, secret): (&str, &str),
    arguments: &[&str],
) -> Command {
    let obscured = {
        let mut child = Command::new("rclone")
            .args(["obscure", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        use std::io::Write;
        child
            .stdin
            .take()
            .unwrap()
            .write_all(secret.as_bytes())
            .unwrap();
        text(&child.wait_with_output().unwrap().stdout)
            .trim()
            .to_owned()
    };
    let mut command = Command::new("rclone");
    command
        .env("RCLONE_CONFIG", server.site().folder().join("rclone.conf"))
        .env("RCLONE_CONFIG_SAFE_TYPE", "webdav")
        .env("RCLONE_CONFIG_SAFE_URL", url)
        .env("RCLONE_CONFIG_SAFE_VENDOR", "other")
        .env("RCLONE_CONFIG_SAFE_USER", name)
        .env("RCLONE_CONFIG_SAFE_PASS", obscured)
        .arg("--ca-cert")
        .arg(server.site().folder().join("certs/ca.pem"))
        .args(["--retries", "1", "--low-level-retries", "1"])
        .args(arguments);
    command
}

async fn copied(server: &TestServer, login: (&str, &str), arguments: &[&str]) -> String {
    let output = run(rclone(server, login, arguments)).await;
    assert!(
        output.status.success(),
        "rclone {arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The names and bytes of a folder's files.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), std::fs::read(folder.join(name)).unwrap());
    names(folder).into_iter().map(read).collect()
}

async fn rclone_copies_all_backups_out_and_back_in() {
    let server = TestServer::start().await;
    let backups = server.site().data().join("backups");
    for (number, id) in [ID, OTHER_ID].into_iter().enumerate() {
        std::fs::write(
            backups.join(id),
            vec![u8::try_from(number).unwrap(); 5_000 + number],
        )
        .unwrap();
    }
    let before = files(&backups);
    let out = server.site().folder().join("copy");
    let out = out.to_str().unwrap();

    let operator = ("operator", server.operator_secret());
    let maintainer = ("maintainer", server.site().maintainer_secret());
    let listed = copied(&server, operator, &["lsf", "safe:"]).await;
    assert_eq!(listed, "backups/\nconfig\n");
    copied(&server, operator, &["copy", "safe:backups", out]).await;
    assert!(files(Path::new(out)) == before, "the copy differs");

    // A copy in the wrong direction, by an account that may only read.
    let empty = server.site().folder().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let wrong = ["sync", empty.to_str().unwrap(), "safe:backups"];
    let refused = run(rclone(&server, operator, &wrong)).await;
    assert!(!refused.status.success(), "{}", text(&refused.stderr));
    assert!(files(&backups) == before, "an operator changed a backup");

    for id in [ID, OTHER_ID] {
        let path = format!("safe:backups/{id}");
        copied(&server, maintainer, &["deletefile", &path]).await;
    }
    assert!(files(&backups).is_empty());
    copied(&server, maintainer, &["copy", out, "safe:backups"]).await;
    assert!(files(&backups) == before, "what was copied back differs");
    copied(
        &server,
        operator,
        &["check", out, "safe:backups", "--download"],
    )
    .await;
}
