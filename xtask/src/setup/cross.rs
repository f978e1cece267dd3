//! What builds static binaries for container images, for any architecture on any machine: Rust's
//! own musl targets, and Zig, a C compiler that brings musl's headers for all of them.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{python::Environment, rust::rustc};
use crate::{
    architecture::Architecture,
    run::{output, run, step},
    workspace::root,
};

const ZIG: Environment = Environment {
    what: "Zig, a C compiler for other machines",
    requirements: "xtask/python/cross.txt",
    folder: "cross",
};

/// Zig has names of its own for targets, and does not know those that build scripts use. Without an
/// optimisation level it would want a runtime for its sanitizers.
const COMPILER: &str = r#"#!/bin/sh
for arg do
    shift
    case $arg in
        --target=*) ;;
        *) set -- "$@" "$arg" ;;
    esac
done
exec "${0%/*}/python" -m ziglang cc -target TARGET -fno-sanitize=all "$@"
"#;
const ARCHIVER: &str = r#"#!/bin/sh
exec "${0%/*}/python" -m ziglang ar "$@"
"#;

/// The addresses to adjust at the start in a form that takes half a megabyte less.
const LINKER_FLAG: &str = "-Clink-arg=--pack-dyn-relocs=relr";

pub(super) fn install(architectures: &[Architecture]) -> Result<()> {
    rust_libraries(architectures)?;
    ZIG.install()?;
    write_program(&archiver(), ARCHIVER)?;
    architectures.iter().try_for_each(|architecture| {
        let script = COMPILER.replace("TARGET", zig_target(*architecture));
        write_program(&compiler(*architecture), &script)
    })
}

/// Tells cargo, and the build scripts that it runs, how to build for an architecture.
pub(crate) fn configure(cargo: &mut Command, architecture: Architecture) {
    let target = architecture.target().replace('-', "_");
    let linker = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase());
    // What is built does not tell where, and is the same wherever it is.
    let places = [(cargo_home(), "/cargo"), (root().to_owned(), "/podcreds")];
    let [in_rust, in_c] = ["--remap-path-prefix", "-ffile-prefix-map"].map(|flag| {
        places
            .iter()
            .map(move |(place, name)| format!("{flag}={}={name}", place.display()))
    });
    cargo
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            in_rust
                .chain([LINKER_FLAG.to_owned()])
                .collect::<Vec<_>>()
                .join("\x1f"),
        )
        .env(
            format!("CFLAGS_{target}"),
            in_c.collect::<Vec<_>>().join(" "),
        )
        .env(format!("CC_{target}"), compiler(architecture))
        .env(format!("AR_{target}"), archiver())
        // With the start files and the libc of Rust's own library.
        .env(linker, "rust-lld");
}

fn rust_libraries(architectures: &[Architecture]) -> Result<()> {
    let sysroot = output(rustc().args(["--print", "sysroot"])).context("rustc does not run")?;
    let libraries = Path::new(&sysroot).join("lib/rustlib");
    let missing: Vec<_> = architectures
        .iter()
        .map(|architecture| architecture.target())
        .filter(|target| !libraries.join(target).join("lib").is_dir())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let title = format!("Installing Rust's libraries for {}", missing.join(", "));
    step(&title, || {
        run(Command::new("rustup")
            .current_dir(root())
            .args(["target", "add"])
            .args(&missing))
        .context("the libraries come through rustup (https://rustup.rs)")
    })
}

/// Where cargo keeps the source of dependencies.
fn cargo_home() -> PathBuf {
    let home = env::var_os("HOME").unwrap_or_default();
    env::var_os("CARGO_HOME").map_or_else(|| Path::new(&home).join(".cargo"), PathBuf::from)
}

fn zig_target(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "x86_64-linux-musl",
        Architecture::Arm64 => "aarch64-linux-musl",
    }
}

fn compiler(architecture: Architecture) -> PathBuf {
    let name = format!("{}-cc", zig_target(architecture));
    ZIG.path().join("bin").join(name)
}

fn archiver() -> PathBuf {
    ZIG.path().join("bin/zig-ar")
}

/// Writes a script, unless it is there: cargo would build everything again that it compiles.
fn write_program(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}
