//! The programs in `examples/`: they do what their headers promise.

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use threema_safe_server::backup::{
    App, Contents, MasterKey, Nonce, Password, SealedBackup, ThreemaId, seal,
};

#[expect(dead_code, reason = "an example's `main` is not called here")]
#[path = "../../../examples/embed_server.rs"]
mod embed_server;
#[expect(dead_code, reason = "an example's `main` is not called here")]
#[path = "../../../examples/open_backup.rs"]
mod open_backup;

const IDENTITY: &str = "ECHOECHO";
const PASSWORD: &str = " a password with spaces around ";

/// Writes a sealed backup with three contacts.
fn write_backup(file: &Path) -> SealedBackup {
    let identity: ThreemaId = IDENTITY.parse().unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(20_000 * 24 * 60 * 60);
    let document = Contents::sample(&identity, 3, App::Ios, now).to_document();
    let key = MasterKey::derive(&Password::from(PASSWORD), &identity);
    let sealed = seal(&document, &key.backup_key(), Nonce::random());
    fs::write(file, sealed.as_bytes()).unwrap();
    sealed
}

#[tokio::test]
async fn an_embedded_server_stores_a_backup_and_stops() {
    let directory = tempfile::tempdir().unwrap();

    let size = embed_server::round_trip(directory.path()).await.unwrap();

    let stored = fs::read_dir(directory.path().join("data/backups")).unwrap();
    let stored: Vec<_> = stored
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    assert_eq!(stored, [u64::try_from(size).unwrap()]);
}

#[test]
fn a_backup_is_summarised_without_its_private_key() {
    let directory = tempfile::tempdir().unwrap();
    let [backup, password] = ["backup", "password"].map(|name| directory.path().join(name));
    let sealed = write_backup(&backup);
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let password = open_backup::password_from(&password).unwrap();

    let summary = open_backup::summary(&backup, IDENTITY, &password).unwrap();

    let size = format!("size         {} bytes", sealed.as_bytes().len());
    for expected in ["backup of    ECHOECHO\n", &size, "contacts     3\n"] {
        assert!(summary.contains(expected), "{summary}");
    }
    assert!(!summary.contains("privatekey"), "{summary}");
}

#[test]
fn a_wrong_password_and_a_file_that_is_no_backup_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let backup = directory.path().join("backup");
    write_backup(&backup);
    let wrong = Password::from("another password");
    let error = open_backup::summary(&backup, IDENTITY, &wrong).unwrap_err();
    assert!(error.to_string().contains("password"), "{error}");

    fs::write(&backup, "short").unwrap();
    assert!(open_backup::summary(&backup, IDENTITY, &wrong).is_err());
}
