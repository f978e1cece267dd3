//! Clients of AWS that are built: those of the SDKs for Go and Java.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::apt::{self, Wanted};
use crate::{
    run::{run, step},
    workspace::{root, tools},
};

/// Where their sources are.
const SOURCES: &str = "tests/clients";

pub(super) fn go() -> Result<()> {
    let files = ["main.go", "go.mod", "go.sum"];
    once("go", &files, |sources, folder| {
        run(Command::new("go")
            .current_dir(sources)
            .env("CGO_ENABLED", "0")
            .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
            .arg("-o")
            .arg(folder.join("client"))
            .arg("."))
    })
}

pub(super) fn java() -> Result<()> {
    let files = ["pom.xml", "Client.java"];
    once("java", &files, |sources, folder| {
        apt::install(
            "the AWS SDK for Java",
            &[
                Wanted::command("javac", "default-jdk-headless"),
                Wanted::command("mvn", "maven"),
            ],
        )?;
        run(Command::new("mvn")
            .current_dir(sources)
            .args(["--quiet", "--batch-mode", "dependency:copy-dependencies"])
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", folder.display())))?;
        run(Command::new("javac")
            .current_dir(sources)
            .arg("-cp")
            .arg(folder.join("*"))
            .arg("-d")
            .arg(folder)
            .arg("Client.java"))
    })
}

/// Builds a client into a folder of its own, unless these sources have been built already.
fn once(
    language: &str,
    files: &[&str],
    build: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<()> {
    let sources = root().join(SOURCES).join(language);
    let folder: PathBuf = tools().join("clients").join(language);
    let mut wanted = String::new();
    for file in files {
        let path = sources.join(file);
        wanted += &fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    // Written last, so it is there only when all the rest is.
    let installed = folder.join("built.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    step(
        &format!("Building a client in {language} into target/tools/clients"),
        || {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            build(&sources, &folder)?;
            fs::write(&installed, &wanted)
                .with_context(|| format!("cannot write {}", installed.display()))
        },
    )
}
