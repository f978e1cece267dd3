//! The dashboards for Grafana, as they are committed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::checkout;

/// Where they are, and what writes them.
const FOLDER: &str = "deploy/grafana";

/// What stands in a panel that has nothing to show.
const NO_DATA: &str = ">No data<";

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

/// Draws a dashboard from the Prometheus at `url`, as far back as `span`, with these values of
/// variables.
///
/// # Errors
///
/// When it cannot be drawn, with what the program says.
pub fn draw(
    name: &str,
    url: &str,
    span: Duration,
    chosen: &[(&str, &str)],
    picture: &Path,
) -> Result<()> {
    let mut command = Command::new(tools().join("bin/python"));
    command
        .args(["-B", "draw.py", url])
        .arg(format!("podcreds-{name}.json"))
        .arg(picture)
        .arg(format!("--minutes={}", span.as_secs_f64() / 60.0))
        // Of an agent that is scraped twice a second.
        .arg("--rate=10s")
        // It is on this machine.
        .env("no_proxy", "*")
        .current_dir(checkout::file(FOLDER));
    for (variable, value) in chosen {
        command.arg(format!("--set={variable}={value}"));
    }
    let output = command.output().context("cannot start Python")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot draw {name}: {said}");
    Ok(())
}

/// The titles of a dashboard's panels of which its picture shows nothing: neither lines nor values.
pub fn not_shown(dashboard: &Value, picture: &str) -> Vec<String> {
    let drawn: Vec<_> = picture
        .split("<g transform")
        .skip(1)
        .filter(|part| !part.contains(NO_DATA))
        .collect();
    let titles = panels(dashboard).filter_map(|panel| panel["title"].as_str());
    titles
        .filter(|title| {
            let heading = format!("class=\"t\">{}<", escaped(title));
            !drawn.iter().any(|part| part.contains(&heading))
        })
        .map(str::to_owned)
        .collect()
}

/// As text stands in a picture.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#x27;")
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_panel_without_a_place_or_without_data_is_not_shown() {
        let panels = ["Now", "Up & running", "Errors", "Memory"].map(|title| {
            let kind = if title == "Now" { "row" } else { "stat" };
            json!({ "type": kind, "title": title })
        });
        let picture = "<g transform=\"\"><text class=\"t\">Up &amp; running</text>1</g>\
            <g transform=\"\"><text class=\"t\">Errors</text><text>No data</text></g>";
        let dashboard = json!({ "panels": panels });
        assert_eq!(not_shown(&dashboard, picture), ["Errors", "Memory"]);
    }
}
