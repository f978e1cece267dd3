//! Where things are, and the programs that work on them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run::{bound, output};

/// The root of the checkout: of the one whose xtask cargo runs, or else of the one that this
/// program or the current folder is in. It is looked for at run time, since a checkout can be moved
/// or copied with all that it has built.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let starts = [manifest, env::current_exe().ok(), env::current_dir().ok()];
        let mut starts = starts.into_iter().flatten();
        starts
            .find_map(|start| {
                start
                    .ancestors()
                    .find(|folder| is_root(folder))
                    .map(Path::to_owned)
            })
            .unwrap_or_default()
    });
    &ROOT
}

fn is_root(folder: &Path) -> bool {
    ["agent", "tests", "xtask"]
        .iter()
        .all(|member| folder.join(member).join("Cargo.toml").is_file())
}

/// Where `setup` puts tools that belong to this checkout alone. `agent/datapath/build.rs` looks
/// here too.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// Cargo, in the root of the checkout, with the tools on its path.
pub(crate) fn cargo() -> Command {
    let mut cargo = bound(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    let path = env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(tools().join("bin")).chain(env::split_paths(&path));
    if let Ok(path) = env::join_paths(paths) {
        cargo.env("PATH", path);
    }
    cargo
}

/// Where cargo builds to, which is where xtask itself is.
///
/// # Errors
///
/// When the path of the running xtask is unknown.
pub(crate) fn target() -> Result<PathBuf> {
    let xtask = env::current_exe().context("cannot tell where xtask itself is")?;
    let target = xtask.ancestors().nth(2);
    Ok(target
        .context("xtask runs outside a target folder")?
        .to_owned())
}

/// The folders of the workspace's members.
pub(crate) fn members() -> Result<Vec<PathBuf>> {
    let metadata = output(cargo().args(["metadata", "--format-version=1", "--no-deps"]))
        .context("cargo does not know its workspace")?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifests = packages.filter_map(|package| package["manifest_path"].as_str());
    Ok(manifests
        .filter_map(|manifest| Some(Path::new(manifest).parent()?.to_owned()))
        .collect())
}

/// A program that this workspace has built.
///
/// # Errors
///
/// When the path of the running xtask is unknown.
pub(crate) fn built(name: &str, release: bool) -> Result<Command> {
    let mut command = bound(target()?.join(profile(release)).join(name));
    command.current_dir(root());
    Ok(command)
}

/// The folder of what is built in one way or the other.
pub(crate) fn profile(release: bool) -> &'static str {
    if release { "release" } else { "debug" }
}
