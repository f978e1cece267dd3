//! Builds the eBPF object that the agent carries.
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
    let workspace = manifest
        .ancestors()
        .nth(2)
        .context("agent/datapath is not where it was")?;
    let object = build_object(workspace, Path::new(&variable("OUT_DIR")?))?;
    println!("cargo::rustc-env=PODCREDS_EBPF_OBJECT={}", object.display());
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
        // aya-ebpf asks for the machine whose registers a tracing program would read; none of ours
        // does.
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

/// `cargo xtask setup` puts bpf-linker into the workspace; one that is installed elsewhere works
/// too.
fn path_with_tools(workspace: &Path) -> Result<OsString> {
    let tools = workspace.join("target/tools/bin");
    let inherited = env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(tools).chain(env::split_paths(&inherited));
    env::join_paths(paths).context("PATH cannot be extended")
}

fn variable(name: &str) -> Result<OsString> {
    env::var_os(name).with_context(|| format!("cargo did not set {name}"))
}
