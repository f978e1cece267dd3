//! `cargo xtask cluster`: builds what a node is made of, and lets the program `cluster` do the work.

use std::{env, fs};

use anyhow::{Context as _, Result};

use crate::{
    Cluster, image,
    run::run,
    setup,
    tasks::{EVERYTHING_FOR_THE_HOST, TEST_THREADS, build_tests},
    workspace::{self, built, cargo},
};

/// What the agent's image is called in a node.
const IMAGE: &str = "localhost/podcreds:test";
/// The tests that run in a node. Elsewhere cargo skips them.
const TESTS: [&str; 4] = ["--test", "kubernetes", "--", "--ignored"];

pub(crate) fn run_command(command: &Cluster) -> Result<()> {
    match command {
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
    prepare()?;
    let mut cluster = built("cluster", false)?;
    if env::var_os("RUST_TEST_THREADS").is_none() {
        cluster.env("RUST_TEST_THREADS", TEST_THREADS);
    }
    // Inside of the node cargo finds everything built, and only starts the tests.
    cluster
        .arg("test")
        .arg(cargo().get_program())
        .arg("test")
        .args(EVERYTHING_FOR_THE_HOST)
        .args(TESTS)
        .args(args);
    run(&mut cluster)
}

fn prepare() -> Result<()> {
    setup::for_cluster()?;
    build_tests()?;
    let images = workspace::root().join("target/cluster/images");
    fs::create_dir_all(&images).with_context(|| format!("cannot make {}", images.display()))?;
    image::for_tests(IMAGE, &images.join("podcreds.tar"))
}
