//! The file system that a machine boots into: a cpio archive that the kernel unpacks into memory.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::folder;
use crate::{
    run::{output, run},
    setup::find_program,
};

/// Where the programs under test are in the machine.
pub(super) const PROGRAMS: &str = "/podcreds";

/// Programs of the distribution which simulated pods and tests use.
const TOOLS: [&str; 8] = [
    "ip", "setpriv", "sh", "sleep", "ss", "true", "umount", "unshare",
];

/// Without any certificates the AWS SDK makes no client, not even one that does without TLS.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A file system that is being put together.
pub(super) struct Image {
    root: PathBuf,
}

impl Image {
    /// Begins an empty one.
    pub(super) fn new() -> Result<Self> {
        let root = folder().join("root");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        Ok(Self { root })
    }

    /// Puts a program of this workspace into it. The one called `guest` is started first.
    pub(super) fn add_program(&self, name: &str, program: &Path) -> Result<()> {
        fs::create_dir_all(self.at(PROGRAMS))?;
        // Tables of lines and names are most of a program, and nobody reads them there.
        run(Command::new("strip")
            .arg("--strip-all")
            .arg("-o")
            .arg(self.at(PROGRAMS).join(name))
            .arg(program))?;
        self.add_libraries(program)
    }

    /// Puts the tools into it, and says what is started first.
    pub(super) fn add_tools(&self) -> Result<()> {
        fs::create_dir_all(self.at("bin"))?;
        for tool in TOOLS {
            let program = find_program(tool).with_context(|| format!("there is no {tool}"))?;
            fs::copy(&program, self.at("bin").join(tool))?;
            self.add_libraries(&program)?;
        }
        self.copy(CERTIFICATES)?;
        symlink(format!("{PROGRAMS}/guest"), self.at("init"))?;
        Ok(())
    }

    /// The shared libraries of a program, at the same places as here.
    fn add_libraries(&self, program: &Path) -> Result<()> {
        // Fails for a program without any.
        let shown = output(Command::new("ldd").arg(program)).unwrap_or_default();
        for library in libraries(&shown) {
            self.copy(library)?;
        }
        Ok(())
    }

    /// Copies a file to the same place as here.
    fn copy(&self, file: &str) -> Result<()> {
        let copy = self.at(file);
        if !copy.exists() {
            fs::create_dir_all(copy.parent().unwrap_or(&self.root))?;
            fs::copy(file, copy).with_context(|| format!("copying {file}"))?;
        }
        Ok(())
    }

    /// Adds what differs from kernel to kernel: its drivers, and what to run on it.
    pub(super) fn add_plan(&self, drivers: &Path, plan: &Value) -> Result<()> {
        let target = self.at("modules");
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::create_dir_all(&target)?;
        for driver in fs::read_dir(drivers)? {
            let driver = driver?;
            fs::copy(driver.path(), target.join(driver.file_name()))?;
        }
        fs::write(self.at("checks.json"), plan.to_string())?;
        Ok(())
    }

    /// Writes the archive.
    pub(super) fn pack(&self) -> Result<PathBuf> {
        let target = folder().join("initramfs");
        let mut find = Command::new("find")
            .args([".", "-print0"])
            .current_dir(&self.root)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start find")?;
        let names = find.stdout.take().context("find prints nothing")?;
        let mut cpio = Command::new("cpio");
        cpio.args(["--create", "--format=newc", "--null", "--quiet"])
            .args(["--owner=+0:+0", "--reproducible"])
            .current_dir(&self.root)
            .stdin(names)
            .stdout(File::create(&target)?);
        run(&mut cpio)?;
        ensure!(find.wait()?.success(), "find failed");
        Ok(target)
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The paths in what `ldd` shows: `libc.so.6 => /lib/libc.so.6 (0x1234)`, `/lib64/ld.so (0x1234)`.
fn libraries(shown: &str) -> Vec<&str> {
    shown
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_ldd_shows() {
        let shown = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n\
                     \t/lib64/ld.so.2 (0x00007f)\n";
        assert_eq!(libraries(shown), ["/lib/libc.so.6", "/lib64/ld.so.2"]);
        assert!(libraries("\tnot a dynamic executable").is_empty());
    }
}
