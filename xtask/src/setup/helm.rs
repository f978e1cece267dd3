//! Helm, in both versions that are in use, for the walk through the install guide on a Kubernetes
//! node.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    run::{run, step},
    workspace::tools,
};

/// The major version, and the release that is built.
const RELEASES: [(&str, &str); 2] = [("3", "v3.19.5"), ("4", "v4.3.1")];

pub(super) fn install() -> Result<()> {
    RELEASES
        .into_iter()
        .try_for_each(|(major, release)| build(major, release))
}

/// Builds a release, unless it has been built already.
fn build(major: &str, release: &str) -> Result<()> {
    let folder = tools().join("helm").join(major);
    // Written last, so it is there only when all the rest is.
    let installed = folder.join("built.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == release) {
        return Ok(());
    }
    let title = format!("Building Helm {release} into target/tools/helm (two minutes, once)");
    step(&title, || {
        run(Command::new("go")
            .env("CGO_ENABLED", "0")
            .env("GOBIN", &folder)
            .args(["install", "-trimpath"])
            .arg(format!(
                "-ldflags=-s -w -X helm.sh/helm/v{major}/internal/version.version={release}"
            ))
            .arg(format!("helm.sh/helm/v{major}/cmd/helm@{release}")))?;
        fs::write(&installed, release)
            .with_context(|| format!("cannot write {}", installed.display()))
    })
}
