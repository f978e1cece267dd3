//! What cargo has built: programs and test programs, and where they are.

use std::{collections::HashMap, path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{run::step, tasks::EVERYTHING_FOR_THE_HOST, workspace::cargo};

/// Builds everything for this machine, and returns programs and test programs by their names.
/// Programs and tests in one command share one build of each dependency.
pub(crate) fn build() -> Result<HashMap<String, PathBuf>> {
    step("Building the agent and all tests", build_all)
}

fn build_all() -> Result<HashMap<String, PathBuf>> {
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
