//! Restore from the trash that fails.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::support::commands::{command, finish, run};
use crate::support::trash::{TEN, place_trash};
use crate::support::{ID, OTHER_ID, Site, now, set_modified, write};

tests! {
    a_backup_that_cannot_be_brought_back_stays_in_the_trash_as_it_was: blocking [STRACE];
}

fn a_backup_that_cannot_be_brought_back_stays_in_the_trash_as_it_was() {
    let site = Site::new();
    site.place_backup(ID, &[7; 41], now());
    run(&site, &["scrub"]).with_code(0);
    let trashed = place_trash(&site, OTHER_ID, TEN, [7; 41]);
    fs::rename(site.backup_file(ID), &trashed).unwrap();
    let before = fs::metadata(&trashed).unwrap().modified().unwrap();

    let mut strace = Command::new("strace");
    let restore = command(&site, &["trash", "restore", "--all", "--json"]);
    strace
        .args(["-f", "-o", "/dev/null", "-e", "inject=renameat2:error=EIO"])
        .arg(restore.get_program())
        .args(restore.get_args());
    let failed = finish(strace, b"");

    failed.with_code(1);
    let expected = json!({ "restored": 0, "newer": 0, "missing": 0, "failed": 1 });
    assert_eq!(failed.json(), expected);
    assert_eq!(fs::metadata(&trashed).unwrap().modified().unwrap(), before);
    // What was remembered of its contents is, too.
    fs::rename(&trashed, site.backup_file(OTHER_ID)).unwrap();
    write(&site.backup_file(OTHER_ID), [8; 41]);
    set_modified(&site.backup_file(OTHER_ID), before);
    run(&site, &["scrub"]).with_code(1);
}
