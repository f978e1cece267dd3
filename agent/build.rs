//! Notes which commit the agent is built from.

use std::{env, path::Path, process::Command};

fn main() {
    let workspace = Path::new("..");
    println!("cargo::rustc-env=PODCREDS_REVISION={}", revision(workspace));
}

/// The commit, for `--version` and the build-info metric; "unknown" outside a checkout.
fn revision(workspace: &Path) -> String {
    println!("cargo::rerun-if-env-changed=PODCREDS_REVISION");
    // Git appends to this log whenever HEAD moves, in whatever kind of checkout.
    if let Some(log) = git(workspace, &["rev-parse", "--git-path", "logs/HEAD"]) {
        let log = workspace.join(log);
        println!("cargo::rerun-if-changed={}", log.display());
    }
    env::var("PODCREDS_REVISION")
        .ok()
        .or_else(|| git(workspace, &["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// What git says; `None` without git, or outside a checkout.
fn git(workspace: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(workspace)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned())
}
