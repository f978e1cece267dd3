//! The rules and alerts of `deploy/prometheus`, as Prometheus understands them.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use podcreds_tests::{
    chart, checkout,
    privileged::can_run,
    prometheus::{self, FOLDER, files, promtool},
};
use serde_json::Value;

fn said(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr];
    parts
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .concat()
}

/// All rules that raise an alert; `None` where YAML cannot be read.
fn alerts() -> Option<Vec<Value>> {
    if !can_run(chart::check()) {
        return None;
    }
    let mut alerts = Vec::new();
    for file in files(FOLDER) {
        let rules = chart::yaml(&format!("{FOLDER}/{file}")).unwrap();
        for group in rules["groups"].as_array().unwrap() {
            let rules = group["rules"].as_array().unwrap().iter();
            alerts.extend(rules.filter(|rule| rule["alert"].is_string()).cloned());
        }
    }
    assert!(alerts.len() > 20, "{}", alerts.len());
    Some(alerts)
}

fn name(alert: &Value) -> &str {
    alert["alert"].as_str().unwrap()
}

#[test]
fn prometheus_understands_every_rule() {
    if !can_run(prometheus::check()) {
        return;
    }
    let files = files(FOLDER);
    let files = files.iter().map(String::as_str);
    let arguments: Vec<_> = ["check", "rules", "--lint-fatal"]
        .into_iter()
        .chain(files)
        .collect();
    let output = promtool(&arguments).unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// Each fires in its fault and clears after it, no other fires beside it, and a quiet fleet raises
/// none.
#[test]
fn alerts_fire_in_their_fault_and_clear_after_it() {
    if !can_run(prometheus::check()) {
        return;
    }
    for file in files(&format!("{FOLDER}/tests")) {
        let output = promtool(&["test", "rules", &format!("tests/{file}")]).unwrap();
        assert!(output.status.success(), "{file}: {}", said(&output));
    }
}

#[test]
fn every_alert_is_seen_to_fire_by_a_test() {
    let Some(alerts) = alerts() else {
        return;
    };
    let folder = format!("{FOLDER}/tests");
    let read = |file: &String| fs::read_to_string(checkout::file(format!("{folder}/{file}")));
    let tests: String = files(&folder)
        .iter()
        .map(|file| read(file).unwrap())
        .collect();
    for alert in &alerts {
        let (name, severity) = (name(alert), alert["labels"]["severity"].as_str().unwrap());
        let fired = format!("alertname=\"{name}\", severity=\"{severity}\"");
        assert!(tests.contains(&fired), "{name} ({severity})");
    }
}

#[test]
fn every_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on() {
    let Some(alerts) = alerts() else {
        return;
    };
    let mut severities = BTreeSet::new();
    for alert in &alerts {
        let name = name(alert);
        assert!(name.starts_with("Podcreds"), "{name}");
        severities.insert(alert["labels"]["severity"].as_str().unwrap());
        let note = |key: &str| alert["annotations"][key].as_str().unwrap_or_default();
        for key in ["summary", "description"] {
            assert!(
                note(key).len() > 20 && note(key).ends_with('.'),
                "{name}: {key}"
            );
        }
        // Alerts are grouped by their summary, so it says nothing about one node.
        assert!(!note("summary").contains("{{"), "{name}");
        let section = format!("docs/runbook.md#{}", name.to_lowercase());
        assert_eq!(note("runbook_url"), section, "{name}");
    }
    assert!(severities.into_iter().eq(["critical", "warning"]));
}

#[test]
fn the_runbook_has_a_section_for_each_alert_and_no_other() {
    let Some(alerts) = alerts() else {
        return;
    };
    let runbook = fs::read_to_string(checkout::file("docs/runbook.md")).unwrap();
    let sections = runbook.split("\n## ").skip(1).map(|section| {
        let (title, text) = section.split_once('\n').unwrap();
        for part in ["**Pods**:", "**See**:", "**Do**:", "**Over**:"] {
            assert!(text.contains(part), "{title} has no {part}");
        }
        title
    });
    let names: BTreeSet<_> = alerts.iter().map(name).collect();
    assert_eq!(sections.collect::<BTreeSet<_>>(), names);
}

/// All files below a folder that are named like this, as text.
fn read_all(folder: &Path, extension: &str) -> String {
    let paths = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let read = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => read_all(&path, extension),
        Some(own) if own == extension => fs::read_to_string(path).unwrap(),
        _ => String::new(),
    };
    paths.map(read).collect()
}

/// The labels' values that a text selects series of ours by, but for buckets:
/// `podcreds_x{label=~"value|value"}`.
fn selected(text: &str) -> BTreeSet<&str> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
    let selectors = text.split('{').zip(text.split('{').skip(1));
    let ours = selectors.filter(|(before, _)| {
        let name = before.rsplit(|letter| !is_name(letter)).next();
        name.is_some_and(|name| name.starts_with("podcreds"))
    });
    let matchers = ours.filter_map(|(_, after)| Some(after.split_once('}')?.0));
    let parts = matchers.map(|matchers| matchers.split('"').collect::<Vec<_>>());
    let values = parts.flat_map(|parts| {
        let pairs = parts.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        let named = pairs.filter(|(label, _)| !label.trim_matches([',', ' ']).starts_with("le="));
        named.map(|(_, value)| value).collect::<Vec<_>>()
    });
    values.flat_map(|value| value.split('|')).collect()
}

/// One that no series has selects nothing, and nobody is told.
#[test]
fn rules_and_pages_select_series_by_values_that_the_agent_gives() {
    let rules: String = prometheus::all()
        .into_iter()
        .map(|file| file.text)
        .collect();
    let pages = read_all(&checkout::file("docs"), "md");
    let agent = read_all(&checkout::file("agent"), "rs");
    let values = &selected(&rules) | &selected(&pages);
    assert!(values.len() > 10, "{values:?}");
    for value in values {
        let word = match value.strip_suffix(".*") {
            Some(beginning) => format!("\"{beginning}"),
            None => format!("\"{value}\""),
        };
        assert!(agent.contains(&word), "no series has {value:?}");
    }
}
