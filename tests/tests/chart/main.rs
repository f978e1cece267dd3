//! What the Helm chart renders to. Nothing here needs a cluster.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

mod guide;
mod monitoring;
mod official;
mod privileges;
mod told;
mod valid;

use podcreds_tests::{
    chart::{self, Rendering, Request},
    privileged::can_run,
};
use serde_json::Value;

/// What each test is about: a chart that is rendered with some values.
fn request(name: &str, values: Value) -> Request {
    let mut values = values;
    if values.get("clusterName").is_none() {
        values["clusterName"] = "my-cluster".into();
    }
    Request {
        name: name.to_owned(),
        values,
        versions: Vec::new(),
    }
}

/// Renders the chart with some values; `None` where that cannot be done.
fn render(values: Value) -> Option<Rendering> {
    if !can_run(chart::check()) {
        return None;
    }
    chart::render(&[request("values", values)]).unwrap().pop()
}

/// The only DaemonSet.
fn daemon_set(rendering: &Rendering) -> &Value {
    let sets = rendering.of_kind("DaemonSet");
    assert_eq!(sets.len(), 1, "{:?} {sets:?}", rendering.complaints);
    sets[0]
}

/// What its pods are made of.
fn pod(rendering: &Rendering) -> &Value {
    &daemon_set(rendering)["spec"]["template"]["spec"]
}

fn agent(rendering: &Rendering) -> &Value {
    &pod(rendering)["containers"][0]
}

fn strings(list: &Value) -> Vec<&str> {
    let items = list.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap()).collect()
}
