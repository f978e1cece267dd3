//! The programs that run in the machine, built as `cargo xtask test` builds them.

use std::{collections::HashMap, path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{checks, image::Image};
use crate::{run::step, tasks::EVERYTHING_FOR_THE_HOST, workspace::cargo};

/// The agent, what runs in simulated pods, and the machine's first process.
const PROGRAMS: [&str; 3] = ["podcreds", "pod-client", "guest"];

/// Builds everything, and puts what the checks need into the image.
pub(super) fn add_to(image: &Image) -> Result<()> {
    let built = step("Building the agent and all tests", build)?;
    step("Putting a file system together", || {
        for name in PROGRAMS.into_iter().chain(checks::programs()) {
            let program = built.get(name);
            let program = program.with_context(|| format!("cargo has not built {name}"))?;
            image.add_program(name, program)?;
        }
        image.add_tools()
    })
}

/// Programs and test programs, by their names.
fn build() -> Result<HashMap<String, PathBuf>> {
    let cargo = cargo()
        .arg("build")
        .args(EVERYTHING_FOR_THE_HOST)
        .args(["--bins", "--tests"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(cargo.status.success(), "cargo could not build everything");
    let lines = String::from_utf8(cargo.stdout).context("what cargo says")?;
    Ok(lines.lines().filter_map(executable).collect())
}

/// The name and the path of what a line of cargo's says that it has built.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let executable = line["executable"].as_str()?;
    let target = &line["target"];
    let is_test = target["kind"] == serde_json::json!(["test"]);
    // A program is also built as a test of itself.
    let is_program =
        target["kind"] == serde_json::json!(["bin"]) && line["profile"]["test"] == false;
    let name = target["name"].as_str()?;
    (is_test || is_program).then(|| (name.to_owned(), executable.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(kind: &str, test: bool) -> String {
        format!(
            r#"{{"target":{{"kind":["{kind}"],"name":"x"}},"profile":{{"test":{test}}},"executable":"/x"}}"#
        )
    }

    #[test]
    fn programs_are_told_from_tests_of_themselves() {
        let expected = Some(("x".to_owned(), "/x".into()));
        assert_eq!(executable(&artifact("bin", false)), expected);
        assert_eq!(executable(&artifact("test", true)), expected);
        assert_eq!(executable(&artifact("bin", true)), None);
        assert_eq!(executable(&artifact("lib", true)), None);
        assert_eq!(executable(r#"{"reason":"build-finished"}"#), None);
    }
}
