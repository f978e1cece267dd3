//! What is rendered from other files and committed: dashboards, the chart's copies, and manifests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    run::{run, step},
    setup,
    workspace::{root, tools},
};

/// What the chart installs as well, and where it has its copies: Helm reads nothing outside of a
/// chart.
const COPIES: [(&str, &str, &str); 2] = [
    ("deploy/prometheus", "yaml", "deploy/chart/files/rules"),
    ("deploy/grafana", "json", "deploy/chart/files/dashboards"),
];

/// Renders all of them again.
pub(crate) fn chart() -> Result<()> {
    setup::for_chart()?;
    step("Writing the dashboards of deploy/grafana", || {
        python("grafana", &["-B", "deploy/grafana/generate.py"])
    })?;
    step("Copying rules and dashboards into deploy/chart", || {
        COPIES
            .iter()
            .try_for_each(|(from, extension, to)| copy(&root().join(from), extension, to))
    })?;
    let chart =
        |arguments: &[&str]| python("chart", &[&["xtask/python/chart.py"], arguments].concat());
    step("Linting deploy/chart", || chart(&["lint", "deploy/chart"]))?;
    step("Rendering it into deploy/manifests", || {
        chart(&["manifests", "deploy/chart", "deploy/manifests"])
    })
}

/// Runs one of the Pythons in `target/tools`.
fn python(environment: &str, arguments: &[&str]) -> Result<()> {
    run(Command::new(tools().join(environment).join("bin/python"))
        .current_dir(root())
        .args(arguments))
}

/// Makes a folder hold just what another one has of an extension.
fn copy(from: &Path, extension: &str, to: &str) -> Result<()> {
    let to = root().join(to);
    if to.exists() {
        fs::remove_dir_all(&to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
    for file in files(from, extension)? {
        let name = file.file_name().unwrap_or_default();
        fs::copy(&file, to.join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()));
    let files: Result<Vec<_>> = entries.collect();
    let has_it = |file: &PathBuf| file.extension().is_some_and(|own| own == extension);
    Ok(files?.into_iter().filter(has_it).collect())
}
