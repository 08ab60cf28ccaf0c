//! Service during a fault and after it: the old backup is served, and then everything is.

use std::fs;

use crate::support::process::ServerProcess;
use crate::support::wire::{Answer, Client, Protocol};
use crate::support::{ID, Listening, OTHER_ID, backup_path, names};

/// Far below the size of a disk, and above that of a memory page.
pub(crate) static OLD: [u8; 60_000] = [1; 60_000];
pub(crate) static NEW: [u8; 60_000] = [2; 60_000];

/// Paths of a backup that is there and of one that is not.
pub(crate) fn both_paths() -> [String; 2] {
    [backup_path(), format!("/backups/{OTHER_ID}")]
}

#[track_caller]
pub(crate) fn assert_stored(answer: &Answer) {
    assert!([201, 204].contains(&answer.status), "{answer:?}");
}

/// Makes sure that the old backup, and nothing else, is there, and that it is served.
pub(crate) async fn assert_old(server: &ServerProcess, phone: &mut Client) {
    let data = server.site().data();
    assert_eq!(names(&data.join("backups")), [ID]);
    assert!(names(&data.join("tmp")).is_empty());
    assert!(names(&data.join("trash")).is_empty());
    let old = phone.ask("GET", &backup_path(), &[]).await;
    assert!(old.status == 200 && old.body == OLD[..], "{}", old.status);
}

/// Makes sure that everything works, for old connections and new ones.
pub(crate) async fn assert_full_service(server: &ServerProcess, old_connection: &mut Client) {
    let new_connection = &mut server.phone(Protocol::Http2).await;
    for phone in [old_connection, new_connection] {
        for path in both_paths() {
            assert_stored(&phone.send("PUT", &path, &[], &NEW[..]).await);
            assert!(phone.ask("GET", &path, &[]).await.body == NEW[..]);
            assert_eq!(phone.ask("DELETE", &path, &[]).await.status, 204);
            assert_eq!(phone.ask("GET", &path, &[]).await.status, 404);
        }
        for name in names(&server.site().data().join("trash")) {
            fs::remove_file(server.site().data().join("trash").join(name)).unwrap();
        }
    }
}
