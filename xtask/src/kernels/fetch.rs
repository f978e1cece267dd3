//! Brings a kernel and its drivers into `target/tools/kernels`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{apt::Apt, folder, known::Kernel};
use crate::run::{run, step};

/// The drivers that are no part of the kernels themselves, and that the checks use.
const DRIVERS: [&str; 2] = ["dummy", "veth"];

/// A kernel, ready to be booted.
pub(super) struct Unpacked {
    /// What the boot loader loads.
    pub(super) image: PathBuf,
    /// A folder of drivers.
    pub(super) drivers: PathBuf,
}

/// The kernel, fetched if it is not there yet.
///
/// # Errors
///
/// When it cannot be had.
pub(super) fn fetch(kernel: &Kernel) -> Result<Unpacked> {
    let target = folder().join(kernel.version);
    if !target.is_dir() {
        step(
            &format!("Fetching kernel {} into target/tools", kernel.version),
            || unpack(kernel, &target),
        )?;
    }
    Ok(Unpacked {
        image: target.join("vmlinuz"),
        drivers: target.join("drivers"),
    })
}

fn unpack(kernel: &Kernel, target: &Path) -> Result<()> {
    // What an earlier run may have left, if it was interrupted.
    let work = target.with_extension("part");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let root = work.join("root");
    let apt = Apt::update(&kernel.archive, &work)?;
    apt.unpack(&packages(&apt, kernel)?, &root)?;

    let done = work.join("done");
    fs::create_dir_all(done.join("drivers"))?;
    let files = files_below(&root)?;
    let image = files.iter().find(|file| name(file).starts_with("vmlinuz-"));
    let image = image.context("the package has no vmlinuz")?;
    fs::copy(image, done.join("vmlinuz"))?;
    for driver in DRIVERS {
        let prefix = format!("{driver}.ko");
        let file = files.iter().find(|file| name(file).starts_with(&prefix));
        let file = file.with_context(|| format!("the package has no driver {driver}"))?;
        copy_driver(file, &done.join("drivers"))?;
    }
    // Only what is complete gets the name that is looked for.
    fs::rename(done, target)?;
    fs::remove_dir_all(work)?;
    Ok(())
}

/// The packages that hold the kernel and its drivers: a name with the exact version, which the name
/// without one depends on.
fn packages(apt: &Apt, kernel: &Kernel) -> Result<Vec<String>> {
    let find = |package: &str, prefix: &str| -> Result<Option<String>> {
        let prefix = format!("{prefix}-{}.", kernel.version);
        let mut found = apt.dependencies(package)?.into_iter();
        Ok(found.find(|dependency| dependency.starts_with(&prefix)))
    };
    let Some(image) = find(kernel.package, "linux-image")? else {
        bail!(
            "{} is no kernel {} any more",
            kernel.package,
            kernel.version
        );
    };
    // Debian has the drivers in the same package, Ubuntu in one of their own.
    let drivers = find(&image, "linux-modules")?;
    Ok([image].into_iter().chain(drivers).collect())
}

fn copy_driver(file: &Path, folder: &Path) -> Result<()> {
    let copy = folder.join(name(file));
    fs::copy(file, &copy)?;
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(()),
        Some("xz") => run(Command::new("xz").arg("--decompress").arg(&copy)),
        _ => bail!("{} is packed in a way that is not known", file.display()),
    }
}

fn name(file: &Path) -> &str {
    file.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("")
}

/// All files below a folder; links are not followed.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    ensure!(!files.is_empty(), "{} is empty", folder.display());
    Ok(files)
}
