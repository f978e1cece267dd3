//! Finding the binaries of this workspace beside the executable that runs.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The path of a binary of this workspace, built into the same target directory and profile as the
/// running executable.
///
/// # Panics
///
/// When it has not been built, with the command that builds it.
pub fn find(name: &str, package: &str) -> PathBuf {
    let running = env::current_exe().expect("the path of the running executable");
    // A test runs from target/debug/deps, a binary from target/debug.
    let beside = running.ancestors().skip(1).take(2).map(Path::to_path_buf);
    beside
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("no {name} beside {running:?}: run `cargo build -p {package}`, or `cargo xtask test`")
        })
}

/// The podcreds agent.
///
/// # Panics
///
/// When it has not been built.
pub fn podcreds() -> PathBuf {
    find("podcreds", "podcreds")
}

/// What runs inside simulated pods.
///
/// # Panics
///
/// When it has not been built.
pub fn pod_client() -> PathBuf {
    find("pod-client", "podcreds-tests")
}

/// The plugin for kubectl.
///
/// # Panics
///
/// When it has not been built.
pub fn kubectl_podcreds() -> PathBuf {
    find("kubectl-podcreds", "kubectl-podcreds")
}
