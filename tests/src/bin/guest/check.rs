//! One test program, and which of its tests to run.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// Files rather than pipes: nobody has to read them, so that nothing waits for a process which a
/// test has left behind.
const OUTPUT: &str = "/tmp/output";
const ERRORS: &str = "/tmp/errors";

/// Some tests of one program, and what they show together.
#[derive(Deserialize)]
pub(crate) struct Check {
    pub(crate) title: String,
    program: PathBuf,
    tests: Vec<String>,
}

impl Check {
    /// Runs the tests and tells how many there were and how many have passed.
    pub(crate) fn run(&self) -> Result<Value> {
        let [output, errors] = [OUTPUT, ERRORS].map(File::create);
        let status = Command::new(&self.program)
            // Also those that only make sense on a kernel like this one.
            .args(["--exact", "--include-ignored"])
            .args(&self.tests)
            .stdin(Stdio::null())
            .stdout(output.context(OUTPUT)?)
            .stderr(errors.context(ERRORS)?)
            .status()
            .with_context(|| format!("running {}", self.program.display()))?;
        let [output, errors] = [OUTPUT, ERRORS].map(fs::read);
        let (output, errors) = (output.context(OUTPUT)?, errors.context(ERRORS)?);
        let (output, errors) = (
            String::from_utf8_lossy(&output),
            String::from_utf8_lossy(&errors),
        );
        println!("---- {} ----\n{output}{errors}", self.title);
        let passed = self.tests.iter().filter(|test| has_passed(&output, test));
        let passed = passed.count();
        Ok(json!({
            "title": self.title,
            "tests": self.tests.len(),
            "passed": passed,
            // A test that no longer exists fails nothing, so all must be seen to pass.
            "ok": status.success() && passed == self.tests.len(),
        }))
    }
}

fn has_passed(output: &str, test: &str) -> bool {
    let line = format!("test {test} ... ok");
    output.lines().any(|shown| shown == line)
}
