//! Dockerfile, compose file, compiler version and features compared with the program.
//!
//! `packaging/check-image` and `packaging/check-package` build and try what is made of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use threema_safe_server::config::Config;

use crate::support::commands::finish;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

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

#[test]
fn every_file_that_names_the_compiler_names_the_oldest_supported_one() {
    let minimum = env!("CARGO_PKG_RUST_VERSION");
    let key = format!("rust-version = \"{minimum}\"");
    let image = format!("image: rust:{minimum}-bookworm");
    for (file, expected) in [
        ("Cargo.toml", key.as_str()),
        ("fuzz/Cargo.toml", &key),
        ("packaging/xtask/Cargo.toml", &key),
        (".github/workflows/ci.yml", &image),
    ] {
        let text = fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        assert!(text.contains(expected), "{file} lacks {expected}");
    }
}

/// The dependencies along these edges, each with its features.
fn features(edges: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["tree", "--locked", "--prefix", "none"])
        .args(["--edges", edges, "--format", "{p} {f}"])
        .current_dir(ROOT);
    let ended = finish(cargo, b"");
    let lines = ended.with_code(0).lines();
    lines
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect()
}

#[test]
fn tests_ask_for_no_feature_that_the_server_is_built_without() {
    // Else `cargo build` and `cargo test` would not share the builds of what has the feature and of
    // what uses it.
    let server = features("normal,build");
    let tests = features("normal,build,dev");
    let changed: Vec<_> = server.difference(&tests).collect();
    assert!(server.len() > 150 && changed.is_empty(), "{changed:?}");
}
