//! Tests of manual pages and completions: they are complete, and valid for groff and the shells.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::Command;

use crate::pages::{NAME, program, write};

/// Every command with the words of its command line, beginning with the program itself.
fn commands() -> Vec<(Vec<String>, clap::Command)> {
    let mut found = vec![(vec![NAME.to_owned()], program())];
    let mut next = 0;
    while let Some((words, command)) = found.get(next).cloned() {
        for inner in command.get_subcommands() {
            let words = [&words[..], &[inner.get_name().to_owned()]].concat();
            found.push((words, inner.clone()));
        }
        next += 1;
    }
    assert!(found.len() > 15, "{}", found.len());
    found
}

/// The long options of a command.
fn options(command: &clap::Command) -> Vec<&str> {
    let options = command.get_arguments();
    options.filter_map(clap::Arg::get_long).collect()
}

#[test]
fn every_command_has_a_page_that_explains_its_options() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path()).unwrap();
    let folder = folder.path().join("man");

    for (words, command) in commands() {
        let page = folder.join(format!("{}.1", words.join("-")));
        let page = fs::read_to_string(&page).unwrap_or_else(|_| panic!("{}", page.display()));
        for option in options(&command) {
            let written = format!("\\-\\-{}", option.replace('-', "\\-"));
            assert!(page.contains(&written), "{words:?} lacks --{option}");
        }
    }
}

#[test]
fn groff_renders_every_page_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path()).unwrap();
    for page in fs::read_dir(folder.path().join("man")).unwrap() {
        let page = page.unwrap().path();
        let output = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u"])
            .arg(&page)
            .output();
        let Ok(output) = output else {
            return skip("manual pages: groff is not installed");
        };
        let warnings = text(&output.stderr);
        assert!(
            output.status.success() && warnings.is_empty(),
            "{}: {warnings}",
            page.display()
        );
        let rendered = text(&output.stdout);
        assert!(
            rendered.contains("SYNOPSIS") && rendered.contains(&format!("{NAME} 0")),
            "{rendered}"
        );
    }
}

/// Script that prints the shell's completions, as the tab key after the given words shows them.
const BASH: &str = r#"source "$1"; shift
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    registered=$(complete -p "$1"); registered=${registered#*-F }
    "${registered%% *}" "$1" "${@: -1}" "${@: -2:1}"; printf '%s\n' "${COMPREPLY[@]}""#;
const FISH: &str = r#"source "$argv[1]"; complete -C "$argv[2..]""#;

#[test]
fn shells_complete_every_command_and_every_option() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path()).unwrap();
    let folder = folder.path().join("completions");
    let bash = folder.join(format!("{NAME}.bash"));
    let fish = folder.join(format!("{NAME}.fish"));
    let zsh = folder.join(format!("_{NAME}"));

    for (words, command) in commands() {
        let prefix = if command.has_subcommands() { "" } else { "--" };
        let expected: Vec<String> = if command.has_subcommands() {
            let inner = command.get_subcommands();
            inner.map(|inner| inner.get_name().to_owned()).collect()
        } else {
            let options = options(&command).into_iter();
            options.map(|option| format!("--{option}")).collect()
        };
        for (shell, script, file) in [("bash", BASH, &bash), ("fish", FISH, &fish)] {
            let mut completion = Command::new(shell);
            match shell {
                "bash" => completion.args(["--norc", "-c", script, "bash"]).arg(file),
                _ => completion.args(["--no-config", "-c", script]).arg(file),
            };
            let Ok(output) = completion.args(&words).arg(prefix).output() else {
                skip(&format!("completions: {shell} is not installed"));
                continue;
            };
            let offered = text(&output.stdout);
            let offered: BTreeSet<_> = offered
                .lines()
                .map(|line| line.split('\t').next().unwrap())
                .collect();
            for word in &expected {
                assert!(
                    offered.contains(word.as_str()),
                    "{shell}: {words:?} {word}: {offered:?} {}",
                    text(&output.stderr)
                );
            }
        }
    }
    let Ok(output) = Command::new("zsh").arg("-n").arg(&zsh).output() else {
        return skip("completions: zsh is not installed");
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    // The line by which zsh finds the command that the file completes.
    let text = fs::read_to_string(&zsh).unwrap();
    assert!(text.starts_with(&format!("#compdef {NAME}\n")), "{text}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Reports a test that cannot run here. With `REQUIRE_ALL_TESTS` set it fails instead. Written to
/// standard error directly, because the test harness hides the output of tests that pass.
fn skip(text: &str) {
    let required = std::env::var_os("REQUIRE_ALL_TESTS").is_some();
    assert!(!required, "REQUIRE_ALL_TESTS is set: {text}");
    writeln!(std::io::stderr().lock(), "\n*** SKIPPED: {text} ***\n").unwrap();
}
