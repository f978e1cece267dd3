//! Where things are, and the programs that work on them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where `setup` puts tools that belong to this checkout alone. `agent/build.rs` looks here too.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Cargo, in the root of the checkout, with the tools on its path.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    let path = env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(tools().join("bin")).chain(env::split_paths(&path));
    if let Ok(path) = env::join_paths(paths) {
        cargo.env("PATH", path);
    }
    cargo
}

/// A program that this workspace has built. xtask itself is built into the same target folder.
///
/// # Errors
///
/// When the path of the running xtask is unknown.
pub(crate) fn built(name: &str, release: bool) -> Result<Command> {
    let xtask = env::current_exe().context("cannot tell where xtask itself is")?;
    let target = xtask
        .ancestors()
        .nth(2)
        .context("xtask runs outside a target folder")?;
    let profile = if release { "release" } else { "debug" };
    let mut command = Command::new(target.join(profile).join(name));
    command.current_dir(root());
    Ok(command)
}
