//! Rules of the source tree that the compiler does not check: length and header of each file,
//! registered tests, documented keys.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Lines of a file at the most, unless its header gives a reason.
const LONGEST: usize = 500;
/// How the reason for a longer file begins, in its header.
const REASON: &str = "\n//! Over 500 lines: ";

pub(crate) fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty());
    files
}

/// A file's text up to its unit tests; nothing of a file of unit tests.
pub(crate) fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    if path.to_str().unwrap().ends_with("tests.rs") {
        return String::new();
    }
    text.split("\n#[cfg(test)]\n").next().unwrap().to_owned()
}

#[test]
fn every_file_has_a_header_and_is_short() {
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//! "),
            "{} begins without a header",
            path.display()
        );
        let lines = text.lines().count();
        assert_eq!(
            lines > LONGEST,
            text.contains(REASON),
            "{} has {lines} lines",
            path.display()
        );
        for word in [concat!("TO", "DO"), concat!("FIX", "ME")] {
            assert!(!text.contains(word), "{} has a {word}", path.display());
        }
    }
}

#[test]
fn every_test_that_a_document_names_exists() {
    let tests = rust_files("tests");
    let mut found = 0;
    for name in ["docs/DURABILITY.md"] {
        let text = fs::read_to_string(Path::new(ROOT).join(name)).unwrap();
        let cited = text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter_map(|code| code.rsplit_once("::"));
        for (module, test) in
            cited.filter(|(module, test)| !format!("{module}{test}").contains(' '))
        {
            if test == "…" {
                continue;
            }
            let file = format!("/{}.rs", module.replace("::", "/"));
            let declares = |path: &Path| {
                let text = fs::read_to_string(path).unwrap();
                text.contains(&format!("fn {test}("))
            };
            let is_there = tests.iter().any(|path| {
                let path = path.as_path();
                path.to_str().unwrap().ends_with(&file) && declares(path)
            });
            assert!(is_there, "{name} names {module}::{test}");
            found += 1;
        }
    }
    assert!(found > 10, "{found}");
}

/// The tests that a file of `tests/system` has: functions without parameters and without a result.
fn test_functions(text: &str) -> BTreeSet<&str> {
    let lines = text.lines();
    lines
        .filter_map(|line| {
            let line = line.strip_prefix("async ").unwrap_or(line);
            line.strip_prefix("fn ")?.strip_suffix("() {")
        })
        .filter(|name| *name != "main")
        .collect()
}

/// The tests that a file of `tests/system` registers with its harness.
fn registered_tests(text: &str) -> BTreeSet<&str> {
    let block = text.split_once("\ntests! {\n");
    let block = block.and_then(|(_, rest)| rest.split_once("\n}\n"));
    let lines = block.map_or("", |(block, _)| block).lines();
    lines
        .filter(|line| line.ends_with("];"))
        .map(|line| line.trim().split_once(':').unwrap().0)
        .collect()
}

#[test]
fn every_system_test_is_registered() {
    let main = fs::read_to_string(Path::new(ROOT).join("tests/system/main.rs")).unwrap();
    let mut found = 0;
    for path in rust_files("tests/system") {
        let text = fs::read_to_string(&path).unwrap();
        let tests = test_functions(&text);
        assert_eq!(tests, registered_tests(&text), "{}", path.display());
        let module = path.file_stem().unwrap().to_str().unwrap();
        let is_run = main.contains(&format!("        {module}::TESTS,\n"));
        assert_eq!(is_run, !tests.is_empty(), "{}", path.display());
        found += tests.len();
    }
    assert!(found > 40, "{found}");
}

#[test]
fn no_test_outside_of_the_system_tests_runs_another_program() {
    for path in rust_files("tests/it")
        .into_iter()
        .chain(rust_files("tests/support"))
    {
        let text = fs::read_to_string(&path).unwrap();
        for (_, program) in text
            .match_indices("Command::new(")
            .map(|(at, found)| text.split_at(at + found.len()))
        {
            let is_own = ["PROGRAM)", "env!(\"CARGO\")", "\"sh\")", "words[0])"]
                .iter()
                .any(|own| program.starts_with(own));
            assert!(
                is_own || path.ends_with("docs/tidy.rs"),
                "{} runs {:.20}",
                path.display(),
                program
            );
        }
    }
}

#[test]
fn the_example_holds_every_key_with_its_default() {
    let example = fs::read(Path::new(ROOT).join("config.example.json")).unwrap();
    let load = |text: &[u8]| {
        threema_safe_server::config::Config::from_json(text, Path::new("config.json")).unwrap()
    };

    let mut with_example = load(&example);
    let defaults = load(b"{}");

    assert_eq!(
        with_example.public_url.take().as_deref(),
        Some("https://safe.example.org/")
    );
    assert_eq!(with_example, defaults);

    // A key that the program does not know is an error, and that error lists the ones it knows.
    let keys = known_keys(&example);
    let value: serde_json::Value = serde_json::from_slice(&example).unwrap();
    for key in keys {
        assert!(value.get(&key).is_some(), "the example lacks {key}");
    }
}

#[test]
fn the_other_example_holds_every_key_of_what_it_is_about() {
    use threema_safe_server::config::{Config, Tls};
    let example = fs::read(Path::new(ROOT).join("config.acme.example.json")).unwrap();
    let load = |value: &serde_json::Value| {
        Config::from_json(value.to_string().as_bytes(), Path::new("config.json"))
    };
    let value: serde_json::Value = serde_json::from_slice(&example).unwrap();
    let acme = value["tls"]["acme"].as_object().unwrap();

    // What it shows is the default, but for what has none.
    let shown = load(&value).unwrap();
    let mut least = value.clone();
    let kept = ["domains", "contact"];
    let least_acme = least["tls"]["acme"].as_object_mut().unwrap();
    least_acme.retain(|key, _| kept.contains(&key.as_str()));
    assert_eq!(shown, load(&least).unwrap());
    assert!(matches!(shown.tls, Tls::Acme(_)));

    let mut unknown = value.clone();
    unknown["tls"]["acme"]["noSuchKey"] = true.into();
    let Err(threema_safe_server::config::Error::Invalid { problems, .. }) = load(&unknown) else {
        panic!("an unknown key was accepted");
    };
    let (_, list) = problems[0].text.split_once("known keys: ").unwrap();
    for key in list.trim_end_matches(')').split(", ") {
        assert!(acme.contains_key(key), "the example lacks {key}");
    }
}

/// The keys of the outermost object, as the error of an unknown key lists them.
fn known_keys(example: &[u8]) -> Vec<String> {
    let mut value: serde_json::Value = serde_json::from_slice(example).unwrap();
    value["noSuchKey"] = true.into();
    let text = value.to_string();
    let parsed =
        threema_safe_server::config::Config::from_json(text.as_bytes(), Path::new("config.json"));
    let Err(threema_safe_server::config::Error::Invalid { problems, .. }) = parsed else {
        panic!("an unknown key was accepted")
    };
    let (_, list) = problems[0].text.split_once("known keys: ").unwrap();
    list.trim_end_matches(')')
        .split(", ")
        .map(String::from)
        .collect()
}

#[test]
fn the_table_of_the_configuration_has_every_key_with_its_default_and_no_other() {
    let mut keys = std::collections::BTreeMap::new();
    // Of the second example, only what it is about: the rest is in the first one.
    for (example, about) in [
        ("config.example.json", ""),
        ("config.acme.example.json", "tls.acme."),
    ] {
        let example = fs::read(Path::new(ROOT).join(example)).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&example).unwrap();
        let mut rest = vec![(String::new(), value)];
        while let Some((path, value)) = rest.pop() {
            match value.as_object() {
                None if path.starts_with(about) => drop(keys.insert(path, value)),
                None => {}
                Some(object) => {
                    for (key, value) in object {
                        let dot = if path.is_empty() { "" } else { "." };
                        rest.push((format!("{path}{dot}{key}"), value.clone()));
                    }
                }
            }
        }
    }
    let page = fs::read_to_string(Path::new(ROOT).join("docs/CONFIGURATION.md")).unwrap();
    let (_, tables) = page.split_once("\n## General\n").unwrap();
    let mut explained = BTreeSet::new();
    for row in tables.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (key, rest) = row.split_once("` | ").unwrap();
        let default = rest.split(" | ").next().unwrap();
        assert!(explained.insert(key), "{key} stands twice");
        let value = keys.get(key);
        let value = value.unwrap_or_else(|| panic!("there is no key {key}"));
        let shown = match key {
            // The example shows a value where there is no default.
            "publicUrl" | "trustedProxies" | "tls.acme.domains" | "tls.acme.contact" => {
                "none".into()
            }
            "tls.acme.authorityFile" => "none".into(),
            "tls.acme.directoryUrl" => "Let's Encrypt".into(),
            _ => format!(
                "`{}`",
                value.as_str().map_or(value.to_string(), String::from)
            ),
        };
        assert_eq!(default, shown, "{key}");
    }
    let all: BTreeSet<_> = keys.keys().map(String::as_str).collect();
    assert!(all.len() > 40, "{all:?}");
    assert_eq!(explained, all);
}
