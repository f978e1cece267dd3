//! Packages of Debian and Ubuntu.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::run::{output, run, step};

/// A package, and how to tell that what it brings is there.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    package: &'a str,
    /// A program that it brings. Without one, dpkg is asked for the package itself.
    command: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Wanted for this program, wherever it comes from.
    pub(super) const fn command(command: &'a str, package: &'a str) -> Self {
        Self {
            package,
            command: Some(command),
        }
    }

    /// Wanted for its files.
    pub(super) const fn package(package: &'a str) -> Self {
        Self {
            package,
            command: None,
        }
    }

    fn is_missing(&self) -> bool {
        match self.command {
            Some(command) => find_program(command).is_none(),
            None => !is_installed(self.package),
        }
    }
}

/// Installs those packages that are missing, and says so first.
///
/// # Errors
///
/// When something is missing and this is not Debian or Ubuntu, or apt-get fails.
pub(super) fn install(purpose: &str, wanted: &[Wanted<'_>]) -> Result<()> {
    let missing: Vec<_> = wanted
        .iter()
        .filter(|wanted| wanted.is_missing())
        .map(|wanted| wanted.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if find_program("apt-get").is_none() {
        bail!(
            "{purpose} needs what Debian calls {list}, and there is no apt-get here: install it \
             with your own package manager (docs/building.md has the names elsewhere)"
        );
    }
    step(&format!("Installing for {purpose}: {list}"), || {
        run(as_root("apt-get")?.args(["-qq", "update"]))?;
        run(as_root("apt-get")?
            .args(["-qq", "-y", "--no-install-recommends"])
            // The system may be at its own updates.
            .args(["-o", "DPkg::Lock::Timeout=300", "install"])
            .args(&missing)
            // Hundreds of lines about unpacking. What goes wrong is on stderr.
            .stdout(Stdio::null()))
    })
}

/// Unpacks a package into a folder, as it comes: none of its scripts run, and no service starts.
///
/// # Errors
///
/// When apt-get does not have it.
pub(super) fn unpack(package: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    run(Command::new("apt-get")
        .current_dir(folder)
        // Only apt's own user would need a folder that it can write to.
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", package])
        .stdout(Stdio::null()))?;
    let prefix = format!("{package}_");
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            run(Command::new("dpkg").arg("-x").arg(entry.path()).arg(folder))?;
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The program's full path, also where only root's path has it.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

fn is_installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]))
        .is_some_and(|status| status.ends_with("install ok installed"))
}

/// A command that acts as root: through sudo where this is someone else.
fn as_root(program: &str) -> Result<Command> {
    let mut command = if fs::metadata("/proc/self")?.uid() == 0 {
        Command::new(program)
    } else if find_program("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.args(["DEBIAN_FRONTEND=noninteractive", program]);
        sudo
    } else {
        bail!("installing packages takes root: run this as root, or install sudo");
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}
