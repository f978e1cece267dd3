//! Running programs that are expected to succeed.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program with arguments that hold no blanks.
pub(super) fn run(program: &str, arguments: &str) -> Result<()> {
    output(Command::new(program).args(arguments.split_whitespace())).map(drop)
}

/// Runs a program and returns what it prints.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let described = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {described}"))?;
    checked(&described, &output)
}

/// What a program has printed, or its complaint as an error.
pub(super) fn checked(described: &str, output: &Output) -> Result<String> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{described} failed ({}): {}",
        output.status,
        complaint.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
