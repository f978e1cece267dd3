//! Builds the eBPF object that the agent carries, and notes which commit it is built from.
//!
//! `aya-build` drives the same tools, but with a nightly compiler. One pinned stable compiler for
//! everything needs `RUSTC_BOOTSTRAP`, and needs it for this child process only.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "podcreds-ebpf";

fn main() -> Result<()> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().context("agent has no parent folder")?;
    let object = build_object(workspace, Path::new(&variable("OUT_DIR")?))?;
    println!("cargo::rustc-env=PODCREDS_EBPF_OBJECT={}", object.display());
    println!("cargo::rustc-env=PODCREDS_REVISION={}", revision(workspace));
    for path in [
        "ebpf",
        "common",
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    Ok(())
}

fn build_object(workspace: &Path, out: &Path) -> Result<PathBuf> {
    let target_dir = out.join("ebpf");
    let flags = [
        // aya-ebpf asks for the machine whose registers a tracing program would read; none of ours does.
        "--cfg=bpf_target_arch=\"x86_64\"",
        "-Cdebuginfo=2",
        "-Clinker=bpf-linker",
        "-Clink-arg=--btf",
    ];
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--release", "--locked", "--package", PACKAGE])
        .args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("PATH", path_with_tools(workspace)?);
    // What a caller such as clippy wraps around the compiler is meant for the host.
    for name in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS"] {
        cargo.env_remove(name);
    }
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!(
            "the eBPF object did not build ({status}); `cargo xtask setup` installs what it needs \
             (rust-src and bpf-linker)"
        );
    }
    Ok(target_dir.join(TARGET).join("release").join(PACKAGE))
}

/// `cargo xtask setup` puts bpf-linker into the workspace; one that is installed elsewhere works too.
fn path_with_tools(workspace: &Path) -> Result<OsString> {
    let tools = workspace.join("target/tools/bin");
    let inherited = env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(tools).chain(env::split_paths(&inherited));
    env::join_paths(paths).context("PATH cannot be extended")
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

fn variable(name: &str) -> Result<OsString> {
    env::var_os(name).with_context(|| format!("cargo did not set {name}"))
}
