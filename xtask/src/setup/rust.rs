//! The compiler of `rust-toolchain.toml`, and the tools from crates.io that go with it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::apt::{self, Wanted, find_program};
use crate::{
    run::{output, run, step},
    workspace::{cargo, root, tools},
};

/// Links eBPF objects out of LLVM bitcode. Built against the LLVM of the pinned compiler.
const BPF_LINKER: &str = "0.13.0";
/// Checks licences, duplicates and sources of dependencies.
const CARGO_DENY: &str = "0.20.2";
/// Lists what a program is built from.
const CARGO_CYCLONEDX: &str = "0.5.9";

/// Completes the pinned toolchain: it is there, or xtask would not run, but its components may not
/// be.
pub(super) fn toolchain() -> Result<()> {
    let sysroot = output(rustc().args(["--print", "sysroot"])).context("rustc does not run")?;
    let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core");
    let tools = ["cargo-fmt", "cargo-clippy"];
    if core.is_dir() && tools.iter().all(|tool| find_program(tool).is_some()) {
        return Ok(());
    }
    step("Installing the components of rust-toolchain.toml", || {
        run(Command::new("rustup").current_dir(root()).args([
            "component",
            "add",
            "clippy",
            "rustfmt",
            "rust-src",
        ]))
        .context("the compiler's components come through rustup (https://rustup.rs)")
    })
}

/// Builds bpf-linker against the LLVM that the compiler carries, unless one is there.
pub(super) fn bpf_linker() -> Result<()> {
    if is_there("bpf-linker", &[], BPF_LINKER) {
        return Ok(());
    }
    let llvm = llvm_of_rustc()?;
    let prefix = llvm_prefix(llvm)?;
    step(
        &format!("Building bpf-linker {BPF_LINKER} against LLVM {llvm}"),
        || {
            run(cargo_install("bpf-linker", BPF_LINKER)
                .args(["--no-default-features", "--features"])
                .arg(format!("llvm-{llvm}"))
                .env("LLVM_PREFIX", prefix))
        },
    )
}

/// Builds cargo-deny, unless it is there.
pub(super) fn cargo_deny() -> Result<()> {
    if is_there("cargo-deny", &[], CARGO_DENY) {
        return Ok(());
    }
    step(
        &format!("Building cargo-deny {CARGO_DENY} (a minute)"),
        || run(&mut cargo_install("cargo-deny", CARGO_DENY)),
    )
}

/// Builds cargo-cyclonedx, unless it is there.
pub(super) fn cargo_cyclonedx() -> Result<()> {
    if is_there("cargo-cyclonedx", &["cyclonedx"], CARGO_CYCLONEDX) {
        return Ok(());
    }
    step(
        &format!("Building cargo-cyclonedx {CARGO_CYCLONEDX} (a minute)"),
        || run(&mut cargo_install("cargo-cyclonedx", CARGO_CYCLONEDX)),
    )
}

/// Whether this version is in the checkout or on the path, and runs. Some want to hear their name
/// again.
fn is_there(tool: &str, arguments: &[&str], version: &str) -> bool {
    let private = tools().join("bin").join(tool);
    [Some(private), find_program(tool)]
        .into_iter()
        .flatten()
        .filter_map(|program| output(Command::new(program).args(arguments).arg("--version")))
        .any(|printed| printed.split_whitespace().last() == Some(version))
}

/// Installs a tool that runs for seconds: an optimised one would cost minutes to save a few.
fn cargo_install(package: &str, version: &str) -> Command {
    let mut cargo = cargo();
    cargo
        .env("CARGO_PROFILE_DEV_DEBUG", "none")
        .args([
            "install",
            "--debug",
            "--quiet",
            "--locked",
            package,
            "--version",
            version,
        ])
        .arg("--root")
        .arg(tools());
    cargo
}

/// The major version of the LLVM inside the compiler: bitcode of a newer LLVM cannot be read by an
/// older one.
fn llvm_of_rustc() -> Result<u32> {
    let version = output(rustc().arg("-vV")).context("rustc does not run")?;
    llvm_major(&version).context("`rustc -vV` names no LLVM version")
}

fn llvm_major(version: &str) -> Option<u32> {
    let line = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

/// Where this LLVM's headers and libraries are; installs them when they are nowhere.
fn llvm_prefix(llvm: u32) -> Result<PathBuf> {
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        return Ok(prefix.into());
    }
    if let Some(prefix) = llvm_of_the_system(llvm) {
        return Ok(prefix);
    }
    let [llvm_dev, polly_dev] = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
    apt::install(
        "bpf-linker",
        &[
            Wanted::package(&llvm_dev),
            Wanted::package(&polly_dev),
            Wanted::package("zlib1g-dev"),
            Wanted::package("libzstd-dev"),
        ],
    )
    .with_context(|| {
        format!(
            "LLVM {llvm} is not to be had from this distribution; https://apt.llvm.org has it for \
             Debian and Ubuntu, and an LLVM elsewhere is taken from LLVM_PREFIX"
        )
    })?;
    llvm_of_the_system(llvm)
        .with_context(|| format!("{llvm_dev} is installed but brought no llvm-config"))
}

/// Asks the llvm-config of this version, under the names that distributions give it.
fn llvm_of_the_system(llvm: u32) -> Option<PathBuf> {
    let candidates = [
        format!("/usr/lib/llvm-{llvm}/bin/llvm-config"),
        format!("llvm-config-{llvm}"),
        format!("llvm-config{llvm}"),
        "llvm-config".to_owned(),
    ];
    candidates.iter().find_map(|config| {
        let version = output(Command::new(config).arg("--version"))?;
        let prefix = PathBuf::from(output(Command::new(config).arg("--prefix"))?);
        let matches = version.split('.').next() == Some(llvm.to_string().as_str());
        // Distributions split the headers, or the static libraries, from the tools.
        let complete = prefix.join("include/llvm-c/Core.h").exists();
        (matches && complete).then_some(prefix)
    })
}

pub(super) fn rustc() -> Command {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(root());
    rustc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_is_read_from_rustc() {
        let printed = "rustc 1.95.0 (59807616e 2026-04-14)\nrelease: 1.95.0\nLLVM version: 22.1.2";
        assert_eq!(llvm_major(printed), Some(22));
        assert_eq!(llvm_major("rustc 1.95.0"), None);
    }
}
