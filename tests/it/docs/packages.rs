//! What goes beside the program into a package: manual pages, completions, the list of what it is made of. And what makes
//! the image; `packaging/check-image` and `packaging/check-package` build, look and try.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use serde_json::Value;
use threema_safe_server::cli::Arguments;
use threema_safe_server::config::Config;

use crate::support::commands::text;
use crate::support::skip_without_program;

#[expect(
    dead_code,
    reason = "the file is a program too; its `main` is not called here"
)]
#[path = "../../../packaging/pages.rs"]
mod pages;

const NAME: &str = "threema-safe-server";
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Every command with the words that call it, from the program itself on.
fn commands() -> Vec<(Vec<String>, clap::Command)> {
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    let mut found = vec![(vec![NAME.to_owned()], program)];
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
    pages::write(folder.path()).unwrap();
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
fn the_pages_are_what_a_pager_of_manuals_understands() {
    let folder = tempfile::tempdir().unwrap();
    pages::write(folder.path()).unwrap();
    for page in fs::read_dir(folder.path().join("man")).unwrap() {
        let page = page.unwrap().path();
        let output = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u"])
            .arg(&page)
            .output();
        let Ok(output) = output else {
            return skip_without_program("manual pages: groff is not installed");
        };
        let said = text(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{}: {said}",
            page.display()
        );
        let shown = text(&output.stdout);
        assert!(
            shown.contains("SYNOPSIS") && shown.contains(&format!("{NAME} 0")),
            "{shown}"
        );
    }
}

/// Asks a shell, as it does when somebody presses the tab key behind `words` and `begun`.
const BASH: &str = r#"source "$1"; shift
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    registered=$(complete -p "$1"); registered=${registered#*-F }
    "${registered%% *}" "$1" "${@: -1}" "${@: -2:1}"; printf '%s\n' "${COMPREPLY[@]}""#;
const FISH: &str = r#"source "$argv[1]"; complete -C "$argv[2..]""#;

#[test]
fn shells_complete_every_command_and_every_option() {
    let folder = tempfile::tempdir().unwrap();
    pages::write(folder.path()).unwrap();
    let folder = folder.path().join("completions");
    let bash = folder.join(format!("{NAME}.bash"));
    let fish = folder.join(format!("{NAME}.fish"));
    let zsh = folder.join(format!("_{NAME}"));

    for (words, command) in commands() {
        let begun = if command.has_subcommands() { "" } else { "--" };
        let expected: Vec<String> = if command.has_subcommands() {
            let inner = command.get_subcommands();
            inner.map(|inner| inner.get_name().to_owned()).collect()
        } else {
            let options = options(&command).into_iter();
            options.map(|option| format!("--{option}")).collect()
        };
        for (shell, script, file) in [("bash", BASH, &bash), ("fish", FISH, &fish)] {
            let mut asked = Command::new(shell);
            match shell {
                "bash" => asked.args(["--norc", "-c", script, "bash"]).arg(file),
                _ => asked.args(["--no-config", "-c", script]).arg(file),
            };
            let Ok(output) = asked.args(&words).arg(begun).output() else {
                skip_without_program(&format!("completions: {shell} is not installed"));
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
        return skip_without_program("completions: zsh is not installed");
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    // By this line it finds what the file is for.
    let text = fs::read_to_string(&zsh).unwrap();
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

#[test]
fn the_list_of_components_is_what_is_locked_and_nothing_of_the_tests() {
    let output = Command::new("python3")
        .arg(Path::new(ROOT).join("packaging/sbom"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bom: Value = serde_json::from_slice(&output.stdout).unwrap();
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

const DOCKERFILE: &str = include_str!("../../../Dockerfile");
const COMPOSE: &str = include_str!("../../../docs/compose.yaml");

/// Instruction and arguments of each line of the Dockerfile, in order.
fn instructions() -> Vec<(String, String)> {
    let lines = DOCKERFILE.lines().filter(|line| !line.starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    text.lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(instruction, arguments)| (instruction.to_owned(), arguments.trim().to_owned()))
        .collect()
}

#[test]
fn the_image_is_described_without_what_linters_warn_about() {
    let all = instructions();
    let of = |wanted: &str| -> Vec<&str> {
        let found = all.iter().filter(|(instruction, _)| instruction == wanted);
        found.map(|(_, arguments)| arguments.as_str()).collect()
    };

    // The compiler's version is named; what phones speak to has no base at all.
    assert_eq!(of("FROM"), ["${BUILDER} AS build", "scratch"]);
    let base = of("ARG")[0].strip_prefix("BUILDER=").unwrap();
    let (_, tag) = base.rsplit_once(':').unwrap();
    let minimum = env!("CARGO_PKG_RUST_VERSION");
    assert_eq!(tag, format!("{minimum}-alpine"));
    assert!(of("ADD").is_empty() && of("SHELL").is_empty());
    for (instruction, count) in [("ENTRYPOINT", 1), ("CMD", 1), ("VOLUME", 1)] {
        let found = of(instruction);
        assert_eq!(found.len(), count, "{instruction}");
        serde_json::from_str::<Vec<String>>(found[0]).unwrap();
    }
    let (_, health) = of("HEALTHCHECK")[0].split_once("CMD ").unwrap();
    serde_json::from_str::<Vec<String>>(health).unwrap();
    assert!(of("WORKDIR").iter().all(|folder| folder.starts_with('/')));
    assert_eq!(of("USER"), ["10001:10001"]);
    assert_eq!(of("STOPSIGNAL"), ["SIGTERM"]);

    let linter = Command::new("hadolint")
        .arg("Dockerfile")
        .current_dir(ROOT)
        .output();
    match linter {
        Ok(output) => assert!(output.status.success(), "{}", text(&output.stdout)),
        Err(_) => skip_without_program("the linter of Dockerfiles: hadolint is not installed"),
    }
}

#[test]
fn the_variables_of_the_image_and_of_compose_are_those_that_the_program_knows() {
    let mut variables = Vec::new();
    for (instruction, arguments) in instructions() {
        if instruction == "ENV" {
            let pairs = arguments.split_whitespace();
            variables.extend(pairs.filter_map(|pair| pair.split_once('=')).map(own));
        }
    }
    let compose = COMPOSE
        .lines()
        .filter_map(|line| line.trim().split_once(": "));
    variables.extend(
        compose
            .filter(|(name, _)| name.starts_with("SAFE_"))
            .map(own),
    );
    let names: Vec<_> = variables.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"SAFE_FIRST_ACCOUNT") && names.contains(&"SAFE_FIRST_SECRET_FILE"));
    assert!(variables.len() > 6, "{variables:?}");

    let config = Config::parse(b"{}", Path::new("/data/config.json"), variables).unwrap();

    assert_eq!(config.accounts_file, Path::new("/data/accounts.json"));
    assert!(config.anonymous_restore);
    assert!(DOCKERFILE.contains("VOLUME [\"/data\"]") && COMPOSE.contains("- data:/data"));
}

/// A variable with what a shell or compose would make of its value.
fn own((name, value): (&str, &str)) -> (String, String) {
    let value = value.trim_matches('"');
    let value = value.replace(
        "${SAFE_NAME:?put SAFE_NAME=your.name into .env}",
        "localhost",
    );
    (name.to_owned(), value)
}
