//! Prometheus and promtool, with which the tests try the alerts.
//!
//! Installed in the ordinary way it would start a server, so its package is unpacked into the
//! checkout instead, as [`super::nginx`] is.

use std::{fs, process::Command};

use anyhow::{Result, ensure};

use super::apt::{self, find_program};
use crate::{
    run::{output, step},
    workspace::tools,
};

const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

pub(super) fn install() -> Result<()> {
    if is_there() {
        return Ok(());
    }
    step("Unpacking Prometheus into target/tools", || {
        let folder = tools().join("prometheus");
        apt::unpack("prometheus", &folder)?;
        // Its pages, which no test looks at.
        fs::remove_dir_all(folder.join("usr/share"))?;
        ensure!(
            is_there(),
            "what the package prometheus holds does not run here"
        );
        Ok(())
    })
}

fn is_there() -> bool {
    PROGRAMS.iter().all(|name| {
        let unpacked = tools().join("prometheus/usr/bin").join(name);
        let found = find_program(name).unwrap_or(unpacked);
        output(Command::new(found).arg("--version")).is_some()
    })
}
