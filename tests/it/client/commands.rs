//! `client` commands: the backup format, and single requests.
//!
//! Over 500 lines: one test for each command and each way in which it fails.

use std::io::Write;

use serde_json::Value;

use crate::support::commands::{DOCUMENT, Ended, Folder, finish, finish_beside};
use crate::support::{ID, Site, TestServer, mode, names};

#[test]
fn derive_prints_the_published_backup_id() {
    let folder = Folder::new();
    folder.write("password", "shootdeathstar\n");

    let plain = folder.done(&[
        "client",
        "derive",
        "--id",
        "echoecho",
        "--password-file",
        "password",
    ]);
    let json = folder.done(&[
        "client",
        "derive",
        "--id",
        "ECHOECHO",
        "--password-file",
        "password",
        "--json",
    ]);

    assert_eq!(plain, format!("{ID}\n"));
    assert_eq!(json, format!("{{\"backupId\":\"{ID}\"}}\n"));
}

#[test]
fn a_password_comes_from_standard_input_or_the_environment_too() {
    let folder = Folder::new();
    let derive = ["client", "derive", "--id", "ECHOECHO"];
    let from_input = folder.command(&[&derive[..], &["--password-file", "-"]].concat());
    let derived = finish(from_input, b"shootdeathstar");
    assert_eq!(derived.out, format!("{ID}\n"));

    let mut from_variable = folder.command(&derive);
    let derived = finish(
        from_variable.env("SAFE_CLIENT_PASSWORD", "shootdeathstar"),
        b"",
    );
    assert_eq!(derived.out, format!("{ID}\n"));

    let (code, message) = folder.failed(&derive);
    assert_eq!(code, 2);
    assert!(message.contains("no backup's password"), "{message}");
}

#[test]
fn what_was_sealed_opens_and_files_are_private() {
    let folder = Folder::new();
    folder.write("password", "a good password");
    folder.write("document.json", DOCUMENT);
    let identity = ["--id", "ECHOECHO", "--password-file", "password"];
    let with = |head: &[&'static str], tail: &[&'static str]| {
        folder.done(&[head, &identity, tail].concat())
    };

    with(&["client", "seal"], &["document.json", "--out", "blob"]);
    let printed = with(&["client", "open"], &["blob", "--json", "--private-key"]);
    let summary = with(&["client", "open"], &["blob", "--out", "again.json"]);

    assert_eq!(printed, format!("{DOCUMENT}\n"));
    assert!(
        !summary.contains("AQID"),
        "the private key was not asked for: {summary}"
    );
    assert_eq!(
        std::fs::read_to_string(folder.path("again.json")).unwrap(),
        DOCUMENT
    );
    assert_eq!(
        (mode(&folder.path("again.json")), mode(&folder.path("blob"))),
        (0o600, 0o600)
    );
}

/// The five ways in which a backup does not open, each with its name.
#[test]
fn a_backup_that_does_not_open_says_why_on_one_line() {
    use crypto_secretbox::aead::Aead;
    use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
    let folder = Folder::new();
    folder.write("password", "shootdeathstar");
    let key =
        hex::decode("51c3d8d752fb6e1fd3199ead7f0895d6e3893ff691f2a5ee1976ed0897fc2f66").unwrap();
    let cipher = XSalsa20Poly1305::new_from_slice(&key).unwrap();
    let seal = |contents: &[u8]| {
        [
            vec![9; 24],
            cipher.encrypt((&[9; 24]).into(), contents).unwrap(),
        ]
        .concat()
    };
    let gzip = |contents: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(contents).unwrap();
        gzip.finish().unwrap()
    };
    let mut damaged = seal(&gzip(DOCUMENT.as_bytes()));
    *damaged.last_mut().unwrap() ^= 1;
    let bomb = gzip(&vec![b' '; (64 << 20) + 1]);

    for (blob, word) in [
        (vec![0; 40], "too short"),
        (damaged, "wrong password or damaged"),
        (seal(DOCUMENT.as_bytes()), "not gzip"),
        (seal(&bomb), "too large"),
        (
            seal(&gzip(&DOCUMENT.as_bytes()[1..])),
            "not a backup document",
        ),
        (seal(b"\x1f\x8b"), "broken gzip"),
    ] {
        std::fs::write(folder.path("blob"), blob).unwrap();
        let arguments = [
            "client",
            "open",
            "--id",
            "ECHOECHO",
            "--password-file",
            "password",
            "blob",
        ];
        let (code, message) = folder.failed(&arguments);
        assert_eq!(code, 1, "{message}");
        assert!(message.starts_with(&format!("error: {word}")), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

/// Runs `client open` on a blob that was sealed from `document`.
fn opened(document: &str, arguments: &[&str]) -> String {
    let folder = Folder::new();
    folder.write("password", "a good password");
    folder.write("document.json", document);
    let identity = ["--id", "ECHOECHO", "--password-file", "password"];
    let seal = ["document.json", "--force", "--out", "blob"];
    folder.done(&[&["client", "seal"], &identity[..], &seal].concat());
    folder.done(&[&["client", "open"], &identity[..], &["blob"], arguments].concat())
}

#[test]
fn a_summary_has_the_identity_the_amounts_and_what_the_apps_would_not_restore() {
    let document = r#"{
        "info": {"version": 1, "device": "6.4.2A/de_CH"},
        "user": {"privatekey": "AQIDBAUGBwhkZWZnaGlqawECAwQFBgcIZGVmZ2hpams=", "nickname": "Zoë\u001b[2J",
                 "links": [{"type": "email", "value": "zoe@example.org"}]},
        "contacts": [{"identity": "AAAAAAAA", "hidden": 1, "createdAt": 1577836800000},
                     {"identity": "BBBBBBBB", "hidden": 1}],
        "groups": [],
        "distributionlists": [{"name": "List", "members": []}],
        "settings": {"syncContacts": false}
    }"#;

    let summary = opened(document, &[]);

    let size = document.len() + 63;
    let mut lines = summary.lines();
    let mut newest = None;
    for expected in [
        "the backup of ECHOECHO opens",
        "  nickname            Zoë\u{fffd}[2J",
        "  made by             6.4.2A/de_CH",
        "  contacts            2",
        "  groups              0",
        "  distribution lists  1",
        "  links               1",
        "  newest entry        2020-01-01, ",
        &format!("  document            {} bytes", document.len()),
        &format!(
            "  size                {size} bytes encrypted, 0.1 % of the usual maxBackupBytes (524288)"
        ),
        "findings, which the apps would not restore as they are:",
        "  error: contacts[0].hidden: not a boolean; Android: uses its default; iOS: cannot restore \
         the backup (and 1 more like it)",
        "  warning: distributionlists: distribution lists; iOS: has no distribution lists and ignores them",
    ] {
        let line = lines.next().unwrap();
        if expected.ends_with(", ") {
            newest = line.strip_prefix(expected);
        } else {
            assert_eq!(line, expected, "{summary}");
        }
    }
    assert_eq!(lines.next(), None);
    let days = newest.unwrap().strip_suffix(" days ago").unwrap();
    assert!(days.parse::<u32>().unwrap() > 2_000, "{days}");
    assert_eq!(
        opened(DOCUMENT, &[]).lines().last(),
        Some("no findings: both apps would restore everything")
    );
}

#[test]
fn the_bound_for_unpacking_can_be_set() {
    let folder = Folder::new();
    folder.write("password", "a good password");
    folder.write("document.json", DOCUMENT);
    let identity = ["--id", "ECHOECHO", "--password-file", "password"];
    folder.done(
        &[
            &["client", "seal"],
            &identity[..],
            &["document.json", "--out", "blob"],
        ]
        .concat(),
    );
    let open = |bytes: usize| {
        let bytes = bytes.to_string();
        let arguments = ["blob", "--max-document-bytes", &bytes];
        let output = folder.run(&[&["client", "open"], &identity[..], &arguments].concat());
        (output.code.unwrap(), output.errors)
    };

    assert_eq!(open(DOCUMENT.len()).0, 0);
    let (code, message) = open(DOCUMENT.len() - 1);
    let bound = DOCUMENT.len() - 1;
    let expected = format!(
        "error: too large: the document inside has more than {bound} bytes; --max-document-bytes sets the limit\n"
    );
    assert_eq!((code, message), (1, expected));
}

#[test]
fn redact_leaves_the_private_key_out_wherever_the_document_goes() {
    let printed = opened(DOCUMENT, &["--json", "--redact"]);
    assert_eq!(
        printed,
        r#"{"info":{"version":1,"device":"test"},"user":{},"contacts":[],"settings":{"syncContacts":false}}
"#
    );

    let folder = Folder::new();
    let out = folder.path("redacted.json");
    let summary = opened(DOCUMENT, &["--redact", "--out", out.to_str().unwrap()]);
    assert!(
        summary.contains(&format!("written to {}", out.display())),
        "{summary}"
    );
    assert_eq!(std::fs::read_to_string(&out).unwrap() + "\n", printed);

    // What is said of the backup is not changed by it.
    let whole = summary.lines().nth_back(1).unwrap();
    assert_eq!(whole, "no findings: both apps would restore everything");
    let size = format!("document            {} bytes", DOCUMENT.len());
    assert!(summary.contains(&size), "{summary}");
}

#[test]
fn only_a_regular_file_that_is_not_read_is_replaced() {
    let folder = Folder::new();
    folder.write("password", "a good password");
    folder.write("document.json", DOCUMENT);
    std::fs::create_dir(folder.path("folder")).unwrap();
    std::os::unix::fs::symlink("document.json", folder.path("link")).unwrap();
    let identity = ["--id", "ECHOECHO", "--password-file", "password"];
    let seal = |out| {
        let seal = ["client", "seal", "document.json", "--out", out];
        [&seal[..], &identity].concat()
    };
    folder.done(&seal("blob"));
    folder.done(&seal("blob"));

    for (out, why) in [
        ("-", "- is not a file"),
        ("/dev/null", "not a regular file"),
        ("folder", "not a regular file"),
        ("link", "not a regular file"),
        ("password", "cannot be the output as well"),
        ("./document.json", "document.json is an input file"),
    ] {
        let (code, message) = folder.failed(&seal(out));
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(why), "{message}");
    }
    let open = [&["client", "open", "blob"], &identity[..]].concat();
    for (out, why) in [("blob", "blob is an input file"), ("-", "use --json")] {
        let (code, message) = folder.failed(&[&open[..], &["--out", out]].concat());
        assert_eq!(code, 2, "{message}");
        assert!(message.contains(why), "{message}");
    }
    folder.done(&open);
}

#[test]
fn what_is_too_large_is_not_read() {
    let folder = Folder::new();
    folder.write("password", "a good password");
    let file = std::fs::File::create(folder.path("large")).unwrap();
    file.set_len((256 << 20) + 1).unwrap();
    let open = ["client", "open", "large", "--id", "ECHOECHO"];

    let (code, message) = folder.failed(&[&open[..], &["--password-file", "password"]].concat());

    let expected = "error: large is larger than 268435456 bytes\n";
    assert_eq!((code, message.as_str()), (2, expected));
}

#[test]
fn a_document_that_an_app_cannot_restore_is_sealed_only_by_force() {
    let folder = Folder::new();
    folder.write("password", "a good password");
    folder.write(
        "document.json",
        &DOCUMENT.replace(r#","settings":{"syncContacts":false}"#, ""),
    );
    let seal = [
        "client",
        "seal",
        "--id",
        "ECHOECHO",
        "--password-file",
        "password",
        "--out",
        "blob",
        "document.json",
    ];

    let (code, message) = folder.failed(&seal);
    assert_eq!(code, 2);
    assert_eq!(
        message,
        "error: document.json: an app could not restore this document (--force accepts it)\n  \
         error: settings: missing; Android: keeps its own settings; iOS: cannot restore the backup\n"
    );
    assert!(!folder.path("blob").exists());

    let forced = folder.run(&[&seal[..], &["--force"]].concat());
    assert_eq!(forced.code, Some(0));
    assert!(forced.errors.contains("error: settings: missing"));
    assert!(folder.path("blob").exists());

    for unreadable in [
        r#""\ud800""#.to_owned(),
        "1e400".into(),
        "[".repeat(200) + &"]".repeat(200),
    ] {
        folder.write("document.json", &format!("{{\"a\":{unreadable}}}"));
        let (code, message) = folder.failed(&seal);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains("(--force accepts it): "), "{message}");
        let forced = folder.run(&[&seal[..], &["--force"]].concat());
        assert_eq!(forced.code, Some(0));
        let warned = forced.errors;
        assert!(
            warned.contains("could not restore this document: "),
            "{warned}"
        );
    }
}

#[test]
fn a_sample_is_sealed_as_either_app_writes_it() {
    let folder = Folder::new();
    folder.write("password", "a good password");
    let identity = ["--id", "ECHOECHO", "--password-file", "password"];
    for (app, device) in [("android", "6.4.2A/de_CH"), ("ios", "ios")] {
        let seal = ["--sample", "25", "--as", app, "--out", "blob"];
        folder.done(&[&["client", "seal"], &identity[..], &seal].concat());

        let printed =
            folder.done(&[&["client", "open"], &identity[..], &["blob", "--json"]].concat());

        let document: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(document["info"]["device"], device);
        assert_eq!(document["contacts"].as_array().unwrap().len(), 25);
        assert_eq!(
            document.get("distributionlists").is_some(),
            app == "android"
        );
    }
    for wrong in [
        &["--out", "blob"][..],
        &["--sample", "1", "document.json", "--out", "blob"],
        &["--sample", "50001", "--out", "blob"],
        &["document.json", "--as", "ios", "--out", "blob"],
    ] {
        let (code, message) = folder.failed(&[&["client", "seal"], &identity[..], wrong].concat());
        assert_eq!(code, 2, "{message}");
    }
}

#[test]
fn a_password_that_the_apps_call_bad_is_warned_about_and_taken() {
    let folder = Folder::new();
    folder.write("password", "1234567");
    let derived = folder.run(&[
        "client",
        "derive",
        "--id",
        "ECHOECHO",
        "--password-file",
        "password",
    ]);

    assert_eq!(derived.code, Some(0));
    assert_eq!(derived.out.trim().len(), 64);
    let warnings = derived.errors;
    assert_eq!(warnings.lines().count(), 2, "{warnings}");
    assert!(
        warnings.contains("fewer than 8") && warnings.contains("only digits"),
        "{warnings}"
    );
    assert!(!warnings.contains("1234567"), "{warnings}");
}

#[test]
fn standard_input_can_be_named_once_only() {
    let folder = Folder::new();
    for arguments in [
        &[
            "client",
            "seal",
            "--id",
            "ECHOECHO",
            "--password-file",
            "-",
            "-",
            "--out",
            "blob",
        ][..],
        &[
            "client",
            "open",
            "--id",
            "ECHOECHO",
            "--password-file",
            "-",
            "-",
        ],
        &[
            "client",
            "delete",
            "--id",
            "ECHOECHO",
            "--password-file",
            "-",
            "--server",
            "https://localhost:1/",
            "--username",
            "phones",
            "--secret-file",
            "-",
        ],
    ] {
        let (code, message) = folder.failed(arguments);
        assert_eq!(code, 2, "{message}");
        assert!(message.contains("can be used only once"), "{message}");
    }
}

/// `client check` against a server, with what is needed to get in.
async fn check(server: &TestServer, secret: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let folder = Folder::new();
    folder.write("secret", secret);
    let authority = server.site().folder().join("certs/ca.pem");
    let url = server.url();
    let access = [
        "--username",
        "phones",
        "--secret-file",
        "secret",
        "--ca",
        authority.to_str().unwrap(),
    ];
    let command = folder.command(&[&["client", "check", &url], &access[..], arguments].concat());
    let output = finish_beside(command).await;
    assert_eq!(output.errors, "");
    (output.code, output.out)
}

const STEPS: [&str; 8] = [
    "config",
    "put",
    "get",
    "compare",
    "overwrite",
    "get again",
    "delete",
    "gone",
];

#[tokio::test]
async fn check_runs_an_end_to_end_test_as_both_apps() {
    let server = TestServer::start().await;
    let secret = server.phone_secret();

    let (code, said) = check(&server, secret, &[]).await;
    let (quiet_code, quiet) = check(&server, secret, &["--quiet"]).await;
    let (json_code, json) = check(&server, secret, &["--json", "--as", "ios"]).await;

    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<_> = said.lines().collect();
    let apps = ["Android", "iOS"];
    let expected = apps.iter().flat_map(|app| STEPS.map(|step| (app, step)));
    assert_eq!(lines.len(), 16, "{said}");
    for (line, (app, step)) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(&format!("{app:<7}  {step:<9}  ok    ")),
            "{line}"
        );
        assert!(line.contains(" ms"), "{line}");
    }
    assert_eq!((quiet_code, quiet.as_str()), (Some(0), ""));
    assert_eq!(json_code, Some(0), "{json}");
    for (line, step) in json.lines().zip(STEPS) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["app"], &line["step"], &line["ok"]),
            (&"ios".into(), &step.into(), &true.into())
        );
        assert!(line["milliseconds"].is_u64() && line["text"].is_string());
    }
    assert_eq!(
        names(&server.site().data().join("backups")),
        Vec::<String>::new()
    );
    // Five lives, each an identity of its own.
    assert_eq!(names(&server.site().data().join("trash")).len(), 5);
}

#[tokio::test]
async fn check_stops_at_the_first_failure_or_goes_on() {
    let server = Site::new()
        .with(serde_json::json!({"maxBackupBytes": 4_096}))
        .start()
        .await;
    let steps = |said: &str| -> Vec<(String, bool)> {
        said.lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                (
                    line["step"].as_str().unwrap().to_owned(),
                    line["ok"].as_bool().unwrap(),
                )
            })
            .collect()
    };

    let (code, refused) = check(&server, "wrong", &["--as", "android", "--quiet"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(refused.lines().count(), 1, "{refused}");
    assert!(refused.contains("config     FAILED"), "{refused}");
    assert!(
        refused.contains("rejects user name and password (401)"),
        "{refused}"
    );

    let (code, stopped) = check(&server, server.phone_secret(), &["--as", "ios", "--json"]).await;
    assert_eq!(code, Some(1));
    // Nothing was sent, and so nothing is deleted.
    let expected = [("config", true), ("put", false)];
    assert_eq!(
        steps(&stopped),
        expected.map(|(step, ok)| (step.to_owned(), ok))
    );
    assert!(stopped.contains("the app would not send it"), "{stopped}");

    let (code, all) = check(
        &server,
        server.phone_secret(),
        &["--keep-going", "--as", "ios", "--json"],
    )
    .await;
    assert_eq!(code, Some(1));
    let expected = STEPS.map(|step| (step.to_owned(), step == "config"));
    assert_eq!(steps(&all), expected);
    for line in all.lines().skip(6) {
        assert!(line.contains("no upload succeeded"), "{line}");
    }
}

#[test]
fn an_authority_that_cannot_be_trusted_says_why() {
    let folder = Folder::new();
    folder.write("empty.pem", "");
    let url = "https://127.0.0.1:1/";
    for (file, why) in [
        ("missing.pem", "cannot be read: No such file"),
        ("empty.pem", "contains no usable certificate"),
    ] {
        let (code, message) = folder.failed(&["client", "check", url, "--ca", file]);
        assert_eq!(code, 1, "{message}");
        assert!(message.contains(&format!("{file}: {why}")), "{message}");
    }
}

#[test]
fn check_says_why_a_server_cannot_be_reached() {
    let output = Folder::new().run(&["client", "check", "https://127.0.0.1:1/", "--as", "android"]);

    assert_eq!(output.code, Some(1));
    let said = output.out;
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("FAILED") && said.contains("cannot be reached: "),
        "{said}"
    );
    assert!(said.to_lowercase().contains("refused"), "{said}");
}

#[test]
fn a_step_that_takes_too_long_is_broken_off() {
    // Accepts connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let arguments = ["client", "check", &url, "--as", "ios", "--timeout", "1"];

    let output = Folder::new().run(&arguments);

    assert_eq!(output.code, Some(1));
    let said = output.out;
    assert!(
        said.contains("FAILED") && said.contains("took longer than 1 second\n"),
        "{said}"
    );
}

#[test]
fn check_fails_when_its_output_is_closed() {
    let folder = Folder::new();
    let mut command = folder.command(&["client", "check", "https://127.0.0.1:1/"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let output = Ended::from(command.stdout(writer).output().unwrap());

    assert_eq!(output.code, Some(1), "{}", output.errors);
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_told_from_one_that_cannot_be_reached() {
    let server = TestServer::start().await;
    let url = server.url();
    let outputs = tokio::task::spawn_blocking(move || {
        let folder = Folder::new();
        let config = folder.run(&["client", "config", "--server", &url]);
        (config, folder.run(&["client", "check", &url]))
    });
    let (config, check) = outputs.await.unwrap();

    let why = "the server's certificate is not trusted: invalid peer certificate: UnknownIssuer";
    let hint = "hint: --ca FILE adds a trusted certificate authority, such as \
                certs/development-ca.pem from `init`\n";
    assert_eq!(config.code, Some(1));
    assert_eq!(config.errors, format!("error: {why}\n{hint}"));
    assert_eq!(check.code, Some(1));
    assert_eq!(check.errors, hint);
    let said = check.out;
    assert_eq!(
        said.lines().filter(|line| line.ends_with(why)).count(),
        2,
        "{said}"
    );
}
