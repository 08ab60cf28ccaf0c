//! Commands on a terminal: prompts, and what is shown or hidden. `terminal.py` is the terminal.

use std::process::Command;

use crate::support::commands::{DOCUMENT, Folder, PROGRAM, finish};
use crate::support::trash::{TEN, backups, in_trash, place_trash};
use crate::support::{ID, Site, digits, now};

tests! {
    a_password_is_asked_for_and_not_shown_as_it_is_typed: blocking [PYTHON];
    a_password_to_seal_with_is_typed_twice_and_alike: blocking [PYTHON];
    a_terminal_shows_the_private_key_only_if_it_is_asked_for_by_name: blocking [PYTHON];
    text_of_others_does_not_act_on_a_terminal: blocking [PYTHON];
    the_trash_is_emptied_only_after_a_yes_at_the_prompt: blocking [PYTHON];
}

/// The exit code of a command and what a terminal shows of it, at whose prompts the lines of
/// `typed` are typed.
fn ended_on_a_terminal(folder: &Folder, arguments: &[&str], typed: &str) -> (Option<i32>, String) {
    let mut terminal = Command::new("python3");
    terminal
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/system/terminal.py"
        ))
        .arg(PROGRAM)
        .args(arguments)
        .current_dir(folder.path(""));
    let ended = finish(terminal, typed.as_bytes());
    (ended.code, ended.out)
}

/// What a terminal shows of a command that succeeds.
fn on_a_terminal(folder: &Folder, arguments: &[&str], typed: &str) -> String {
    let (code, shown) = ended_on_a_terminal(folder, arguments, typed);
    assert_eq!(code, Some(0), "{shown}");
    shown
}

fn a_password_is_asked_for_and_not_shown_as_it_is_typed() {
    let shown = on_a_terminal(
        &Folder::new(),
        &["client", "derive", "--id", "ECHOECHO"],
        "shootdeathstar\n",
    );

    assert!(shown.starts_with("backup's password: "), "{shown}");
    assert!(shown.contains(ID), "{shown}");
    assert!(!shown.contains("shoot"), "{shown}");
}

fn a_password_to_seal_with_is_typed_twice_and_alike() {
    let folder = Folder::new();
    folder.write("document.json", DOCUMENT);
    let seal = ["client", "seal", "--id", "ECHOECHO", "document.json"];
    let seal = [&seal[..], &["--out", "blob"]].concat();

    let (code, shown) = ended_on_a_terminal(&folder, &seal, "shootdeathstar\nshotdeathstar\n");
    assert_eq!(code, Some(2), "{shown}");
    assert!(shown.contains("backup's password again: "), "{shown}");
    assert!(
        shown.contains("the two entries of the backup's password differ"),
        "{shown}"
    );
    assert!(!folder.path("blob").exists());

    on_a_terminal(&folder, &seal, "shootdeathstar\nshootdeathstar\n");
    let open = ["client", "open", "--id", "ECHOECHO", "blob"];
    let shown = on_a_terminal(&folder, &open, "shootdeathstar\n");
    assert!(shown.contains("the backup of ECHOECHO opens"), "{shown}");
}

fn a_terminal_shows_the_private_key_only_if_it_is_asked_for_by_name() {
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
    let open = [&["client", "open"], &identity[..], &["blob", "--json"]].concat();

    let shown = on_a_terminal(&folder, &open, "");
    let shown_by_name = on_a_terminal(&folder, &[&open[..], &["--private-key"]].concat(), "");

    assert!(!shown.contains("AQID"), "{shown}");
    assert!(shown.contains("the private key is omitted"), "{shown}");
    assert!(shown.contains("\"syncContacts\""), "{shown}");
    assert!(shown_by_name.contains("AQIDBAUG"), "{shown_by_name}");
}

fn text_of_others_does_not_act_on_a_terminal() {
    let folder = Folder::new();
    folder.write("password", "a good password");
    let long = "e".repeat(101);
    let device = format!("\u{202e}\u{9b}2J{long}");
    folder.write("document.json", &DOCUMENT.replace("test", &device));
    let identity = ["--id", "ECHOECHO", "--password-file", "password"];
    let seal = ["client", "seal", "document.json", "--out", "blob"];
    folder.done(&[&seal[..], &identity].concat());
    let open = [&["client", "open", "blob"], &identity[..]].concat();

    let summary = folder.done(&open);
    let json = on_a_terminal(&folder, &[&open[..], &["--json", "--redact"]].concat(), "");
    let piped = folder.done(&[&open[..], &["--json"]].concat());

    let cut = format!("\u{fffd}\u{fffd}2J{}…\n", "e".repeat(96));
    assert!(summary.contains(&cut), "{summary}");
    assert!(json.contains(r#""\u202e\u009b2Je"#), "{json}");
    assert!(piped.contains(&device), "{piped}");
}

fn the_trash_is_emptied_only_after_a_yes_at_the_prompt() {
    let site = Site::new();
    site.place_backup(ID, &[7; 41], now());
    for number in 0..3 {
        place_trash(&site, &digits(number), TEN, [7; 41]);
    }
    let folder = Folder::new();
    let config = site.config_file();
    let arguments = ["--config", config.to_str().unwrap(), "trash", "empty"];
    for answer in ["\n", "n\n", "yess\n"] {
        let (code, shown) = ended_on_a_terminal(&folder, &arguments, answer);
        assert_eq!(code, Some(1), "{shown}");
        assert!(
            shown.contains("Erase 3 backups in the trash for good? [y/N] "),
            "{shown}"
        );
        assert!(shown.contains("nothing was erased"), "{shown}");
    }
    assert_eq!(in_trash(&site).len(), 3);

    let shown = on_a_terminal(&folder, &arguments, "Yes\n");
    assert!(shown.contains("3 erased"), "{shown}");
    assert!(in_trash(&site).is_empty());
    assert_eq!(backups(&site), [ID]);
}
