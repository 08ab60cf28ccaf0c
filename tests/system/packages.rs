//! List of components of a package (SBOM), and the linter of the Dockerfile. Manual pages and
//! completions are tested in `packaging/xtask`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::commands::finish;

tests! {
    the_list_of_components_is_what_is_locked_and_nothing_of_the_tests: blocking [PYTHON];
    the_linter_of_dockerfiles_has_no_warning: blocking [HADOLINT];
}

const NAME: &str = "threema-safe-server";
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

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
