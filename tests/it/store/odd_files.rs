//! Files that no memory holds, and names of backups that are none of files: nothing hangs or aborts,
//! and phones can upload again.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use threema_safe_server::store::{FileStore, Store, Upload};

use crate::support::commands::{run, run_with};
use crate::support::trash::{TEN, backups, in_trash, place_trash};
use crate::support::wire::{Client, Protocol};
use crate::support::{ID, OTHER_ID, Site, TestServer, backup_path, digits, make_fifo, names, now};

const TIB: u64 = 1 << 40;

fn path(id: &str) -> String {
    format!("/backups/{id}")
}

/// Makes a backup of this length that takes no space.
fn place_sparse(site: &Site, id: &str, length: u64) {
    site.place_backup(id, b"start", now());
    let file = File::options().write(true).open(site.backup_file(id));
    file.unwrap().set_len(length).unwrap();
}

#[tokio::test]
async fn a_file_of_any_length_is_listed_but_not_read_and_is_replaced_by_the_next_upload() {
    let site = Site::new();
    let long = (0..12).map(digits).collect::<Vec<_>>();
    for id in &long {
        place_sparse(&site, id, 15 * TIB);
    }
    place_sparse(&site, &digits(20), (256 << 20) + 1);
    let server = site.start().await;
    server.settled().await;
    for protocol in Protocol::BOTH {
        let mut phone = server.phone(protocol).await;
        let mut operator = server.operator_client(protocol).await;
        for id in [&long[0], &digits(20)] {
            let head = phone.ask("HEAD", &path(id), &[]).await;
            assert_eq!(head.status, 200);
            for _ in 0..3 {
                let refused = phone.ask("GET", &path(id), &[]).await;
                refused.assert_refused(500);
                assert_eq!(refused.text(), "the storage failed\n");
            }
        }
        let listed = operator
            .ask("PROPFIND", "/backups", &[("depth", "1")])
            .await;
        assert_eq!(listed.hrefs().len(), 14);
        let length = format!("<D:getcontentlength>{}<", 15 * TIB);
        assert_eq!(listed.text().matches(&length).count(), 12);
    }
    let status = server.admin("/status.json").await;
    assert!(status.contains("\"unreadable\":13"), "{status}");
    assert!(status.contains(&format!("\"keptBytes\":{}", 180 * TIB + (256 << 20) + 1)));

    let mut phone = server.phone(Protocol::Http1).await;
    assert_eq!(
        phone.send("PUT", &path(&long[0]), &[], "new").await.status,
        204
    );
    assert_eq!(phone.ask("GET", &path(&long[0]), &[]).await.text(), "new");
    assert_eq!(phone.ask("DELETE", &path(&long[1]), &[]).await.status, 204);
    let site = server.stop().await;
    let scrubbed = run(&site, &["scrub"]);
    assert_eq!(scrubbed.code, Some(1));
    assert_eq!(
        scrubbed.out.matches("cannot be read").count(),
        11,
        "{scrubbed:?}"
    );
    let list = run(&site, &["trash", "list"]);
    assert!(list.with_code(0).contains(&format!("{} bytes", 15 * TIB)));
    assert_eq!(
        run_with(&site, &["trash", "restore"], &long[1]).with_code(0),
        "1 restored\n"
    );
    run(&site, &["prune"]).with_code(0);
}

#[tokio::test]
async fn the_longest_backup_of_any_configuration_is_read_when_the_limit_was_lowered() {
    let site = Site::new().with(json!({ "maxBackupBytes": 4_096 }));
    place_sparse(&site, ID, 4_097);
    place_sparse(&site, OTHER_ID, 256 << 20);
    let store = FileStore::open(&site.data()).unwrap();
    let (meta, body) = store.get(OTHER_ID.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((meta.length, body.len()), (256 << 20, 256 << 20));
    let server = site.start().await;
    let mut phone = server.phone(Protocol::Http2).await;
    let answer = phone.ask("GET", &backup_path(), &[]).await;
    assert_eq!((answer.status, answer.body.len()), (200, 4_097));
}

/// What may have the name of a backup and is no file.
#[derive(Debug, Clone, Copy)]
enum Odd {
    Directory,
    Fifo,
    Socket,
    Link,
    LinkToBackup,
    DanglingLink,
    LinkToDevice,
}

const ODD: [Odd; 7] = [
    Odd::Directory,
    Odd::Fifo,
    Odd::Socket,
    Odd::Link,
    Odd::LinkToBackup,
    Odd::DanglingLink,
    Odd::LinkToDevice,
];

impl Odd {
    fn make(self, path: &Path) {
        match self {
            Self::Directory => {
                fs::create_dir(path).unwrap();
                File::create(path.join("inside")).unwrap();
            }
            Self::Fifo => make_fifo(path),
            // Its path has to be short.
            Self::Socket => {
                let folder = tempfile::tempdir_in("/tmp").unwrap();
                let short = folder.path().join("s");
                drop(UnixListener::bind(&short).unwrap());
                if fs::rename(&short, path).is_err() {
                    make_fifo(path);
                }
            }
            Self::Link => symlink("/etc/passwd", path).unwrap(),
            Self::LinkToBackup => symlink(digits(99), path).unwrap(),
            Self::DanglingLink => symlink("/nowhere", path).unwrap(),
            Self::LinkToDevice => symlink("/dev/zero", path).unwrap(),
        }
    }
}

async fn site_with_odd_names() -> TestServer {
    let site = Site::new();
    site.place_backup(&digits(99), &[7; 41], now());
    fs::create_dir_all(site.data().join("trash")).unwrap();
    for (number, odd) in ODD.into_iter().enumerate() {
        odd.make(&site.backup_file(&digits(number)));
        let trashed = format!("{}.{TEN}", digits(number));
        odd.make(&site.data().join("trash").join(trashed));
    }
    let server = site.start().await;
    server.settled().await;
    server
}

#[tokio::test]
async fn what_is_no_file_is_no_backup_and_an_upload_moves_it_out_of_the_way() {
    let server = site_with_odd_names().await;
    let before = in_trash(server.site());
    let mut operator = server.operator_client(Protocol::Http2).await;
    let listed = operator
        .ask("PROPFIND", "/backups", &[("depth", "1")])
        .await;
    assert_eq!(listed.hrefs().len(), 2);
    let mut phone: Client = server.phone(Protocol::Http1).await;
    for (number, odd) in ODD.into_iter().enumerate() {
        let path = path(&digits(number));
        for method in ["GET", "HEAD", "DELETE"] {
            let answer = phone.ask(method, &path, &[]).await;
            assert_eq!(answer.status, 404, "{odd:?} {method}");
        }
        assert_eq!(
            phone.send("PUT", &path, &[], "new").await.status,
            201,
            "{odd:?}"
        );
        assert_eq!(
            phone.send("PUT", &path, &[], "newer").await.status,
            204,
            "{odd:?}"
        );
        assert_eq!(
            phone.ask("GET", &path, &[]).await.text(),
            "newer",
            "{odd:?}"
        );
    }
    let linked = phone.ask("GET", &path(&digits(99)), &[]).await;
    assert_eq!(linked.body, [7; 41][..], "the target of a link stays");

    // What was there is kept.
    let trash = server.site().data().join("trash");
    let moved = |number: usize| trash.join(format!("{}.no-backup.0", digits(number)));
    assert!(moved(0).join("inside").exists());
    assert!(moved(1).metadata().unwrap().file_type().is_fifo());
    assert_eq!(fs::read_link(moved(3)).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(in_trash(server.site()).len(), before.len() + ODD.len());
    // A second time, too.
    let file = server.site().backup_file(&digits(0));
    fs::remove_file(&file).unwrap();
    Odd::Directory.make(&file);
    assert_eq!(
        phone
            .send("PUT", &path(&digits(0)), &[], "new")
            .await
            .status,
        201
    );
    assert!(trash.join(format!("{}.no-backup.1", digits(0))).is_dir());
}

#[tokio::test]
async fn commands_neither_hang_on_what_is_no_file_nor_touch_it() {
    let site = site_with_odd_names().await.stop().await;
    let before = (backups(&site), in_trash(&site));

    assert_eq!(run(&site, &["scrub"]).with_code(0), "1 sound, 0 damaged\n");
    assert_eq!(run(&site, &["trash", "list"]).with_code(0), "");
    for number in 0..ODD.len() {
        let restored = run_with(&site, &["trash", "restore"], digits(number));
        assert!(
            restored.with_code(1).contains("1 not in the trash"),
            "{restored:?}"
        );
    }
    run(&site, &["prune", "--force"]).with_code(0);
    assert_eq!(
        run(&site, &["trash", "empty", "--yes"]).with_code(0),
        "0 erased\n"
    );

    assert_eq!((backups(&site), in_trash(&site)), before);
}

#[tokio::test]
async fn a_restore_from_the_trash_moves_what_is_no_file_out_of_the_way() {
    let site = Site::new();
    place_trash(&site, ID, TEN, "backup");
    symlink("/etc/passwd", site.backup_file(ID)).unwrap();

    assert_eq!(
        run(&site, &["trash", "restore", "--all"]).with_code(0),
        "1 restored\n"
    );

    assert_eq!(fs::read(site.backup_file(ID)).unwrap(), b"backup");
    assert_eq!(in_trash(&site), [format!("{ID}.no-backup.0")]);
}

#[tokio::test]
async fn uploads_at_once_under_a_name_that_is_taken_leave_one_of_them_and_lose_none() {
    let site = Site::new();
    let store = Arc::new(FileStore::open(&site.data()).unwrap());
    let id = ID.parse().unwrap();
    for round in 0..20 {
        make_fifo(&site.backup_file(ID));
        let uploads = (0..8_u8).map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                {
                    let upload = Upload::new(vec![number; 64].into(), now());
                    store.put(id, upload).await.unwrap()
                }
            })
        });
        join_all(uploads.collect::<Vec<_>>()).await;

        let (_, body) = store.get(id).await.unwrap().unwrap();
        assert_eq!(body.len(), 64, "{round}");
        for name in in_trash(&site) {
            let found = site.data().join("trash").join(name);
            assert!(found.metadata().unwrap().file_type().is_fifo(), "{round}");
        }
        fs::remove_file(site.backup_file(ID)).unwrap();
    }
    assert_eq!(in_trash(&site).len(), 20);
    assert_eq!(names(&site.data().join("tmp")), [""; 0]);
    assert_eq!(store.list_trash().count().await, 0);
}
