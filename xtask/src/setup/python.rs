//! Programs and libraries from PyPI, each set in a Python of its own.

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

/// Which pip installs them, on any distribution.
const PIP: &str = "26.3";

/// A private environment in `target/tools`.
pub(super) struct Environment {
    /// What is in it, for people.
    pub(super) what: &'static str,
    /// Exact versions, so that everybody has the same.
    pub(super) requirements: &'static str,
    /// Its folder in `target/tools`.
    pub(super) folder: &'static str,
}

/// Unmodified AWS clients for tests and demo: `bin/python` has boto3, `bin/aws` is the AWS CLI.
pub(super) const CLIENTS: Environment = Environment {
    what: "boto3 and the AWS CLI",
    requirements: "xtask/python/requirements.txt",
    folder: "venv",
};

/// The client of the SDKs that are written in C and C++.
pub(super) const CRT: Environment = Environment {
    what: "the AWS CRT",
    requirements: "xtask/python/crt.txt",
    folder: "crt",
};

/// IAM, STS and S3 for the walkthrough.
pub(super) const MOTO: Environment = Environment {
    what: "moto's server",
    requirements: "xtask/python/moto.txt",
    folder: "moto",
};

/// What renders and checks the chart.
pub(super) const CHART: Environment = Environment {
    what: "Helm and the schemas of Kubernetes",
    requirements: "xtask/python/chart.txt",
    folder: "chart",
};

/// What writes the dashboards.
pub(super) const GRAFANA: Environment = Environment {
    what: "Grafana's SDK for dashboards",
    requirements: "xtask/python/grafana.txt",
    folder: "grafana",
};

impl Environment {
    /// Installs it, unless just these versions are there.
    pub(super) fn install(&self) -> Result<()> {
        let requirements = self.requirements;
        let wanted = fs::read_to_string(root().join(requirements))
            .with_context(|| format!("cannot read {requirements}"))?;
        // Written last, so it is there only when all the rest is.
        let installed = self.path().join("installed.txt");
        if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        if !has_venv() {
            // Debian ships the venv module without the pip that it puts into new environments.
            apt::install(
                self.what,
                &[
                    Wanted::command("python3", "python3"),
                    Wanted::package("python3-venv"),
                ],
            )?;
        }
        let pip = pip()?;
        let title = format!("Installing {} into target/tools/{}", self.what, self.folder);
        step(&title, || {
            make(&self.path(), &["--without-pip"])?;
            let environment = self.path();
            run(Command::new(pip)
                .current_dir(root())
                .args(["-m", "pip", "--disable-pip-version-check", "--quiet"])
                .arg("--python")
                .arg(environment.join("bin/python"))
                .args(["install", "--requirement", requirements]))?;
            record(&installed, &wanted)
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        tools().join(self.folder)
    }
}

/// The Python with the pip that installs into all others: to put one into each takes several
/// seconds, and a distribution's may be too old to install elsewhere.
fn pip() -> Result<PathBuf> {
    let folder = tools().join("pip");
    let python = folder.join("bin/python");
    let version = output(Command::new(&python).args(["-m", "pip", "--version"]));
    if version.is_some_and(|it| it.starts_with(&format!("pip {PIP} "))) {
        return Ok(python);
    }
    let title = format!("Installing pip {PIP} into target/tools/pip");
    step(&title, || {
        make(&folder, &[])?;
        run(Command::new(&python)
            .args(["-m", "pip", "--disable-pip-version-check", "--quiet"])
            .args(["install", &format!("pip=={PIP}")]))
    })?;
    Ok(python)
}

/// Makes an environment anew.
fn make(folder: &Path, flags: &[&str]) -> Result<()> {
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .args(flags)
        .arg(folder))
}

fn has_venv() -> bool {
    output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_some()
}

fn record(path: &Path, wanted: &str) -> Result<()> {
    fs::write(path, wanted).with_context(|| format!("cannot write {}", path.display()))
}
