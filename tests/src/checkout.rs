//! Where the checkout is.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The root of the checkout: of the one whose package cargo runs, or else of the one that this
/// program or the current folder is in. It is looked for at run time, since a checkout can be moved
/// or copied with all that it has built. `None` where there is none, such as in a virtual machine.
pub fn root() -> Option<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let starts = [manifest, env::current_exe().ok(), env::current_dir().ok()];
    let mut starts = starts.into_iter().flatten();
    starts.find_map(|start| {
        let root = start.ancestors().find(|folder| is_root(folder));
        root.map(Path::to_owned)
    })
}

/// A file of the checkout. Where there is none, the same path in the current folder.
pub fn file(path: impl AsRef<Path>) -> PathBuf {
    root().unwrap_or_default().join(path)
}

fn is_root(folder: &Path) -> bool {
    ["agent", "tests", "xtask"]
        .iter()
        .all(|member| folder.join(member).join("Cargo.toml").is_file())
}
