//! Boots the kernels that nodes run in virtual machines, and runs tests on them.
//!
//! Not a container of the distribution: the kernel alone, with the programs of this workspace and
//! the libraries that they need here. The tests are the same that `cargo xtask test` runs.

mod apt;
mod checks;
mod fetch;
mod image;
mod known;
mod machine;
mod programs;
mod report;

use std::{
    env::consts::ARCH,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{run::step, setup, workspace::tools};
use fetch::Unpacked;
use image::Image;
pub(crate) use known::versions;
use known::{KERNELS, Kernel};
use machine::{Accelerator, Machine};
use report::Report;

/// How long one kernel may take, on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(40 * 60);

/// Runs the checks on the kernels of these versions, or on all; or only fetches them.
///
/// # Errors
///
/// When a kernel cannot be had, or a check fails on one.
pub(crate) fn run(versions: &[String], only_fetch: bool) -> Result<()> {
    ensure!(
        ARCH == "x86_64",
        "the kernels are for x86-64, and what runs on them is built here: this is {ARCH}"
    );
    setup::for_kernels()?;
    let kernels = fetch(versions)?;
    if only_fetch {
        return Ok(());
    }
    let Some((_, any)) = kernels.first() else {
        bail!("there is no such kernel");
    };
    let image = Image::new()?;
    programs::add_to(&image)?;
    let accelerator = Accelerator::find(&any.image, &folder().join("trial.log"))?;
    let mut report = Report::default();
    for (kernel, unpacked) in &kernels {
        image.add_plan(&unpacked.drivers, &checks::plan(kernel))?;
        let title = format!("Kernel {} ({})", kernel.version, accelerator.name());
        // What fails on one kernel is in the report, and no reason to leave the others out.
        if let Err(error) = step(&title, || {
            boot(kernel, unpacked, &image, accelerator, &mut report)
        }) {
            report.failure(kernel.version, &error);
        }
    }
    report.finish()
}

fn fetch(versions: &[String]) -> Result<Vec<(&'static Kernel, Unpacked)>> {
    let is_wanted =
        |kernel: &&Kernel| versions.is_empty() || versions.iter().any(|v| v == kernel.version);
    KERNELS
        .iter()
        .filter(is_wanted)
        .map(|kernel| Ok((kernel, fetch::fetch(kernel)?)))
        .collect()
}

/// Boots one kernel, and reports what the machine tells until it ends.
fn boot(
    kernel: &Kernel,
    unpacked: &Unpacked,
    image: &Image,
    accelerator: Accelerator,
    report: &mut Report,
) -> Result<()> {
    let files = image.pack()?;
    let console = folder().join(format!("{}.log", kernel.version));
    let end = Instant::now() + DEADLINE;
    let machine = Machine::start(accelerator, &unpacked.image, Some(&files), &console)?;
    let mut run = report.begin(kernel.version);
    while let Some(line) = machine
        .line(end)
        .with_context(|| run.unfinished(&console))?
    {
        run.take(&line)?;
    }
    run.end().with_context(|| run.unfinished(&console))
}

/// Where kernels are kept.
fn folder() -> PathBuf {
    tools().join("kernels")
}
