//! What a virtual machine of `cargo xtask kernels` boots into: makes of a bare kernel something
//! like a node, runs test programs on it, and switches the machine off.
//!
//! What to run is in `/checks.json`. What came of it goes to the second serial line, a JSON object
//! a line; the first one is the console, for people.

mod check;
mod machine;

use std::{env, fs, process::ExitCode};

use anyhow::{Context, Result, ensure};
use check::Check;
use nix::unistd::{Pid, getpid};
use serde_json::{Value, json};

/// What to run, made by `cargo xtask kernels`.
const CHECKS: &str = "/checks.json";
/// Where the results go.
const RESULTS: &str = "/dev/ttyS1";
/// Tells the process that runs the checks from the one that the kernel has started.
const RUN_CHECKS: &str = "run-checks";

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(RUN_CHECKS) {
        return report_error(run_checks());
    }
    if getpid() != Pid::from_raw(1) {
        eprintln!("guest: this is the first process of a virtual machine, and of no use elsewhere");
        return ExitCode::FAILURE;
    }
    let done = report_error(machine::prepare().and_then(|()| machine::supervise(RUN_CHECKS)));
    machine::switch_off();
    done
}

fn run_checks() -> Result<()> {
    let checks = fs::read(CHECKS).with_context(|| format!("reading {CHECKS}"))?;
    let checks: Vec<Check> = serde_json::from_slice(&checks).context(CHECKS)?;
    ensure!(!checks.is_empty(), "{CHECKS} asks for nothing");
    for check in &checks {
        report(&json!({ "begins": check.title }))?;
        report(&check.run()?)?;
    }
    report(&json!({ "kernel": machine::kernel()? }))
}

fn report(result: &Value) -> Result<()> {
    // Written in one piece, since the line may be cut off when the machine crashes.
    fs::write(RESULTS, format!("{result}\n")).with_context(|| format!("writing to {RESULTS}"))
}

fn report_error(done: Result<()>) -> ExitCode {
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    eprintln!("guest: {error:#}");
    // Where even that fails, the console has it.
    let _ = report(&json!({ "error": format!("{error:#}") }));
    ExitCode::FAILURE
}
