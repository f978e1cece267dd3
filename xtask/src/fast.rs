//! What computes for minutes, and is built by the profile `fast` for that: simulations and fuzzing.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    run::{bound, run, step},
    setup,
    workspace::{cargo, root, target},
};

/// The profile in the root manifest.
const PROFILE: [&str; 3] = ["--locked", "--profile", "fast"];

/// What is fed to the parsers, and for how long.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Which one, such as `claims`. Without any: all of them.
    target: Option<String>,
    /// How many inputs each of them gets.
    #[arg(long)]
    inputs: Option<u64>,
    /// For how many seconds each of them is fed.
    #[arg(long)]
    seconds: Option<u64>,
    /// What the dice are thrown by. A run that has failed says its seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A parser that is fed: a test of its crate, with a folder of first inputs beside.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    package: String,
    name: String,
}

/// Simulates a node's day or a fleet.
pub(crate) fn simulate(args: &[String]) -> Result<()> {
    step("Building simulate (fast)", || {
        let mut cargo = cargo();
        cargo.arg("build").args(PROFILE);
        run(cargo.args(["--package", "podcreds-simulate"]))
    })?;
    let mut simulate = bound(target()?.join("fast/simulate"));
    run(simulate.current_dir(root()).args(args))
}

/// Feeds the parsers with what they may not like.
pub(crate) fn fuzz(options: &Fuzz) -> Result<()> {
    let targets = targets(root())?;
    let wanted = options.target.as_deref();
    if wanted.is_some_and(|wanted| targets.iter().all(|target| target.name != wanted)) {
        let names: Vec<_> = targets.iter().map(|target| &*target.name).collect();
        bail!("there is no such target, only these: {}", names.join(", "));
    }
    setup::for_build()?;
    let mut packages: Vec<_> = targets.iter().map(|target| &target.package).collect();
    packages.dedup();
    step("Fuzzing", || {
        let mut cargo = cargo();
        cargo
            .arg("test")
            .args(PROFILE)
            .args(["--lib", "--no-fail-fast"]);
        // All of them, so that each run finds their dependencies built.
        for package in packages {
            cargo.args(["--package", package]);
        }
        let limits = [("INPUTS", options.inputs), ("SECONDS", options.seconds)];
        let limits = limits.into_iter().chain([("SEED", Some(options.seed))]);
        for (name, value) in limits {
            if let Some(value) = value {
                cargo.env(format!("PODCREDS_FUZZ_{name}"), value.to_string());
            }
        }
        let name = format!("fuzz_{}", wanted.unwrap_or_default());
        run(cargo.args(["--", "--nocapture", &name]))
    })
}

/// All targets, by what their first inputs are in: `agent/STAGE/corpus/TARGET`.
fn targets(root: &Path) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for stage in folders(&root.join("agent"))? {
        for name in folders(&root.join("agent").join(&stage).join("corpus")).unwrap_or_default() {
            let package = format!("podcreds-{stage}");
            targets.push(Target { package, name });
        }
    }
    targets.sort();
    Ok(targets)
}

fn folders(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    let names = folders.map(|folder| folder.file_name().to_string_lossy().into_owned());
    Ok(names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_of_first_inputs_has_a_test_that_takes_them() {
        let targets = targets(root()).unwrap();
        assert!(targets.len() > 10, "{targets:?}");
        for Target { package, name } in targets {
            let stage = package.trim_start_matches("podcreds-");
            let sources = root().join("agent").join(stage).join("src");
            let files = ["fuzz.rs", "jwks/fuzz.rs"].map(|file| sources.join(file));
            let sources: String = files.iter().flat_map(fs::read_to_string).collect();
            let test = format!("fn fuzz_{name}()");
            assert!(sources.contains(&test), "{package} has no {test}");
        }
    }
}
