//! A checkout that was copied or moved, with all that it has built, works on itself.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use podcreds_tests::{binary, program};
use tempfile::TempDir;

/// What makes a folder a checkout, and nothing else.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for member in ["agent", "tests", "xtask"] {
            fs::create_dir(folder.path().join(member)).unwrap();
            fs::write(folder.path().join(member).join("Cargo.toml"), "").unwrap();
        }
        fs::create_dir_all(folder.path().join("target/debug")).unwrap();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    /// A program of this workspace, as if it had been built there.
    fn program(&self, name: &str, package: &str) -> PathBuf {
        let copy = self.root().join("target/debug").join(name);
        program::copy(&binary::find(name, package), &copy);
        copy
    }
}

/// A program, without what the cargo that runs this test says about this checkout.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("CARGO_MANIFEST_DIR").current_dir("/");
    command
}

#[test]
fn a_program_of_a_copy_works_on_the_copy() {
    let copy = Copy::make();
    let cluster = copy.program("cluster", "podcreds-tests");
    let output = command(&cluster).args(["run", "true"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there is no cluster"), "{said}");
    assert!(copy.root().join("target/cluster/config").is_dir());
}

#[test]
fn xtask_of_a_copy_works_on_the_copy() {
    let copy = Copy::make();
    let xtask = copy.program("xtask", "xtask");
    let cluster = copy.root().join("target/debug/cluster");
    program::write(&cluster, "#!/bin/sh\npwd\n");
    let output = command(&xtask).args(["cluster", "down"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed.trim(), copy.root().display().to_string());
}

/// Several checkouts may build into one folder outside of all of them.
#[test]
fn what_cargo_says_comes_first() {
    let (copy, other) = (Copy::make(), Copy::make());
    let cluster = copy.program("cluster", "podcreds-tests");
    let mut command = command(&cluster);
    command.env("CARGO_MANIFEST_DIR", other.root().join("xtask"));
    let output = command.args(["run", "true"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there is no cluster"), "{said}");
    assert!(other.root().join("target/cluster/config").is_dir());
    assert!(!copy.root().join("target/cluster").exists());
}
