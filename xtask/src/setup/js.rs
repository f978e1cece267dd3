//! The unmodified AWS SDK for JavaScript, for tests.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::apt::{self, Wanted};
use crate::{
    run::{output, run, step},
    workspace::{root, tools},
};

/// What is installed, and exactly which versions.
const PACKAGE: &str = "xtask/js/package.json";
const LOCK: &str = "xtask/js/package-lock.json";
/// The oldest Node.js that the SDK runs on.
const NODE: u32 = 20;

pub(super) fn install() -> Result<()> {
    let wanted =
        fs::read_to_string(root().join(LOCK)).with_context(|| format!("cannot read {LOCK}"))?;
    // Written last, so it is there only when all the rest is.
    let installed = folder().join("installed.json");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    apt::install(
        "the AWS SDK for JavaScript",
        &[
            Wanted::command("node", "nodejs"),
            Wanted::command("npm", "npm"),
        ],
    )?;
    let node = output(Command::new("node").arg("--version")).and_then(|version| major(&version));
    ensure!(
        node >= Some(NODE),
        "the AWS SDK for JavaScript needs Node.js {NODE} or newer: https://nodejs.org has it"
    );
    step(
        "Installing the AWS SDK for JavaScript into target/tools/js",
        || {
            fs::create_dir_all(folder()).context("cannot create target/tools/js")?;
            for file in [PACKAGE, LOCK] {
                let from = root().join(file);
                let name = from.file_name().unwrap_or_default();
                fs::copy(&from, folder().join(name))
                    .with_context(|| format!("cannot copy {file}"))?;
            }
            run(Command::new("npm").current_dir(folder()).args([
                "ci",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--loglevel=error",
            ]))?;
            fs::write(&installed, &wanted)
                .with_context(|| format!("cannot write {}", installed.display()))
        },
    )
}

fn folder() -> PathBuf {
    tools().join("js")
}

/// The first number in what `node --version` prints.
fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_node_is_read() {
        assert_eq!(major("v20.20.2"), Some(20));
        assert_eq!(major("node"), None);
    }
}
