//! The dashboards of `deploy/grafana`: each panel says what it shows, in which unit, and what to
//! do.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{collections::BTreeSet, fs};

use podcreds_tests::{
    checkout,
    dashboards::{self, DASHBOARDS, expressions, panels, read},
    privileged::can_run,
};
use serde_json::{Value, json};

/// What every query selects by; the recorded objective knows no nodes.
const SELECTED: [&str; 2] = [r#"cluster=~"$cluster""#, r#"job=~"$job"#];

/// Applies a rule to every panel, and fails with all that is wrong.
fn hold(rule: impl Fn(&Value) -> Vec<String>) {
    let mut complaints = Vec::new();
    for name in DASHBOARDS {
        let dashboard = read(name).unwrap();
        assert!(panels(&dashboard).count() > 20, "{name} is empty");
        for panel in panels(&dashboard) {
            let complain = |what| format!("{name}: {}: {what}", panel["title"]);
            complaints.extend(rule(panel).into_iter().map(complain));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// The complaint, unless all is well.
fn unless(is_well: bool, what: &str) -> Option<String> {
    (!is_well).then(|| what.to_owned())
}

#[test]
fn the_committed_dashboards_are_what_their_code_makes() {
    if !can_run(dashboards::check()) {
        return;
    }
    let output = dashboards::generate(&["--check"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}; run `cargo xtask chart`");
}

#[test]
fn clusters_namespaces_jobs_and_nodes_can_be_chosen() {
    for name in DASHBOARDS {
        let dashboard = read(name).unwrap();
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let names: Vec<_> = variables
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        let expected = [
            "datasource",
            "cluster",
            "namespace",
            "job",
            "node",
            "runbook",
        ];
        assert_eq!(names, expected, "{name}");
        for variable in variables {
            assert!(
                !variable["label"].as_str().unwrap().is_empty(),
                "{variable}"
            );
            if variable["type"] == "query" {
                assert_eq!(variable["datasource"]["uid"], "${datasource}");
            }
        }
    }
}

#[test]
fn every_panel_has_a_title_a_unit_and_says_what_to_do() {
    hold(|panel| {
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        let description = panel["description"].as_str().unwrap_or_default();
        let (what, then) = description
            .split_once("\n\n**When it looks wrong**: ")
            .unwrap_or_default();
        let complaints = [
            unless(
                !panel["title"].as_str().unwrap_or_default().is_empty(),
                "no title",
            ),
            unless(unit.is_string(), "no unit"),
            unless(
                what.len() > 10 && what.ends_with('.'),
                "does not say what it shows",
            ),
            unless(
                then.len() > 10 && then.ends_with('.'),
                "does not say what to do",
            ),
        ];
        complaints.into_iter().flatten().collect()
    });
}

#[test]
fn every_panel_links_to_a_section_of_the_runbook() {
    let runbook = fs::read_to_string(checkout::file("docs/runbook.md")).unwrap();
    let titles = runbook.lines().filter_map(|line| line.strip_prefix("## "));
    let sections: BTreeSet<_> = titles.map(str::to_lowercase).collect();
    hold(|panel| {
        let link = panel["links"][0]["url"].as_str().unwrap_or_default();
        let section = link.strip_prefix("${runbook}#").unwrap_or_default();
        let is_well = sections.contains(section);
        unless(is_well, &format!("{link:?} leads nowhere"))
            .into_iter()
            .collect()
    });
}

#[test]
fn every_query_asks_the_chosen_source_for_the_chosen_agents() {
    hold(|panel| {
        let mut complaints = Vec::new();
        let chosen = json!({ "type": "prometheus", "uid": "${datasource}" });
        let targets = panel["targets"].as_array().unwrap();
        complaints.extend(unless(!targets.is_empty(), "asks nothing"));
        for source in targets.iter().chain([panel]).map(|it| &it["datasource"]) {
            complaints.extend(unless(*source == chosen, "another data source"));
        }
        for query in expressions(panel) {
            for part in SELECTED {
                complaints.extend(unless(
                    query.contains(part),
                    &format!("no {part} in {query}"),
                ));
            }
        }
        complaints
    });
}

/// A fixed range shows gaps where it is shorter than two scrapes, and hides peaks where one looks
/// at days.
#[test]
fn rates_fit_the_scrapes_and_the_width_of_the_graph() {
    hold(|panel| {
        let mut complaints = Vec::new();
        for query in expressions(panel) {
            for range in query
                .split('[')
                .skip(1)
                .map(|rest| rest.split(']').next().unwrap())
            {
                let is_counted = query.contains("changes(") && range == "1h";
                let is_well = range == "$__rate_interval" || is_counted;
                complaints.extend(unless(is_well, &format!("[{range}] in {query}")));
            }
        }
        complaints
    });
}

#[test]
fn panels_stand_side_by_side() {
    for name in DASHBOARDS {
        let dashboard = read(name).unwrap();
        let all = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<_> = all
            .iter()
            .map(|panel| panel["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids.len(), all.len(), "{name}");
        let mut taken = BTreeSet::new();
        for panel in all {
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + w <= 24, "{name}: {} is too far right", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(
                    taken.insert(cell),
                    "{name}: {} covers another",
                    panel["title"]
                );
            }
        }
    }
}
