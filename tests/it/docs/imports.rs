//! The import graph of `src/`: levels of modules, and no circle between files.
//!
//! The graph is read from the source: every path that begins with `crate`, `super`, `self` or a
//! child module is followed through re-exports to the file that defines the item. Unit tests and
//! comments do not count. A re-export is no import where a module offers what its own children
//! define.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::tidy::{code, rust_files};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Module → the modules it may import (docs/ARCHITECTURE.md). `backup::BackupId` alone is "backup
/// id".
const MAY_IMPORT: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "config",
            "server",
            "account",
            "clock",
            "store",
            "retention",
            "scrub",
            "state",
            "backup",
            "client",
            "audit",
            "durable",
            "reloaded",
            "error_chain",
            "time",
        ],
    ),
    (
        "server",
        &[
            "config",
            "account",
            "clock",
            "store",
            "retention",
            "scrub",
            "state",
            "durable",
            "reloaded",
            "private_file",
            "error_chain",
            "html",
            "lock",
            "time",
            "backup id",
        ],
    ),
    ("client", &["backup"]),
    (
        "retention",
        &["store", "state", "clock", "lock", "time", "backup id"],
    ),
    ("clock", &["state", "lock", "time"]),
    ("scrub", &["store", "state", "backup id"]),
    (
        "store",
        &[
            "config",
            "state",
            "durable",
            "file_system",
            "private_file",
            "lock",
            "time",
            "backup id",
        ],
    ),
    ("state", &["durable", "lock"]),
    ("account", &["durable", "private_file", "reloaded", "lock"]),
    ("audit", &["config", "durable"]),
    ("reloaded", &["error_chain", "lock"]),
    ("config", &["durable"]),
    ("backup", &[]),
    ("durable", &["file_system"]),
    ("file_system", &["lock"]),
    ("private_file", &[]),
    ("error_chain", &[]),
    ("html", &[]),
    ("lock", &[]),
    ("time", &[]),
];

/// The parts of `server/`, from the lowest level to the highest. Each imports lower levels alone.
const SERVER_LEVELS: &[&[&str]] = &[
    &["status", "error"],
    &["metrics", "tls"],
    &["acme", "net"],
    &["limits", "preflight"],
    &["request"],
    &["settings"],
    &["connection", "admin", "maintenance"],
    &["mod"],
];

/// A module's path from the crate's root: `["server", "net", "listener"]`.
type Module = Vec<String>;

/// The modules of a source tree, and the paths in each of them.
struct Source(BTreeMap<Module, Vec<Mention>>);

/// One file imports what another defines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: Module,
    to: Module,
    item: Option<String>,
}

/// One path in a file, absolute.
struct Mention {
    path: Vec<String>,
    is_reexport: bool,
}

impl Source {
    fn read() -> Self {
        let root = Path::new(ROOT).join("src");
        let files = rust_files("src").into_iter().filter_map(|path| {
            let inner = path.strip_prefix(&root).unwrap().with_extension("");
            let mut module: Module = inner
                .components()
                .map(|part| part.as_os_str().to_str().unwrap().to_owned())
                .collect();
            if module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            let is_root = ["main", "lib"]
                .map(|name| vec![name.to_owned()])
                .contains(&module);
            (!is_root).then(|| (module, code(&path)))
        });
        Self::new(files.collect())
    }

    fn new(files: BTreeMap<Module, String>) -> Self {
        let modules: BTreeSet<_> = files.keys().cloned().collect();
        let files = files.into_iter().map(|(module, text)| {
            let mentions = mentions(&modules, &module, &text);
            (module, mentions)
        });
        Self(files.collect())
    }

    /// All imports from one file to another.
    fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (module, mentions) in &self.0 {
            for mention in mentions {
                let (to, item) = self.definition(&mention.path, 0);
                let is_own = |to: &Module| to.starts_with(module);
                if mention.is_reexport && to.as_ref().is_some_and(is_own) {
                    continue;
                }
                if let Some(to) = to.filter(|to| to != module) {
                    imports.insert(Import {
                        from: module.clone(),
                        to,
                        item,
                    });
                }
            }
        }
        imports
    }

    /// The file that defines what a path names, and the name of the item in it.
    fn definition(&self, path: &[String], depth: usize) -> (Option<Module>, Option<String>) {
        assert!(depth < 16, "re-exports in a circle: {path:?}");
        let mut length = path.len();
        while length > 0 && !self.0.contains_key(&path[..length]) {
            length -= 1;
        }
        let Some(mentions) = self.0.get(&path[..length]) else {
            return (None, None);
        };
        let (module, item) = (path[..length].to_vec(), path.get(length));
        let Some(item) = item else {
            return (Some(module), None);
        };
        let through = mentions.iter().find(|mention| {
            mention.is_reexport && mention.path.last() == Some(item) && mention.path != path
        });
        match through {
            Some(mention) => self.definition(&mention.path, depth + 1),
            None => (Some(module), Some(item.clone())),
        }
    }
}

/// All paths in a module's text that lead to modules of the same crate.
fn mentions(modules: &BTreeSet<Module>, module: &Module, text: &str) -> Vec<Mention> {
    let text = without_comments(text);
    let mut mentions = Vec::new();
    let mut rest = text.as_str();
    // `use` declarations, as trees.
    let mut outside = String::new();
    while let Some(start) = find_use(rest) {
        let (before, after) = rest.split_at(start);
        let end = after.find(';').map_or(after.len(), |end| end + 1);
        let (declaration, behind) = after.split_at(end);
        outside.push_str(before);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let is_reexport = line.trim_start().starts_with("pub");
        let tree = declaration.trim_start_matches("use ").trim_end_matches(';');
        for leaf in leaves(tree) {
            let leaf = leaf.split(" as ").next().unwrap_or_default();
            if let Some(path) = absolute(modules, module, leaf) {
                mentions.push(Mention { path, is_reexport });
            }
        }
        rest = behind;
    }
    outside.push_str(rest);
    // Paths in expressions and types.
    for word in outside.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        if word.contains("::")
            && let Some(path) = absolute(modules, module, word)
        {
            mentions.push(Mention {
                path,
                is_reexport: false,
            });
        }
    }
    mentions
}

/// The path from the crate's root; `None` for paths of other crates and of items.
fn absolute(modules: &BTreeSet<Module>, module: &Module, path: &str) -> Option<Vec<String>> {
    let mut parts = path
        .split("::")
        .map(str::trim)
        .filter(|part| *part != "*")
        .peekable();
    let mut absolute = match *parts.peek()? {
        "crate" => {
            parts.next();
            Vec::new()
        }
        "self" => {
            parts.next();
            module.clone()
        }
        "super" => {
            let mut above = module.clone();
            while parts.next_if_eq(&"super").is_some() {
                above.pop();
            }
            above
        }
        child => {
            let of_child = [module.as_slice(), &[child.to_owned()]].concat();
            modules.contains(&of_child).then(|| module.clone())?
        }
    };
    absolute.extend(parts.filter(|part| *part != "self").map(str::to_owned));
    Some(absolute)
}

/// Where the next `use` declaration begins.
fn find_use(text: &str) -> Option<usize> {
    for (at, _) in text.match_indices("use ") {
        let (before, _) = text.split_at(at);
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        if line.is_empty() || (line.starts_with("pub") && !line.contains(['=', '{', ';'])) {
            return Some(at);
        }
    }
    None
}

/// The text without comments and without the paths of visibilities, which are no imports.
fn without_comments(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let text: String = lines.map(|line| line.to_owned() + "\n").collect();
    text.replace("pub(in crate::", "pub(in ")
}

/// The paths of a `use` tree: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(open) = tree.find('{') else {
        return vec![tree];
    };
    let (prefix, inner) = tree.split_at(open);
    let inner = inner.trim().trim_start_matches('{');
    let (inner, _) = inner.rsplit_once('}').unwrap_or((inner, ""));
    let (mut depth, mut part, mut found) = (0, String::new(), Vec::new());
    for character in inner.chars().chain([',']) {
        match character {
            ',' if depth == 0 => {
                let part = std::mem::take(&mut part);
                if !part.trim().is_empty() {
                    let whole = format!("{prefix}{}", part.trim());
                    found.extend(leaves(&whole));
                }
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        part.push(character);
    }
    found
}

/// The part of `server/` to which a module belongs: a folder, a file, or `mod`.
fn server_part(module: &Module) -> &str {
    module.get(1).map_or("mod", String::as_str)
}

fn server_level(module: &Module) -> usize {
    let part = server_part(module);
    SERVER_LEVELS
        .iter()
        .position(|level| level.contains(&part))
        .unwrap_or_else(|| panic!("server/{part} has no level"))
}

#[test]
fn modules_import_only_what_the_architecture_allows() {
    for import in Source::read().imports() {
        let (from, to) = (&import.from[0], &import.to[0]);
        if from == to {
            continue;
        }
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(name, _)| name == from)
            .unwrap_or_else(|| panic!("{from} is not in the table"));
        let is_id = to == "backup" && import.to.last().is_some_and(|file| file == "id");
        let fine = allowed.contains(&to.as_str()) || (is_id && allowed.contains(&"backup id"));
        assert!(fine, "{import:?} is not allowed");
    }
}

#[test]
fn the_parts_of_the_server_import_lower_levels_alone() {
    let mut upwards = Vec::new();
    for import in Source::read().imports() {
        let is_server = |module: &Module| module[0] == "server";
        if !is_server(&import.from) || !is_server(&import.to) {
            continue;
        }
        let same_part = server_part(&import.from) == server_part(&import.to);
        if !same_part && server_level(&import.to) >= server_level(&import.from) {
            upwards.push(import);
        }
    }
    assert!(upwards.is_empty(), "{upwards:#?}");
}

/// Groups of files that all reach each other by imports.
fn circles(imports: &BTreeSet<Import>) -> BTreeSet<Vec<String>> {
    let mut graph = BTreeMap::<&Module, BTreeSet<&Module>>::new();
    for import in imports {
        graph.entry(&import.from).or_default().insert(&import.to);
    }
    let reach = |start| {
        let mut reached = BTreeSet::<&Module>::new();
        let mut rest = vec![start];
        while let Some(at) = rest.pop() {
            let next = graph.get(at).into_iter().flatten();
            rest.extend(next.filter(|module| reached.insert(module)));
        }
        reached
    };
    let reached: BTreeMap<_, _> = graph.keys().map(|start| (*start, reach(*start))).collect();
    let together = |one: &Module| {
        let others = reached[one].iter();
        let back = others.filter(|other| reached.get(*other).is_some_and(|its| its.contains(one)));
        back.map(|module| module.join("/")).collect::<Vec<_>>()
    };
    let groups = reached.keys().map(|module| together(module));
    groups.filter(|group| !group.is_empty()).collect()
}

#[test]
fn no_two_files_import_each_other_directly_or_through_others() {
    let imports = Source::read().imports();
    assert!(imports.len() > 300, "{} imports", imports.len());
    assert_eq!(circles(&imports), BTreeSet::new());
}

/// Of one made-up source tree, the imports as `from -> to`.
fn made_up(files: &[(&str, &str)]) -> (BTreeSet<Import>, Vec<String>) {
    let module = |name: &str| -> Module { name.split('/').map(str::to_owned).collect() };
    let files = files
        .iter()
        .map(|(name, text)| (module(name), (*text).to_owned()));
    let imports = Source::new(files.collect()).imports();
    let shown = imports
        .iter()
        .map(|import| format!("{} -> {}", import.from.join("/"), import.to.join("/")))
        .collect::<BTreeSet<_>>();
    (imports.clone(), shown.into_iter().collect())
}

#[test]
fn every_kind_of_path_is_seen() {
    let (_, shown) = made_up(&[
        (
            "a",
            "mod b;\npub use b::{Thing, other::Nothing};\nfn f() { b::g() }",
        ),
        (
            "a/b",
            "use super::super::c::{self, d::E};\n// use crate::f::G;\nfn g() {}",
        ),
        ("c", "pub mod d;\nfn f(x: crate::a::Thing) {}"),
        ("c/d", "use crate::f::{\n    G,\n    H as I,\n};"),
        ("f", "pub(crate) use self::inner::*;"),
        ("g", "pub use crate::f::H;"),
    ]);
    let expected = [
        "a -> a/b",
        "a/b -> c",
        "a/b -> c/d",
        "c -> a/b",
        "c/d -> f",
        "g -> f",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_circle_is_found_also_through_a_re_export() {
    let (imports, _) = made_up(&[
        ("a", "mod b;\nmod c;\npub use c::Thing;"),
        ("a/b", "use crate::a::Thing;"),
        ("a/c", "use super::d::Other;"),
        ("a/d", "use super::b;"),
    ]);
    let found = circles(&imports);
    assert_eq!(
        found,
        BTreeSet::from([["a/b", "a/c", "a/d"].map(String::from).to_vec()])
    );
    let (imports, _) = made_up(&[("a", "use crate::b::X;"), ("b", "fn f() {}")]);
    assert_eq!(circles(&imports), BTreeSet::new());
}
