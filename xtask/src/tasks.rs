//! The commands proper: each sets up what it needs, then lets cargo do the work.

use std::env;

use anyhow::Result;

use crate::{
    architecture::Architecture,
    executables,
    run::{run, step},
    setup, workspace,
    workspace::{built, cargo, profile},
};

/// The eBPF crate builds for another machine; `agent/datapath/build.rs` builds it from within.
pub(crate) const EVERYTHING_FOR_THE_HOST: [&str; 4] =
    ["--locked", "--workspace", "--exclude", "podcreds-ebpf"];

/// How many tests run at once. Most of them wait, so that is more than there are processors.
pub(crate) const TEST_THREADS: &str = "6";

/// How the eBPF crate is compiled where it is not `agent/datapath/build.rs` that does it.
const EBPF_TARGET: [&str; 6] = [
    "--package",
    "podcreds-ebpf",
    "--target",
    "bpfel-unknown-none",
    "-Zbuild-std=core",
    "--locked",
];

/// What people install, by its package.
pub(crate) const AGENT: &str = "podcreds";
pub(crate) const PLUGIN: &str = "kubectl-podcreds";

/// Builds a program, for this machine or statically for others.
pub(crate) fn build(program: &str, release: bool, architectures: &[Architecture]) -> Result<()> {
    if !architectures.is_empty() {
        setup::for_static_build(architectures)?;
        return build_static(program, architectures, release);
    }
    setup::for_build()?;
    let title = format!("Building {program} ({})", profile(release));
    // By itself, so that no test decides which features its libraries have.
    step(&title, || {
        let mut cargo = cargo();
        cargo.args(["build", "--locked", "--package", program]);
        if release {
            cargo.arg("--release");
        }
        run(&mut cargo)
    })
}

/// Builds a program that runs on any Linux of these architectures, such as in an image without
/// files.
pub(crate) fn build_static(
    program: &str,
    architectures: &[Architecture],
    release: bool,
) -> Result<()> {
    for architecture in architectures {
        let title = format!(
            "Building {program}, static for {} ({})",
            architecture.name(),
            profile(release)
        );
        step(&title, || {
            let mut cargo = cargo();
            setup::cross::configure(&mut cargo, *architecture);
            cargo
                .args(["build", "--locked", "--package", program, "--target"])
                .arg(architecture.target());
            if release {
                // Nodes carry no debugger's data. The names of functions stay, for backtraces.
                cargo
                    .arg("--release")
                    .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
            }
            run(&mut cargo)
        })?;
    }
    Ok(())
}

pub(crate) fn test(args: &[String]) -> Result<()> {
    setup::for_test()?;
    executables::build()?;
    step("Testing", || {
        let mut cargo = cargo();
        cargo.args(["test", "--no-fail-fast"]);
        if env::var_os("RUST_TEST_THREADS").is_none() {
            cargo.env("RUST_TEST_THREADS", TEST_THREADS);
        }
        if !names_packages(args) {
            cargo.args(EVERYTHING_FOR_THE_HOST);
        }
        run(cargo.args(args))
    })
}

/// Whether arguments for `cargo test` say which packages to test.
fn names_packages(args: &[String]) -> bool {
    // What follows is for the test programs.
    let mut for_cargo = args.iter().take_while(|arg| *arg != "--");
    for_cargo.any(|arg| arg.starts_with("-p") || arg.starts_with("--package"))
}

pub(crate) fn lint() -> Result<()> {
    setup::for_lint()?;
    // All of them, so that one run shows all there is to mend.
    let results = [
        step("Formatting", || {
            run(cargo().args(["fmt", "--all", "--check"]))
        }),
        step("Clippy, user space", || {
            run(cargo().arg("clippy").args(EVERYTHING_FOR_THE_HOST).args([
                "--all-targets",
                "--",
                "-Dwarnings",
            ]))
        }),
        step("Clippy, eBPF", clippy_ebpf),
        step("Licences, duplicates and sources of dependencies", || {
            // Advisories need a database from the network: CONTRIBUTING.md says how to check them.
            run(cargo()
                .args(["deny", "--locked", "--workspace"])
                .args(["check", "bans", "licenses", "sources"]))
        }),
    ];
    results.into_iter().collect()
}

fn clippy_ebpf() -> Result<()> {
    run(cargo()
        .arg("clippy")
        .args(EBPF_TARGET)
        .arg("--target-dir")
        .arg(workspace::root().join("target/ebpf-lint"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "--cfg=bpf_target_arch=\"x86_64\"",
        )
        .args(["--", "-Dwarnings"]))
}

pub(crate) fn demo(keep: bool, release: bool, s3: bool) -> Result<()> {
    setup::for_demo(s3)?;
    build_programs(&["podcreds", "pod-client", "demo"], release)?;
    let mut demo = built("demo", release)?;
    if keep {
        demo.arg("--keep");
    }
    if s3 {
        demo.arg("--s3");
    }
    run(&mut demo)
}

pub(crate) fn load(args: &[String]) -> Result<()> {
    let here = Architecture::here()?;
    setup::for_load(here)?;
    // What ships is what counts.
    build_static(AGENT, &[here], true)?;
    build_programs(&["pod-client", "load"], true)?;
    let mut load = built("load", true)?;
    load.arg("--agent").arg(here.agent(true)?);
    load.arg("--nginx").arg(setup::nginx()?).args(args);
    run(&mut load)
}

pub(crate) fn soak(args: &[String]) -> Result<()> {
    setup::for_build()?;
    build_programs(&["podcreds", "pod-client", "soak"], false)?;
    run(built("soak", false)?.args(args))
}

/// Builds programs of this workspace for this machine.
pub(crate) fn build_programs(programs: &[&str], release: bool) -> Result<()> {
    let title = format!("Building {} ({})", programs.join(", "), profile(release));
    step(&title, || {
        let mut cargo = cargo();
        // As parts of the whole: a package that is built by itself gets other features of its
        // dependencies, and all of those are built once more.
        cargo.arg("build").args(EVERYTHING_FOR_THE_HOST);
        for program in programs {
            cargo.args(["--bin", program]);
        }
        if release {
            cargo.arg("--release");
        }
        run(&mut cargo)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_packages_are_tested_unless_some_are_named() {
        let names = |line: &str| {
            let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            names_packages(&args)
        };
        for some in ["-p x", "-px", "--package x", "--package=x", "--lib -p x"] {
            assert!(names(some), "{some}");
        }
        for all in ["", "a_test --no-run", "-- --skip x", "-- -p"] {
            assert!(!names(all), "{all}");
        }
    }
}
