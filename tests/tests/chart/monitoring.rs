//! Rules and dashboards, which the chart installs from copies of what is in `deploy`.

use std::{collections::BTreeMap, fs};

use podcreds_tests::{chart, checkout};
use serde_json::{Value, json};

use super::render;

const RULES: [&str; 2] = ["deploy/prometheus", "deploy/chart/files/rules"];
const DASHBOARDS: [&str; 2] = ["deploy/grafana", "deploy/chart/files/dashboards"];
const RUNBOOK: &str = "https://git.example.com/podcreds/docs/runbook.md";

/// The files of a folder with this extension, by name.
fn files(folder: &str, extension: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(checkout::file(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.extension().is_some_and(|own| own == extension));
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    files.map(read).collect()
}

/// All groups of rules, with their alerts pointing to the runbook.
fn groups() -> Vec<Value> {
    let files = files(RULES[0], "yaml");
    let read = |name: &String| {
        let text = chart::yaml(&format!("{}/{name}", RULES[0])).unwrap();
        let text = text.to_string().replace("docs/runbook.md", RUNBOOK);
        let mut rules: Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value::<Vec<Value>>(rules["groups"].take()).unwrap()
    };
    files.keys().flat_map(read).collect()
}

#[test]
fn the_charts_copies_are_what_they_are_copies_of() {
    for ([source, copy], extension) in [(RULES, "yaml"), (DASHBOARDS, "json")] {
        let (source, copy) = (files(source, extension), files(copy, extension));
        assert!(!source.is_empty());
        assert_eq!(source.len(), copy.len());
        for (name, text) in source {
            let same = copy.get(&name) == Some(&text);
            assert!(same, "{name} is old: `cargo xtask chart` copies it again");
        }
    }
}

#[test]
fn the_rules_come_as_they_are_and_point_to_the_runbook() {
    let values = json!({
        "prometheusRule": { "enabled": true, "extraLabels": { "release": "prometheus" } },
        "runbookUrl": RUNBOOK,
    });
    let Some(rendering) = render(values) else {
        return;
    };
    let rules = rendering.of_kind("PrometheusRule");
    assert_eq!(rules.len(), 1, "{:?}", rendering.complaints);
    assert_eq!(rules[0]["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(rules[0]["spec"]["groups"], Value::from(groups()));
}

/// The job is called after the service, and the DaemonSets after the release.
#[test]
fn the_rules_speak_of_the_release_whatever_it_is_called() {
    let values =
        json!({ "prometheusRule": { "enabled": true }, "fullnameOverride": "pod-identity" });
    let Some(rendering) = render(values) else {
        return;
    };
    let text = rendering.of_kind("PrometheusRule")[0].to_string();
    assert!(text.contains(r#"job=~\".*pod-identity.*\""#));
    assert!(text.contains(r#"daemonset=~\".*pod-identity.*\""#));
    assert!(!text.contains(".*podcreds.*"));
}

#[test]
fn dashboards_are_config_maps_that_the_sidecar_finds() {
    let values = json!({
        "grafanaDashboards": { "enabled": true, "annotations": { "grafana_folder": "AWS" } },
        "runbookUrl": RUNBOOK,
    });
    let Some(rendering) = render(values) else {
        return;
    };
    let mut dashboards = files(DASHBOARDS[0], "json");
    for map in rendering.of_kind("ConfigMap") {
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        assert_eq!(map["metadata"]["annotations"]["grafana_folder"], "AWS");
        for (name, text) in map["data"].as_object().unwrap() {
            let source = dashboards.remove(name).unwrap();
            let source = source.replace("docs/runbook.md", RUNBOOK);
            assert_eq!(text.as_str().unwrap().trim_end(), source.trim_end());
        }
    }
    assert!(dashboards.is_empty(), "{:?}", dashboards.keys());
}

/// Alerts and dashboards name nodes, which no series has by itself.
#[test]
fn the_service_monitor_names_nodes() {
    let values = json!({ "metrics": { "enabled": true, "serviceMonitor": { "enabled": true } } });
    let Some(rendering) = render(values) else {
        return;
    };
    let endpoint = &rendering.of_kind("ServiceMonitor")[0]["spec"]["endpoints"][0];
    let node =
        json!([{ "sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node" }]);
    assert_eq!(endpoint["relabelings"], node);
}
