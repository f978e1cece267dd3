//! nginx, which `load` measures beside the agent.
//!
//! Installed in the ordinary way it would start a web server on port 80, so its package is unpacked
//! into the checkout instead.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use super::apt::{self, find_program};
use crate::{
    run::{output, step},
    workspace::tools,
};

/// What holds the program, depending on the release of the distribution.
const PACKAGES: [&str; 3] = ["nginx", "nginx-core", "nginx-light"];

/// The nginx that `load` runs.
///
/// # Errors
///
/// When there is none.
pub(crate) fn nginx() -> Result<PathBuf> {
    [find_program("nginx"), Some(folder().join("usr/sbin/nginx"))]
        .into_iter()
        .flatten()
        .find(|program| output(Command::new(program).arg("-V")).is_some())
        .context("there is no nginx, and no package could be unpacked: install it by hand")
}

pub(super) fn install() -> Result<()> {
    if nginx().is_ok() {
        return Ok(());
    }
    step("Unpacking nginx into target/tools", || {
        for package in PACKAGES {
            if apt::unpack(package, &folder()).is_ok() && nginx().is_ok() {
                break;
            }
        }
        nginx().map(drop)
    })
}

fn folder() -> PathBuf {
    tools().join("nginx")
}
