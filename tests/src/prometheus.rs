//! Prometheus and promtool, where they are installed.
//!
//! `cargo xtask setup` unpacks them into `target/tools`.

use std::{
    env,
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, Result};

use crate::checkout;

/// Whether there is a promtool.
///
/// # Errors
///
/// What is missing.
pub fn check() -> Result<(), String> {
    match program("promtool") {
        Some(_) => Ok(()),
        None => Err("Prometheus is not installed (`cargo xtask setup` does it)".to_owned()),
    }
}

/// What promtool says to these arguments, in the folder of the rules.
///
/// # Errors
///
/// When there is none.
pub fn promtool(arguments: &[&str]) -> Result<Output> {
    Command::new(program("promtool").context("no promtool")?)
        .args(arguments)
        .current_dir(checkout::file("deploy/prometheus"))
        .output()
        .context("cannot start promtool")
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
