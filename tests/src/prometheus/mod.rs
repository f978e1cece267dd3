//! Prometheus and promtool, where they are installed.
//!
//! `cargo xtask setup` unpacks them into `target/tools`.

mod rules;
mod server;

use std::{
    env,
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, Result};

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

/// A program of the package.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let unpacked = checkout::file("target/tools/prometheus/usr/bin");
    env::split_paths(&path)
        .chain([unpacked])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}
