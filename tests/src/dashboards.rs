//! The dashboards for Grafana, as they are committed.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::checkout;

/// Where they are, and what writes them.
const FOLDER: &str = "deploy/grafana";

/// Their names.
pub const DASHBOARDS: [&str; 2] = ["fleet", "node"];

/// Whether they can be written again here.
///
/// # Errors
///
/// What is missing.
pub fn check() -> Result<(), String> {
    if tools().join("installed.txt").is_file() {
        return Ok(());
    }
    Err("Grafana's SDK is not installed (`cargo xtask setup` does it)".to_owned())
}

/// What their program says to these arguments.
///
/// # Errors
///
/// When it cannot be started.
pub fn generate(arguments: &[&str]) -> Result<Output> {
    Command::new(tools().join("bin/python"))
        .args(["-B", "generate.py"])
        .args(arguments)
        .current_dir(checkout::file(FOLDER))
        .output()
        .context("cannot start Python")
}

/// Reads a dashboard.
///
/// # Errors
///
/// When there is none, or it is no JSON.
pub fn read(name: &str) -> Result<Value> {
    let path = checkout::file(format!("{FOLDER}/podcreds-{name}.json"));
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("no JSON in {}", path.display()))
}

/// The panels of a dashboard that show something.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    panels.filter(|panel| panel["type"] != "row")
}

/// A panel's queries.
pub fn expressions(panel: &Value) -> impl Iterator<Item = &str> {
    let targets = panel["targets"].as_array().into_iter().flatten();
    targets.filter_map(|target| target["expr"].as_str())
}

fn tools() -> PathBuf {
    checkout::file("target/tools/grafana")
}
