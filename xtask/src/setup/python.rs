//! Unmodified AWS clients for tests and demo: boto3 and the AWS CLI, in a Python of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::apt::{self, Wanted};
use crate::{
    run::{output, run, step},
    workspace::{root, tools},
};

/// Exact versions, so that tests and demo show the same everywhere.
const REQUIREMENTS: &str = "xtask/python/requirements.txt";

/// The private environment: `bin/python` has boto3, `bin/aws` is the AWS CLI.
fn venv() -> PathBuf {
    tools().join("venv")
}

pub(super) fn install() -> Result<()> {
    let wanted = fs::read_to_string(root().join(REQUIREMENTS))
        .with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    // Written last, so it is there only when all the rest is.
    let installed = venv().join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if !has_venv() {
        // Debian ships the venv module without the pip that it puts into new environments.
        apt::install(
            "boto3 and the AWS CLI",
            &[
                Wanted::command("python3", "python3"),
                Wanted::package("python3-venv"),
            ],
        )?;
    }
    step(
        "Installing boto3 and the AWS CLI into target/tools/venv",
        || {
            run(Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(venv()))?;
            run(Command::new(venv().join("bin/python"))
                .current_dir(root())
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                ])
                .args(["--requirement", REQUIREMENTS]))?;
            record(&installed, &wanted)
        },
    )
}

fn has_venv() -> bool {
    output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_some()
}

fn record(path: &Path, wanted: &str) -> Result<()> {
    fs::write(path, wanted).with_context(|| format!("cannot write {}", path.display()))
}
