//! `cargo xtask cluster`: builds what a node is made of, and lets the program `cluster` do the
//! work.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{
    Cluster, executables, image,
    run::run,
    setup,
    tasks::TEST_THREADS,
    workspace::{self, built},
};

/// What the agent's image is called in a node.
const IMAGE: &str = "localhost/podcreds:test";
/// The test program that runs in a node. Elsewhere its tests are skipped.
const TESTS: &str = "kubernetes";

pub(crate) fn run_command(command: &Cluster) -> Result<()> {
    match command {
        Cluster::Prepare => prepare().map(|_| ()),
        Cluster::Up => {
            prepare()?;
            run(built("cluster", false)?.arg("up"))
        }
        Cluster::Test { args } => test(args),
        Cluster::Shell => {
            let shell = env::var("SHELL").unwrap_or_else(|_| "sh".to_owned());
            run(built("cluster", false)?.args(["run", &shell]))
        }
        Cluster::Down => run(built("cluster", false)?.arg("down")),
    }
}

fn test(args: &[String]) -> Result<()> {
    let tests = prepare()?;
    let mut cluster = built("cluster", false)?;
    if env::var_os("RUST_TEST_THREADS").is_none() {
        cluster.env("RUST_TEST_THREADS", TEST_THREADS);
    }
    // The program itself, since cargo would look in the node for what has changed, and build.
    cluster.arg("test").arg(tests).arg("--ignored").args(args);
    run(&mut cluster)
}

/// Makes all that a node needs, and returns the program with its tests.
fn prepare() -> Result<PathBuf> {
    setup::for_cluster()?;
    let tests = executables::build()?.remove(TESTS);
    let images = workspace::root().join("target/cluster/images");
    fs::create_dir_all(&images).with_context(|| format!("cannot make {}", images.display()))?;
    image::for_tests(IMAGE, &images.join("podcreds.tar"))?;
    tests.with_context(|| format!("cargo has not built the tests called {TESTS}"))
}
