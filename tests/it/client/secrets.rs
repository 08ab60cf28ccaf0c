//! Secrets of the `client` commands: sources, outputs, and messages of failures.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use threema_safe_server::backup::{App, Contents};

use crate::support::commands::{DOCUMENT, Ended, Folder, finish, finish_beside};
use crate::support::{ID, TestServer};

const IDENTITY: [&str; 4] = ["--id", "ECHOECHO", "--password-file", "password"];
const DERIVE: [&str; 4] = ["client", "derive", "--id", "ECHOECHO"];

/// A folder with a password and a sealed document.
fn sealed(document: &str) -> Folder {
    let folder = Folder::new();
    folder.write("password", "a good password");
    folder.write("document.json", document);
    let seal = [
        "client",
        "seal",
        "document.json",
        "--force",
        "--out",
        "blob",
    ];
    folder.done(&[&seal[..], &IDENTITY].concat());
    folder
}

fn open(folder: &Folder, arguments: &[&str]) -> Ended {
    folder.run(&[&["client", "open", "blob"], &IDENTITY[..], arguments].concat())
}

#[test]
fn the_private_key_is_printed_only_if_it_is_asked_for_by_name() {
    let folder = sealed(DOCUMENT);

    let json = open(&folder, &["--json", "--out", "whole.json"]);
    let redacted = open(&folder, &["--json", "--redact"]);
    let by_name = open(&folder, &["--json", "--private-key"]);

    let without = r#"{"info":{"version":1,"device":"test"},"user":{},"contacts":[],"settings":{"syncContacts":false}}"#;
    assert_eq!(json.out, format!("{without}\n"));
    assert_eq!(
        json.errors,
        "the private key is omitted; --private-key prints it\n"
    );
    assert_eq!((redacted.out, redacted.errors), (json.out, String::new()));
    assert_eq!(
        (by_name.out, by_name.errors),
        (format!("{DOCUMENT}\n"), String::new())
    );
    // A file of mode 0600 was asked for.
    let written = std::fs::read_to_string(folder.path("whole.json")).unwrap();
    assert_eq!(written, DOCUMENT);
}

#[test]
fn a_document_out_of_which_no_key_can_be_taken_is_printed_whole_or_not_at_all() {
    let document = r#"{"user":{"privatekey":"AQIDBA=="},"a":1e400}"#;
    let folder = sealed(document);

    let json = open(&folder, &["--json"]);
    let by_name = open(&folder, &["--json", "--private-key"]);

    assert_eq!((json.code, json.out), (Some(1), String::new()));
    let said = json.errors;
    assert!(
        said.starts_with(
            "error: the document cannot be parsed, so the private key cannot be omitted"
        ),
        "{said}"
    );
    assert!(
        said.contains("--private-key") && said.lines().count() == 1,
        "{said}"
    );
    assert_eq!(by_name.out, format!("{document}\n"));
}

#[test]
fn a_variable_that_holds_no_password_is_refused() {
    let folder = Folder::new();
    let login = [
        "client",
        "config",
        "--server",
        "https://127.0.0.1:1/",
        "--username",
        "phones",
    ];
    for (arguments, variable) in [
        (&DERIVE[..], "SAFE_CLIENT_PASSWORD"),
        (&login, "SAFE_CLIENT_SECRET"),
    ] {
        for (value, why) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"shoot\xff", "is not UTF-8"),
        ] {
            let mut command = folder.command(arguments);
            let output = finish(command.env(variable, OsStr::from_bytes(value)), b"");
            assert_eq!(output.code, Some(2));
            let said = output.errors;
            assert_eq!(said, format!("error: {variable} {why}\n"));
        }
    }
}

#[test]
fn a_password_is_the_same_from_a_variable_as_from_a_file() {
    let folder = Folder::new();
    folder.write("password", "shootdeathstar\n");
    let mut command = folder.command(&DERIVE);
    let output = finish(command.env("SAFE_CLIENT_PASSWORD", "shootdeathstar\n"), b"");
    assert_eq!(output.out, format!("{ID}\n"));
    assert_eq!(
        folder.done(&[&["client", "derive"], &IDENTITY[..]].concat()),
        format!("{ID}\n")
    );
}

#[test]
fn a_file_that_holds_no_password_is_refused_or_warned_about() {
    let folder = Folder::new();
    let derive = [&["client", "derive"], &IDENTITY[..]].concat();
    for (contents, code, why) in [
        (&b"\n"[..], 2, "is empty"),
        (b"shoot\xff", 2, "is not UTF-8"),
        (&[b'a'; (64 << 10) + 1], 2, "is too large"),
        (
            b"\xef\xbb\xbfshootdeathstar",
            0,
            "warning: the backup's password: it begins with a byte order mark",
        ),
    ] {
        std::fs::write(folder.path("password"), contents).unwrap();
        let output = folder.run(&derive);
        let said = output.errors;
        assert_eq!(output.code, Some(code), "{said}");
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_document_comes_from_standard_input_too() {
    let folder = Folder::new();
    folder.write("password", "a good password");
    // Larger than what is read at once.
    let identity = "ECHOECHO".parse().unwrap();
    let sample = Contents::sample(&identity, 1_000, App::Ios, std::time::UNIX_EPOCH).to_document();
    let seal = ["client", "seal", "-", "--out", "blob"];
    let mut child = folder
        .command(&[&seal[..], &IDENTITY].concat())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(sample.json())
        .unwrap();
    assert!(child.wait().unwrap().success());

    let opened = open(&folder, &["--out", "again.json"]);

    assert_eq!(opened.code, Some(0));
    assert!(std::fs::read(folder.path("again.json")).unwrap() == sample.json());
}

#[test]
fn what_is_missing_or_wrong_with_a_document_is_said() {
    let folder = Folder::new();
    folder.write("password", "a good password");
    let seal = ["client", "seal", "--out", "blob"];
    let (code, message) = folder.failed(&[&seal[..], &IDENTITY].concat());
    assert_eq!(code, 2);
    assert!(
        message.contains("DOCUMENT.json") && message.contains("--sample"),
        "{message}"
    );

    folder.write("document.json", "{}");
    let forced = folder.run(&[&seal[..], &IDENTITY, &["document.json", "--force"]].concat());
    let said = forced.errors;
    assert!(
        said.starts_with("document.json: an app could not restore this document\n"),
        "{said}"
    );

    folder.write(
        "document.json",
        &DOCUMENT.replace("\"contacts\"", "\"contracts\""),
    );
    let warned = folder.run(&[&seal[..], &IDENTITY, &["document.json"]].concat());
    let said = warned.errors;
    assert!(
        said.starts_with("document.json: an app would not restore all of it\n"),
        "{said}"
    );
    assert!(said.contains("contracts: not in the schema"), "{said}");
}

#[test]
fn what_cannot_be_written_says_what_it_was() {
    let folder = Folder::new();
    folder.write("password", "shootdeathstar");
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = folder.command(&[&["client", "derive"], &IDENTITY[..]].concat());

    let output = Ended::from(command.stdout(full).output().unwrap());

    assert_eq!(output.code, Some(1));
    let said = output.errors;
    assert!(
        said.starts_with("error: write to standard output: No space left"),
        "{said}"
    );
}

#[tokio::test]
async fn an_address_without_config_is_called_wrong() {
    let server = TestServer::start().await;
    let ca = server.site().folder().join("certs/ca.pem");
    let folder = Folder::new();
    folder.write("secret", server.phone_secret());
    let url = format!("{}wrong/", server.url());
    let login = [
        "--username",
        "phones",
        "--secret-file",
        "secret",
        "--ca",
        ca.to_str().unwrap(),
    ];
    let command = folder.command(&[&["client", "check", &url, "--as", "ios"], &login[..]].concat());

    let output = finish_beside(command).await;

    let said = output.out;
    assert_eq!((output.code, said.lines().count()), (Some(1), 1), "{said}");
    let why = "no config at this address (404); check the server's address";
    assert!(
        said.contains("FAILED") && said.trim_end().ends_with(why),
        "{said}"
    );
}
