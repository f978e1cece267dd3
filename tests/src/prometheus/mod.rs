//! Prometheus and promtool, where they are installed.
//!
//! `cargo xtask setup` unpacks them into `target/tools`.

mod rules;
mod server;

use std::{
    env,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};

pub use rules::{RuleFile, all, files};
pub use server::Prometheus;

use crate::checkout;

/// Where the rules are.
pub const FOLDER: &str = "deploy/prometheus";

/// Whether there is a Prometheus.
///
/// # Errors
///
/// What is missing.
pub fn check() -> Result<(), String> {
    if ["prometheus", "promtool"]
        .map(program)
        .iter()
        .all(Option::is_some)
    {
        return Ok(());
    }
    Err("Prometheus is not installed (`cargo xtask setup` does it)".to_owned())
}

/// What promtool says to these arguments, in the folder of the rules.
///
/// # Errors
///
/// When there is none.
pub fn promtool(arguments: &[&str]) -> Result<Output> {
    Command::new(program("promtool").context("no promtool")?)
        .args(arguments)
        .current_dir(checkout::file(FOLDER))
        .output()
        .context("cannot start promtool")
}

/// What promtool finds wrong with the names, types and units of metrics, a line for each.
///
/// # Errors
///
/// When there is no promtool, or it cannot read them.
pub fn complaints(metrics: &str) -> Result<Vec<String>> {
    let mut promtool = Command::new(program("promtool").context("no promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start promtool")?;
    // It reads all before it says anything.
    let mut input = promtool.stdin.take().context("no way to promtool")?;
    input.write_all(metrics.as_bytes())?;
    drop(input);
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // 3 is for complaints.
    let is_read = matches!(output.status.code(), Some(0 | 3));
    ensure!(is_read, "promtool cannot read the metrics: {said}");
    Ok(said.lines().map(str::to_owned).collect())
}

/// A program of the package.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let unpacked = checkout::file("target/tools/prometheus/usr/bin");
    env::split_paths(&path)
        .chain([unpacked])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}
