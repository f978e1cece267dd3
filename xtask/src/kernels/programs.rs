//! The programs that run in the machine, built as `cargo xtask test` builds them.

use anyhow::{Context as _, Result};

use super::{checks, image::Image};
use crate::{executables, run::step};

/// The agent, what runs in simulated pods, and the machine's first process.
const PROGRAMS: [&str; 3] = ["podcreds", "pod-client", "guest"];

/// Builds everything, and puts what the checks need into the image.
pub(super) fn add_to(image: &Image) -> Result<()> {
    let built = executables::build()?;
    step("Putting a file system together", || {
        for name in PROGRAMS.into_iter().chain(checks::programs()) {
            let program = built.get(name);
            let program = program.with_context(|| format!("cargo has not built {name}"))?;
            image.add_program(name, program)?;
        }
        image.add_tools()
    })
}
