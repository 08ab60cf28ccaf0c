//! Contents of packages, read by the programs that they are for: pagers, shells, linters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::commands::finish;
use crate::support::pages::{NAME, commands, options, write_pages};

tests! {
    the_pages_are_what_a_pager_of_manuals_understands: blocking [GROFF];
    bash_completes_every_command_and_every_option: blocking [BASH];
    fish_completes_every_command_and_every_option: blocking [FISH];
    zsh_reads_its_completions: blocking [ZSH];
    the_list_of_components_is_what_is_locked_and_nothing_of_the_tests: blocking [PYTHON];
    the_linter_of_dockerfiles_has_no_warning: blocking [HADOLINT];
}

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn the_pages_are_what_a_pager_of_manuals_understands() {
    let folder = tempfile::tempdir().unwrap();
    write_pages(folder.path()).unwrap();
    for page in fs::read_dir(folder.path().join("man")).unwrap() {
        let page = page.unwrap().path();
        let mut groff = Command::new("groff");
        groff
            .args(["-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u"])
            .arg(&page);
        let output = finish(groff, b"");
        let said = output.errors;
        assert!(
            output.code == Some(0) && said.is_empty(),
            "{}: {said}",
            page.display()
        );
        let shown = output.out;
        assert!(
            shown.contains("SYNOPSIS") && shown.contains(&format!("{NAME} 0")),
            "{shown}"
        );
    }
}

/// Asks bash, as it does when the tab key is pressed behind `words` and `begun`.
const BASH: &str = r#"source "$1"; shift
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    registered=$(complete -p "$1"); registered=${registered#*-F }
    "${registered%% *}" "$1" "${@: -1}" "${@: -2:1}"; printf '%s\n' "${COMPREPLY[@]}""#;
/// As [`BASH`].
const FISH: &str = r#"source "$argv[1]"; complete -C "$argv[2..]""#;

/// Makes sure that a shell completes every command and every option; `start` is how it runs a
/// script on our file.
fn assert_completes(file: &str, start: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    write_pages(folder.path()).unwrap();
    let file = folder.path().join("completions").join(file);
    for (words, command) in commands() {
        let begun = if command.has_subcommands() { "" } else { "--" };
        let expected: Vec<String> = if command.has_subcommands() {
            let inner = command.get_subcommands();
            inner.map(|inner| inner.get_name().to_owned()).collect()
        } else {
            let options = options(&command).into_iter();
            options.map(|option| format!("--{option}")).collect()
        };
        let mut shell = Command::new(start[0]);
        shell.args(&start[1..]).arg(&file).args(&words).arg(begun);
        let asked = finish(shell, b"");
        let offered = asked.out.lines();
        let offered: BTreeSet<_> = offered
            .map(|line| line.split('\t').next().unwrap())
            .collect();
        for word in &expected {
            assert!(
                offered.contains(word.as_str()),
                "{words:?} {word}: {offered:?} {}",
                asked.errors
            );
        }
    }
}

fn bash_completes_every_command_and_every_option() {
    let file = format!("{NAME}.bash");
    assert_completes(&file, &["bash", "--norc", "-c", BASH, "bash"]);
}

fn fish_completes_every_command_and_every_option() {
    let file = format!("{NAME}.fish");
    assert_completes(&file, &["fish", "--no-config", "-c", FISH]);
}

fn zsh_reads_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    write_pages(folder.path()).unwrap();
    let file = folder.path().join("completions").join(format!("_{NAME}"));
    let mut zsh = Command::new("zsh");
    zsh.arg("-n").arg(&file);
    finish(zsh, b"").with_code(0);
    // By this line it finds what the file is for.
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(&format!("#compdef {NAME}\n")), "{text}");
}

/// Name and version → checksum, of all packages that `Cargo.lock` has.
fn locked() -> BTreeMap<(String, String), String> {
    let lock = fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).unwrap();
    let field = |package: &str, name: &str| {
        let begin = format!("{name} = \"");
        let line = package.lines().find_map(|line| line.strip_prefix(&begin))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    lock.split("[[package]]")
        .filter_map(|package| {
            let key = (field(package, "name")?, field(package, "version")?);
            Some((key, field(package, "checksum").unwrap_or_default()))
        })
        .collect()
}

fn the_list_of_components_is_what_is_locked_and_nothing_of_the_tests() {
    let mut python = Command::new("python3");
    python.arg(Path::new(ROOT).join("packaging/sbom"));
    let bom = finish(python, b"").json();
    assert_eq!(bom["bomFormat"], "CycloneDX");
    let subject = &bom["metadata"]["component"];
    assert_eq!(subject["name"], NAME);
    assert_eq!(subject["version"], env!("CARGO_PKG_VERSION"));
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();

    let locked = locked();
    let mut scopes = BTreeMap::new();
    let mut references = BTreeSet::from([string(&subject["bom-ref"])]);
    for component in bom["components"].as_array().unwrap() {
        let (name, version) = (string(&component["name"]), string(&component["version"]));
        let checksum = &locked[&(name.clone(), version.clone())];
        assert_eq!(component["hashes"][0]["content"], **checksum, "{name}");
        let purl = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
        assert_eq!(component["purl"], *purl);
        assert!(component["licenses"][0]["expression"].is_string(), "{name}");
        assert!(references.insert(purl), "{name} {version} is there twice");
        scopes.insert(name, string(&component["scope"]));
    }
    for (name, expected) in [
        ("rustls", Some("required")),
        ("aws-lc-sys", Some("required")),
        ("musl", None),
        ("cc", Some("excluded")),
        ("serde_derive", Some("excluded")),
        ("proptest", None),
        ("clap_mangen", None),
        ("windows-sys", None),
    ] {
        assert_eq!(scopes.get(name).map(String::as_str), expected, "{name}");
    }
    let mut explained = BTreeSet::new();
    for dependency in bom["dependencies"].as_array().unwrap() {
        explained.insert(string(&dependency["ref"]));
        for other in dependency["dependsOn"].as_array().unwrap() {
            assert!(references.contains(&string(other)), "{other}");
        }
    }
    assert_eq!(explained, references);
}

fn the_linter_of_dockerfiles_has_no_warning() {
    let mut linter = Command::new("hadolint");
    linter.arg("Dockerfile").current_dir(ROOT);
    finish(linter, b"").with_code(0);
}
