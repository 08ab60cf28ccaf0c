//! First account, which a server without accounts makes from `SAFE_FIRST_ACCOUNT` and
//! `SAFE_FIRST_SECRET_FILE`.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};
use threema_safe_server::account;

use crate::support::commands::{Folder, PROGRAM, finish};
use crate::support::process::ServerProcess;
use crate::support::wire::{Client, Protocol, basic};
use crate::support::{Listening, Site, mode, set_mode, write};

const CHOSEN: &str = "a chosen password, of the phones";

/// A server whose environment asks for the account `phones` with the password in the site's file
/// `secret`.
fn start(site: Site) -> ServerProcess {
    let file = site.folder().join("secret");
    let file = format!("SAFE_FIRST_SECRET_FILE={}", file.display());
    let words = ["/usr/bin/env", "SAFE_FIRST_ACCOUNT=phones", &file, PROGRAM];
    ServerProcess::start_by(&words, Stdio::null(), site)
}

async fn status(server: &ServerProcess, password: &str) -> u16 {
    let login = Some(basic(format!("phones:{password}")));
    let mut phone = Client::connect(server, Protocol::Http1, login).await;
    phone.ask("GET", "/config", &[]).await.status
}

/// The lines of the audit log about first accounts.
fn audited(site: &Site) -> Vec<Value> {
    let log = fs::read_to_string(site.data().join("audit.jsonl")).unwrap_or_default();
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line["command"] == "first account")
        .collect()
}

#[tokio::test]
async fn a_server_without_accounts_makes_its_first_and_a_phone_is_served() {
    for before in [None, Some(r#"{"accounts": []}"#)] {
        let site = Site::new();
        fs::remove_file(site.accounts_file()).unwrap();
        if let Some(text) = before {
            write(&site.accounts_file(), text);
            set_mode(&site.accounts_file(), 0o600);
        }
        // One newline at its end is not part of it.
        write(&site.folder().join("secret"), format!("{CHOSEN}\n"));

        let server = start(site);

        assert_eq!(status(&server, CHOSEN).await, 200, "{before:?}");
        assert_eq!(status(&server, &format!("{CHOSEN}\n")).await, 401);
        let (log, site) = server.stop();
        assert!(log.contains("first account added"), "{log}");
        assert!(!log.contains("phones"), "{log}");
        let accounts = fs::read_to_string(site.accounts_file()).unwrap();
        assert!(
            accounts.contains("argon2id") && !accounts.contains(CHOSEN),
            "{accounts}"
        );
        assert!(accounts.contains(r#""role": "phone""#), "{accounts}");
        assert_eq!(mode(&site.accounts_file()), 0o600);
        let lines = audited(&site);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["outcome"], "done");
        assert_eq!(lines[0]["account"], "phones");
        assert_eq!(lines[0]["role"], "phone");
    }
}

#[tokio::test]
async fn where_there_is_an_account_nothing_is_read_and_nothing_changed() {
    let site = Site::new();
    let before = fs::read(site.accounts_file()).unwrap();

    // There is no file with the password.
    let server = start(site);

    let known = server.phones();
    let mut phone = Client::connect(&server, Protocol::Http1, Some(known)).await;
    assert_eq!(phone.ask("GET", "/config", &[]).await.status, 200);
    assert_eq!(status(&server, CHOSEN).await, 401);
    drop(phone);
    let (log, site) = server.stop();
    assert!(!log.contains("first account"), "{log}");
    assert_eq!(fs::read(site.accounts_file()).unwrap(), before);
    assert!(audited(&site).is_empty());
}

#[tokio::test]
async fn another_account_is_enough_and_a_new_password_stays() {
    let site = Site::new();
    account::update(&site.accounts_file(), |accounts| {
        accounts.retain(|account| account.name.as_str() != "phones");
        Ok::<_, account::FileError>(())
    })
    .unwrap();
    write(&site.folder().join("secret"), CHOSEN);

    let server = start(site);

    assert_eq!(status(&server, CHOSEN).await, 401);
    let (_, site) = server.stop();
    let names: Vec<_> = account::load(&site.accounts_file())
        .unwrap()
        .iter()
        .map(|account| account.name.to_string())
        .collect();
    assert_eq!(names, ["operator", "maintainer"]);
}

#[test]
fn half_of_it_or_a_password_that_is_none_starts_nothing() {
    let folder = Folder::new();
    let config = json!({ "listen": ["127.0.0.1:0"], "admin": { "listen": "127.0.0.1:0" } });
    folder.write("config.json", &config.to_string());
    folder.write("empty", "\n");
    for (variables, code, expected) in [
        (
            &[("SAFE_FIRST_ACCOUNT", "phones")][..],
            2,
            "error: SAFE_FIRST_ACCOUNT is set but SAFE_FIRST_SECRET_FILE is not: set both or neither\n",
        ),
        (
            &[("SAFE_FIRST_SECRET_FILE", "empty")],
            2,
            "error: SAFE_FIRST_SECRET_FILE is set but SAFE_FIRST_ACCOUNT is not: set both or neither\n",
        ),
        (
            &[
                ("SAFE_FIRST_ACCOUNT", "phones"),
                ("SAFE_FIRST_SECRET_FILE", "empty"),
            ],
            2,
            "error: the first account's password in empty is empty\n",
        ),
        (
            &[
                ("SAFE_FIRST_ACCOUNT", "phones"),
                ("SAFE_FIRST_SECRET_FILE", "absent"),
            ],
            1,
            "error: read the first account's password from absent: ",
        ),
    ] {
        let mut serve = folder.command(&["serve"]);
        let output = finish(serve.envs(variables.iter().copied()), b"");

        let said = output.errors;
        assert_eq!(output.code, Some(code), "{said}");
        assert!(said.starts_with(expected), "{said}");
        assert!(!folder.path("accounts.json").exists());
    }
}
