//! Packages of a release of Debian or Ubuntu that need not be the one which runs here.
//!
//! apt finds what is newest and checks the signatures. It is given folders, sources and keys of its
//! own, so that nothing of this machine's package management is touched, and no root is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::known::{Archive, Keyring, TRIXIE};
use crate::run::{output, run};

/// Debian's own key ring has the keys of its releases before and after it as well.
const DEBIAN_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const UBUNTU_KEYS: &str = "usr/share/keyrings/ubuntu-archive-keyring.gpg";

/// An archive as apt sees it.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Fetches the lists of an archive into a `folder`.
    pub(super) fn update(archive: &Archive, folder: &Path) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part)).context("making folders for apt")?;
        }
        let keys = match archive.keyring {
            Keyring::Debian => PathBuf::from(DEBIAN_KEYS),
            Keyring::Ubuntu => ubuntu_keys(folder)?,
        };
        let sources = archive.suites.iter().map(|(address, suite)| {
            let keys = keys.display();
            format!("deb [arch=amd64 signed-by={keys}] {address} {suite} main\n")
        });
        fs::write(folder.join("sources.list"), sources.collect::<String>())?;
        // As if nothing were installed.
        fs::write(folder.join("status"), "")?;
        let apt = Self {
            folder: folder.to_owned(),
        };
        run(apt
            .command("apt-get")
            .args(["-qq", "update"])
            // Without lists there is nothing to go on with; by default that is a warning.
            .args(["-o", "APT::Update::Error-Mode=any"]))?;
        Ok(apt)
    }

    /// A package's direct dependencies.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut apt = self.command("apt-cache");
        apt.args(["depends", "--important", package])
            .stderr(Stdio::inherit());
        let shown = output(&mut apt).with_context(|| format!("there is no package {package}"))?;
        Ok(dependencies(&shown))
    }

    /// Fetches packages, and unpacks them into the folder `target`.
    pub(super) fn unpack(&self, packages: &[String], target: &Path) -> Result<()> {
        let downloads = self.folder.join("downloads");
        fs::create_dir_all(&downloads)?;
        run(self
            .command("apt-get")
            .current_dir(&downloads)
            .args(["-qq", "download"])
            .args(packages))?;
        for package in fs::read_dir(&downloads)? {
            let mut dpkg = Command::new("dpkg");
            run(dpkg.arg("-x").arg(package?.path()).arg(target))?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |name: &str| self.folder.join(name).display().to_string();
        for setting in [
            format!("Dir::State::lists={}", path("lists")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
            format!("Dir::Etc::sourcelist={}", path("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures::=amd64".to_owned(),
            "APT::Default-Release=".to_owned(),
            // Only apt's own user would need folders that it can write to.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(setting);
        }
        command
    }
}

/// Ubuntu's keys, as Debian packages and signs them.
fn ubuntu_keys(folder: &Path) -> Result<PathBuf> {
    let installed = Path::new("/").join(UBUNTU_KEYS);
    if installed.is_file() {
        return Ok(installed);
    }
    let target = folder.join("keyring");
    let debian = Apt::update(&TRIXIE, &folder.join("trixie"))?;
    debian.unpack(&["ubuntu-keyring".to_owned()], &target)?;
    let unpacked = target.join(UBUNTU_KEYS);
    ensure!(unpacked.is_file(), "ubuntu-keyring has no {UBUNTU_KEYS}");
    Ok(unpacked)
}

/// Reads what `apt-cache depends` shows. Virtual packages are in angle brackets.
fn dependencies(shown: &str) -> Vec<String> {
    shown
        .lines()
        .filter_map(|line| {
            line.trim_start_matches([' ', '|'])
                .strip_prefix("Depends: ")
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_and_nothing_else() {
        let shown = "linux-image-5.15.0-1-aws\n  Depends: kmod\n |Depends: linux-base\n  \
                     Depends: linux-modules-5.15.0-1-aws\n  Conflicts: <other>\n    other\n";
        assert_eq!(
            dependencies(shown),
            ["kmod", "linux-base", "linux-modules-5.15.0-1-aws"]
        );
    }
}
