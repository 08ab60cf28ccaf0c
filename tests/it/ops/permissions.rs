//! Access of other users to what has to be private: told at the start, in the status and by `check`,
//! and mended by `check --fix`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use crate::support::commands::{Ended, run, status};
use crate::support::process::ServerProcess;
use crate::support::trash::{TEN, place_trash};
use crate::support::{ID, Listening, OTHER_ID, Site, ask_admin, mode, now, set_mode, write};

/// A site that another WebDAV server has left.
fn taken_over() -> Site {
    let site = Site::new();
    site.place_backup(ID, &[1; 50], now());
    place_trash(&site, OTHER_ID, TEN, [2; 50]);
    fs::create_dir(site.data().join("tmp")).unwrap();
    for directory in ["", "backups", "trash", "tmp"] {
        set_mode(&site.data().join(directory), 0o700);
    }
    for file in [format!("backups/{ID}"), format!("trash/{OTHER_ID}.{TEN}")] {
        set_mode(&site.data().join(file), 0o600);
    }
    for file in ["state.json", "audit.jsonl"] {
        write(
            &site.data().join(file),
            if file == "state.json" { "{}" } else { "" },
        );
        set_mode(&site.data().join(file), 0o600);
    }
    site
}

/// The findings of `check` with these options.
fn findings(site: &Site, options: &[&str]) -> (Ended, Vec<String>) {
    let checked = run(site, &[&["check", "--json"], options].concat());
    let found: Vec<Value> = serde_json::from_str(&checked.out).unwrap();
    let texts = found.iter().map(|finding| {
        format!(
            "{} {}",
            finding["severity"].as_str().unwrap(),
            finding["text"].as_str().unwrap()
        )
    });
    let texts = texts.collect();
    (checked, texts)
}

fn is_told(texts: &[String], path: &Path, users: &str) -> bool {
    let start = format!("warning {} is accessible to {users}", path.display());
    texts.iter().any(|text| text.starts_with(&start))
}

const EVERY_USER: &str = "every user of this machine";

#[tokio::test]
async fn a_directory_that_others_may_read_is_told_at_the_start_and_in_the_status_and_mended() {
    for (name, exposed, users) in [
        ("backups", 0o755, EVERY_USER),
        ("backups", 0o750, "its group"),
        ("backups", 0o711, EVERY_USER),
        ("trash", 0o705, EVERY_USER),
        ("tmp", 0o777, EVERY_USER),
        ("", 0o755, EVERY_USER),
        ("audit.jsonl", 0o640, "its group"),
    ] {
        let site = taken_over();
        let (_, texts) = findings(&site, &[]);
        assert!(
            !texts.iter().any(|text| text.contains("accessible")),
            "{texts:?}"
        );
        let path = site.data().join(name);
        let path = if name.is_empty() { site.data() } else { path };
        set_mode(&path, exposed);

        let server = ServerProcess::start(site);
        let site = server.site();
        let expected = format!("{} is accessible to {users}", path.display());
        let told = server.log_seen().iter().filter(|line| {
            line.contains("WARN data directory accessible to other users")
                && line.contains(&expected)
        });
        assert_eq!(told.count(), 1, "{:#?}", server.log_seen());
        let admin = server.admin_address();
        let said = status(site, admin, &[]);
        assert!(
            said.out
                .contains(&format!("alerts      warning: {expected}")),
            "{said:?}"
        );
        let ready = ask_admin(admin, "/readyz").await;
        assert!(!ready.contains(&expected), "a warning: {ready}");
        let (_, texts) = findings(site, &[]);
        assert!(is_told(&texts, &path, users), "{texts:?}");

        let (fixed, texts) = findings(site, &["--fix"]);
        fixed.with_code(0);
        let mended = format!(
            "good {}: made private; its mode was {exposed:04o}",
            path.display()
        );
        assert!(texts.contains(&mended), "{texts:?}");
        assert!(
            !texts.iter().any(|text| text.contains("accessible")),
            "{texts:?}"
        );
        let private = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), private);
        let said = status(site, admin, &[]);
        assert!(!said.out.contains("accessible"), "{said:?}");
        let audited = fs::read_to_string(site.data().join("audit.jsonl")).unwrap();
        assert!(
            audited.ends_with(
                "\"command\":\"check --fix\",\"outcome\":\"done\",\"changed\":1,\"failed\":0}\n"
            ),
            "{audited}"
        );
    }
}

#[test]
fn backups_keys_and_accounts_that_others_may_read_are_mended_too() {
    let site = taken_over();
    let files = [
        // A sweep of the server would replace it.
        site.data().join("state.json"),
        site.backup_file(ID),
        site.data().join("trash").join(format!("{OTHER_ID}.{TEN}")),
        site.accounts_file(),
        site.folder().join("certs/privkey.pem"),
    ];
    for file in &files {
        set_mode(file, 0o644);
    }
    let (_, texts) = findings(&site, &[]);
    for directory in ["backups", "trash"] {
        let expected = format!(
            "warning {}: 1 file is accessible to other users; run `check --fix`",
            site.data().join(directory).display()
        );
        assert!(texts.contains(&expected), "{texts:?}");
    }
    // Modes that an operator chose are not those of others.
    let chain = site.folder().join("certs/fullchain.pem");
    set_mode(&chain, 0o644);

    findings(&site, &["--fix"]).0.with_code(0);

    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(&chain), 0o644);
    set_mode(&site.accounts_file(), 0o640);
    findings(&site, &["--fix"]).0.with_code(0);
    assert_eq!(mode(&site.accounts_file()), 0o640);
}

#[test]
fn where_there_is_nothing_to_mend_nothing_is_written() {
    let site = Site::new();
    findings(&site, &["--fix"]).0.with_code(0);
    assert!(!site.data().exists());

    let site = taken_over();
    findings(&site, &["--fix"]).0.with_code(0);
    assert_eq!(
        fs::read_to_string(site.data().join("audit.jsonl")).unwrap(),
        ""
    );
}

#[test]
fn what_a_link_leads_to_is_not_changed() {
    let site = taken_over();
    let other = site.folder().join("other");
    fs::create_dir(&other).unwrap();
    write(&other.join("file"), "of somebody else");
    for path in [&other, &other.join("file")] {
        set_mode(path, 0o755);
    }
    fs::remove_dir(site.data().join("tmp")).unwrap();
    symlink(&other, site.data().join("tmp")).unwrap();
    symlink(other.join("file"), site.backup_file(OTHER_ID)).unwrap();

    let (_, texts) = findings(&site, &["--fix"]);

    let refused = format!(
        "warning {}: mode not changed: it is a symbolic link",
        site.data().join("tmp").display()
    );
    assert!(
        texts.iter().any(|text| text.starts_with(&refused)),
        "{texts:?}"
    );
    assert_eq!(mode(&other) & 0o777, 0o755);
    assert_eq!(mode(&other.join("file")) & 0o777, 0o755);
}

#[tokio::test]
async fn a_chmod_of_the_accounts_file_or_the_key_is_noticed_by_a_running_server() {
    let mut server = ServerProcess::start(taken_over());
    let admin = server.admin_address();
    for (file, log, alert) in [
        (
            server.site().accounts_file(),
            "ERROR accounts reload failed",
            "the accounts file cannot be used",
        ),
        (
            server.site().folder().join("certs/privkey.pem"),
            "ERROR certificate reload failed",
            "the certificate's files cannot be used",
        ),
    ] {
        // Nothing else about it changes.
        for exposed in [0o644, 0o660] {
            set_mode(&file, exposed);
            let told = server.log_through(|line| line.contains(log));
            assert!(told.last().unwrap().contains("chmod 600"), "{told:?}");
            let said = status(server.site(), admin, &[]);
            assert!(said.out.contains(alert), "{said:?}");
        }
        set_mode(&file, 0o600);
        server.log_through(|line| line.contains(" reloaded"));
        let said = status(server.site(), admin, &[]);
        assert!(!said.out.contains(alert), "{said:?}");
    }
}
