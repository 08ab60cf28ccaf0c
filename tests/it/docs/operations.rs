//! docs/MONITORING.md, docs/LOG-MESSAGES.md and docs/monitoring/ compared with the program: every
//! metric, log message and alert is explained, and nothing is explained or queried that does not
//! exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::docs::tidy::{code, rust_files};
use crate::support::wire::Protocol;
use crate::support::{TestServer, backup_path};

/// The endings of a histogram's series.
const OF_HISTOGRAM: [&str; 3] = ["_bucket", "_count", "_sum"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

fn monitoring() -> String {
    read("docs/MONITORING.md")
}

/// A chapter, without those that follow.
fn chapter<'a>(text: &'a str, title: &str) -> &'a str {
    let begin = format!("\n## {title}\n");
    let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{title}"));
    rest.split("\n## ").next().unwrap()
}

/// What stands between backticks in the first cell of each row that has an anchor. The anchor is
/// the metric's name.
fn first_cells(table: &str) -> Vec<String> {
    let rows = table
        .lines()
        .filter_map(|line| line.strip_prefix("| <a id=\"safe_"));
    rows.map(|row| {
        let (anchor, rest) = row.split_once("\"></a>`").unwrap();
        let (cell, _) = rest.split_once("` | ").unwrap();
        let name = cell.split('{').next().unwrap();
        assert_eq!(name, format!("safe_{anchor}"));
        cell.to_owned()
    })
    .collect()
}

/// What a server tells that has swept and has had a phone.
async fn told() -> String {
    let server = TestServer::start().await;
    server.settled().await;
    let mut phone = server.phone(Protocol::Http1).await;
    phone.send("PUT", &backup_path(), &[], "backup").await;
    server.admin("/metrics").await
}

/// Each metric by the name under which one asks for it, with its labels.
async fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let text = told().await;
    let mut found = BTreeMap::new();
    let mut kind = "";
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            kind = typed.rsplit(' ').next().unwrap();
        }
        let Some(series) = line.strip_prefix("safe_") else {
            continue;
        };
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.rsplit_once('}').unwrap().0),
            None => (series.split(' ').next().unwrap(), ""),
        };
        let is_histogram = kind == "histogram";
        let ending = OF_HISTOGRAM.iter().filter(|_| is_histogram);
        let name = ending
            .filter_map(|ending| name.strip_suffix(ending))
            .next()
            .unwrap_or(name);
        let labels = labels
            .split("\",")
            .filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, _)| label.to_owned());
        let labels = labels.filter(|label| !(is_histogram && label == "le"));
        let all: &mut BTreeSet<String> = found.entry(format!("safe_{name}")).or_default();
        all.extend(labels);
    }
    assert!(found.len() > 30, "{found:?}");
    found
}

#[tokio::test]
async fn every_metric_is_explained_with_its_labels_and_none_that_does_not_exist() {
    let found = metrics().await;
    let text = monitoring();
    let explained: BTreeMap<_, BTreeSet<String>> = first_cells(chapter(&text, "Metrics"))
        .into_iter()
        .map(|cell| match cell.split_once('{') {
            Some((name, labels)) => {
                let labels = labels.trim_end_matches('}').split(',');
                (name.to_owned(), labels.map(String::from).collect())
            }
            None => (cell, BTreeSet::new()),
        })
        .collect();

    assert_eq!(found, explained);
}

#[tokio::test]
async fn every_word_of_a_label_is_explained() {
    let told = told().await;
    let text = monitoring();
    let explained: BTreeSet<_> = chapter(&text, "Metrics").split('`').skip(1).collect();
    let mut found = 0;
    for label in [
        "class",
        "kind",
        "limit",
        "operation",
        "outcome",
        "reason",
        "route",
    ] {
        let begin = format!("{label}=\"");
        let words = told.split(&begin).skip(1);
        let words: BTreeSet<_> = words.map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(words.len() > 1, "{label}");
        for word in &words {
            assert!(explained.contains(word), "{label}={word}");
        }
        found += words.len();
    }
    assert!(found > 40, "{found}");
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.starts_with("safe_")).collect()
}

fn exists(metrics: &BTreeMap<String, BTreeSet<String>>, name: &str) -> bool {
    let of_histogram = OF_HISTOGRAM.iter().filter_map(|end| name.strip_suffix(end));
    let mut names = std::iter::once(name).chain(of_histogram);
    names.any(|name| metrics.contains_key(name))
}

#[tokio::test]
async fn alerts_their_tests_and_the_dashboard_ask_for_metrics_that_exist() {
    let metrics = metrics().await;
    for (file, least) in [
        ("docs/monitoring/alerts.yaml", 15),
        ("docs/monitoring/alerts.test.yaml", 15),
        ("docs/monitoring/grafana-dashboard.json", 30),
        ("docs/MONITORING.md", 30),
    ] {
        let text = read(file);
        let named = named(&text);
        assert!(named.len() >= least, "{file}: {named:?}");
        for name in named {
            assert!(exists(&metrics, name), "{file} names {name}");
        }
    }
}

#[tokio::test]
async fn the_dashboard_shows_every_metric() {
    let dashboard: Value =
        serde_json::from_str(&read("docs/monitoring/grafana-dashboard.json")).unwrap();
    let mut asked = String::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("{job=\"$job\",instance=~\"$instance\""));
            asked += expression;
            asked += "\n";
        }
    }

    for name in metrics().await.into_keys() {
        // Its end says more.
        if name != "safe_certificate_begin_time_seconds" {
            assert!(asked.contains(&name), "{name}");
        }
    }
}

#[test]
fn every_alert_says_where_it_is_explained_and_is_tested() {
    let alerts = read("docs/monitoring/alerts.yaml");
    let tests = read("docs/monitoring/alerts.test.yaml");
    let text = monitoring();
    let headings = text.lines().filter_map(|line| line.strip_prefix("### "));
    // As GitHub makes them.
    let anchors: BTreeSet<_> = headings
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let mut explained = BTreeSet::new();
    let mut count = 0;
    for alert in alerts.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap();
        let runbook = "runbook: docs/MONITORING.md#";
        let (_, rest) = alert
            .split_once(runbook)
            .unwrap_or_else(|| panic!("{name}"));
        let anchor = rest.lines().next().unwrap();
        assert!(anchors.contains(anchor), "{name}: there is no {anchor}");
        assert!(alert.contains("severity: "), "{name}");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name}");
        explained.insert(anchor);
        count += 1;
    }
    assert!(count > 15);
    let sections: BTreeSet<_> = chapter(&text, "Alerts")
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(str::to_lowercase)
        .collect();
    let explained: BTreeSet<_> = explained.into_iter().map(String::from).collect();
    assert_eq!(sections, explained);
}

/// The texts of all calls of a macro: of each, the last string among its arguments.
fn texts_of(code: &str, call: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for rest in code.split(call).skip(1) {
        let (mut depth, mut text, mut last) = (1, None::<String>, String::new());
        let mut characters = rest.chars();
        while depth > 0 {
            let character = characters.next().unwrap();
            match (&mut text, character) {
                (Some(text), '\\') => match characters.next().unwrap() {
                    // A line that goes on: what indents the next one is not part of it.
                    '\n' => {
                        let indent = characters.as_str();
                        characters = indent.trim_start().chars();
                    }
                    other => text.push(other),
                },
                (Some(_), '"') => last = text.take().unwrap(),
                (Some(text), other) => text.push(other),
                (None, '"') => text = Some(String::new()),
                (None, '(') => depth += 1,
                (None, ')') => depth -= 1,
                (None, _) => {}
            }
        }
        texts.push(last);
    }
    texts
}

#[test]
fn the_texts_of_a_macro_are_found() {
    let code = "warn!(a = f(1), \"one (1) \\\"x\\\"\"); warn!(%b, \"two \\\n     lines\", ); other!(\"three\")";

    assert_eq!(texts_of(code, "warn!("), ["one (1) \"x\"", "two lines"]);
}

#[test]
fn every_log_message_is_explained_with_its_level_and_none_that_does_not_exist() {
    let mut said = BTreeSet::new();
    for file in rust_files("src") {
        let code = code(&file);
        for (name, level) in [
            ("info", "Information"),
            ("warn", "Warning"),
            ("error", "Error"),
        ] {
            for text in texts_of(&code, &format!("tracing::{name}!(")) {
                assert!(!text.contains('{'), "{text} is not constant");
                said.insert((text, level.to_owned()));
            }
            // Calls by another name are not seen here.
            let calls = code.matches(&format!("{name}!(")).count();
            let qualified = code.matches(&format!("tracing::{name}!(")).count();
            assert_eq!(calls, qualified, "{}", file.display());
        }
    }
    assert!(said.len() > 40, "{said:?}");
    let text = read("docs/LOG-MESSAGES.md");
    let mut explained = BTreeSet::new();
    for title in ["Information", "Warnings and errors"] {
        for entry in chapter(&text, title).split("\n### ").skip(1) {
            let (message, explanation) = entry.split_once("\n\n**").unwrap();
            let level = explanation.split(['.', '*']).next().unwrap();
            assert_eq!(level == "Information", title == "Information", "{message}");
            explained.insert((message.to_owned(), level.to_owned()));
        }
    }

    assert_eq!(said, explained);
}
