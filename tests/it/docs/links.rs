//! Links between documents: every file and every anchor that a document links to exists, also in
//! the Debian package.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Folders with documents.
const FOLDERS: [&str; 7] = [
    "",
    "certs",
    "docs",
    "docs/decisions",
    "fuzz",
    "tests/crash",
    "tests/vectors",
];

/// Each document, as a path from the root, with its text outside of blocks of code.
fn documents() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                let prose = text
                    .split("\n```")
                    .step_by(2)
                    .collect::<Vec<_>>()
                    .join("\n");
                found.insert(path.strip_prefix(ROOT).unwrap().to_owned(), prose);
            }
        }
    }
    assert!(found.len() > 25, "{found:?}");
    found
}

/// The anchor that a forge makes of a heading.
fn slug(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower
        .chars()
        .filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let headings = headings.map(|line| slug(line.trim_start_matches('#').trim_start()));
    let explicit = text.split("<a id=\"").skip(1);
    let explicit = explicit.map(|rest| rest.split('"').next().unwrap().to_owned());
    headings.chain(explicit).collect()
}

/// What a text links to within the repository: path, maybe empty, and anchor, maybe none.
fn links(text: &str) -> Vec<(&str, Option<&str>)> {
    let targets = text.split("](").skip(1);
    let targets = targets.map(|rest| rest.split(')').next().unwrap());
    let inner = targets.filter(|target| !target.contains("://"));
    inner
        .map(|target| match target.split_once('#') {
            Some((path, anchor)) => (path, Some(anchor)),
            None => (target, None),
        })
        .collect()
}

/// `path` as seen from the folder of `document`, without `..`.
fn resolve(document: &Path, path: &str) -> PathBuf {
    if path.is_empty() {
        return document.to_owned();
    }
    let mut whole = PathBuf::new();
    for part in document.parent().unwrap().join(path).components() {
        if part == Component::ParentDir {
            assert!(whole.pop(), "{path} leaves the repository");
        } else {
            whole.push(part);
        }
    }
    whole
}

#[test]
fn every_link_and_every_anchor_leads_somewhere() {
    let documents = documents();
    let mut count = 0;
    for (document, text) in &documents {
        for (path, anchor) in links(text) {
            let target = resolve(document, path);
            let exists = Path::new(ROOT).join(&target).exists();
            assert!(exists, "{}: there is no {path}", document.display());
            if let Some(anchor) = anchor {
                let there = documents.get(&target).map(|text| anchors(text));
                let is_there = there.is_some_and(|there| there.contains(anchor));
                assert!(is_there, "{}: {path} has no #{anchor}", document.display());
            }
            count += 1;
        }
    }
    assert!(count > 200, "{count}");
}

/// Documents for developers, who have the sources beside them.
const FOR_DEVELOPERS: [&str; 2] = ["docs/ARCHITECTURE.md", "docs/CONTRIBUTING.md"];
/// The folder of the documents in the package.
const INSTALLED: &str = "usr/share/doc/threema-safe-server/";

#[test]
fn the_package_ships_what_its_documents_link_to() {
    let manifest = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let assets = manifest.lines().filter_map(|line| {
        let (source, rest) = line.trim().strip_prefix("[\"")?.split_once("\", \"")?;
        let (folder, _) = rest.split_once('"')?;
        Some((source, folder.strip_prefix(INSTALLED)?))
    });
    let mut shipped = BTreeSet::new();
    for (source, folder) in assets {
        let (parent, name) = source.rsplit_once('/').unwrap_or(("", source));
        // Links between the documents hold only if the folders are the same.
        assert_eq!(folder.trim_end_matches('/'), parent, "{source}");
        let ending = name.strip_prefix('*');
        for entry in fs::read_dir(Path::new(ROOT).join(parent)).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            if file == name || ending.is_some_and(|ending| file.ends_with(ending)) {
                shipped.insert(Path::new(parent).join(file));
            }
        }
    }
    let documents = documents();
    let for_developers = FOR_DEVELOPERS.map(Path::new);
    let others = shipped
        .iter()
        .filter(|path| !for_developers.contains(&path.as_path()));
    for document in others {
        let Some(text) = documents.get(document) else {
            continue;
        };
        for (path, _) in links(text) {
            let target = resolve(document, path);
            assert!(
                shipped.contains(&target),
                "{} links to {path}, which the package lacks",
                document.display()
            );
        }
    }
    assert!(shipped.contains(Path::new("docs/decisions/0005-no-database.md")));
}

#[test]
fn anchors_are_those_of_a_forge() {
    let text = "# A `b`, c: D-e\n\n| <a id=\"safe_x\"></a>`safe_x` |";
    assert_eq!(
        anchors(text),
        BTreeSet::from(["a-b-c-d-e", "safe_x"].map(String::from))
    );
    assert_eq!(
        links("[a](b.md#c) [d](#e) [f](https://example.org/#g)"),
        [("b.md", Some("c")), ("", Some("e"))]
    );
}
