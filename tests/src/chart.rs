//! The Helm chart, as it is rendered.
//!
//! `cargo xtask setup` installs what renders it into `target/tools`.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkout;

/// The versions of Kubernetes whose schemas everything must fit.
pub const VERSIONS: [&str; 5] = ["1.30.0", "1.31.0", "1.32.0", "1.33.0", "1.34.0"];

/// Values to render the chart with.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// What the values are called.
    pub name: String,
    /// They themselves, beside the chart's own.
    pub values: Value,
    /// Whose schemas the result must fit.
    pub versions: Vec<&'static str>,
}

/// What the chart renders to.
#[derive(Clone, Debug, Deserialize)]
pub struct Rendering {
    /// What the values are called.
    pub name: String,
    /// All manifests, as YAML.
    pub text: String,
    /// What Helm tells who has installed it.
    pub notes: String,
    /// The manifests.
    pub manifests: Vec<Value>,
    /// What is wrong: with the values, or by the schemas.
    pub complaints: Vec<String>,
}

impl Rendering {
    /// The manifests of a kind.
    pub fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.manifests
            .iter()
            .filter(|manifest| manifest["kind"] == kind)
            .collect()
    }
}

/// Whether charts can be rendered here.
///
/// # Errors
///
/// What is missing.
pub fn check() -> Result<(), String> {
    if tools().join("installed.txt").is_file() {
        return Ok(());
    }
    Err("Helm is not installed (`cargo xtask setup` does it)".to_owned())
}

/// Renders the chart for each request, and checks the results.
///
/// # Errors
///
/// When the program that does it fails.
pub fn render(requests: &[Request]) -> Result<Vec<Rendering>> {
    let mut program = Command::new(tools().join("bin/python"))
        .current_dir(checkout::file(""))
        .args(["xtask/python/chart.py", "check", "deploy/chart"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start what renders charts")?;
    let requests = serde_json::to_vec(requests)?;
    let input = program.stdin.take();
    input.context("no pipe")?.write_all(&requests)?;
    let output = program.wait_with_output()?;
    ensure!(output.status.success(), "rendering failed");
    serde_json::from_slice(&output.stdout).context("renderings")
}

/// Reads a YAML file.
///
/// # Errors
///
/// When there is none, or it is no YAML.
pub fn yaml(path: &str) -> Result<Value> {
    let output = Command::new(tools().join("bin/python"))
        .current_dir(checkout::file(""))
        .args(["-c", TO_JSON, path])
        .output()
        .context("cannot start Python")?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("no YAML in {path}"))
}

const TO_JSON: &str =
    "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";

fn tools() -> PathBuf {
    checkout::file("target/tools/chart")
}
