//! Looks for what the datapath needs before it is needed, so that what is missing can be named.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aya::util::KernelVersion;
use rustix::{
    fs::{FsWord, statfs},
    thread::{CapabilitySet, capabilities},
};

use crate::{DatapathError, discovery::kubepods};

/// SO_NETNS_COOKIE came with 5.14; 5.15 is the oldest long-term kernel after it.
const OLDEST_KERNEL: (u8, u8) = (5, 15);

/// The inode number of the root of the hierarchy; a namespaced view of it begins at another.
const TRUE_ROOT: u64 = 1;

/// The type of the cgroup2 file system: CGROUP2_SUPER_MAGIC in linux/magic.h.
const CGROUP2_MAGIC: FsWord = 0x6367_7270;

/// The capabilities that the datapath uses.
const CAPABILITIES: [(CapabilitySet, &str); 4] = [
    (
        CapabilitySet::NET_ADMIN,
        "CAP_NET_ADMIN (to attach the programs)",
    ),
    (
        CapabilitySet::SYS_PTRACE,
        "CAP_SYS_PTRACE (to see which network namespace a pod's process is in)",
    ),
    (
        CapabilitySet::SYS_ADMIN,
        "CAP_SYS_ADMIN (to listen inside of pods' network namespaces)",
    ),
    (CapabilitySet::BPF, "CAP_BPF (to load the programs)"),
];

/// Where the cgroup hierarchy is, and where pods are looked for in it.
pub(crate) struct Hierarchy {
    /// Where the programs are attached: the root, as far as it can be seen.
    pub(crate) mount: PathBuf,
    /// Where pods are looked for.
    pub(crate) root: PathBuf,
}

/// Checks the kernel, the capabilities and the cgroup hierarchy.
pub(crate) fn check(cgroup_root: Option<PathBuf>) -> Result<Hierarchy, DatapathError> {
    check_kernel()?;
    let missing = missing_capabilities(held()?);
    if !missing.is_empty() {
        return Err(DatapathError::NotPermitted(format!(
            "podcreds lacks {}; run it as root, or give it these capabilities",
            missing.join(", ")
        )));
    }
    hierarchy(cgroup_root)
}

/// The capabilities that this process has.
pub(crate) fn held() -> Result<CapabilitySet, DatapathError> {
    let sets = capabilities(None).map_err(|error| {
        DatapathError::NotPermitted(format!("podcreds cannot see its capabilities: {error}"))
    })?;
    Ok(sets.effective)
}

/// Finds the cgroup hierarchy, and where pods are looked for in it.
pub(crate) fn hierarchy(cgroup_root: Option<PathBuf>) -> Result<Hierarchy, DatapathError> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")
        .map_err(DatapathError::io("reading /proc/self/mountinfo"))?;
    let mounts = kubepods::cgroup2_mounts(&mountinfo);
    let mount = best_mount(&mounts, cgroup_root.as_deref()).ok_or_else(no_cgroup2)?;
    let root = self::cgroup_root(cgroup_root, &mount)?;
    Ok(Hierarchy { mount, root })
}

fn no_cgroup2() -> DatapathError {
    DatapathError::Unsupported(
        "no cgroup2 hierarchy is mounted; mount it (in a container: as a hostPath volume)"
            .to_owned(),
    )
}

/// The mount that shows the most of the hierarchy.
///
/// A container with a cgroup namespace of its own has a mount that shows only its own part, and the
/// host's beside it. Programs that are attached to a part run for that part only.
fn best_mount(mounts: &[PathBuf], cgroup_root: Option<&Path>) -> Option<PathBuf> {
    if let Some(mount) = mounts.iter().find(|mount| is_true_root(mount)) {
        return Some(mount.clone());
    }
    let holds_root = |mount: &&PathBuf| cgroup_root.is_some_and(|root| root.starts_with(mount));
    let mount = mounts.iter().find(holds_root).or(mounts.first())?;
    tracing::warn!(
        path = %mount.display(),
        "the root of the cgroup hierarchy cannot be seen from here, so only pods below this part of it \
         are served; in a container, mount the host's /sys/fs/cgroup"
    );
    Some(mount.clone())
}

/// Whether a mount shows the hierarchy from its root on.
pub(crate) fn is_true_root(mount: &Path) -> bool {
    fs::metadata(mount).is_ok_and(|metadata| metadata.ino() == TRUE_ROOT)
}

/// The directory to look for pods in: the whole hierarchy, or a part of it.
fn cgroup_root(asked: Option<PathBuf>, mount: &Path) -> Result<PathBuf, DatapathError> {
    let Some(path) = asked else {
        return Ok(mount.to_owned());
    };
    let wrong = |path: &Path, reason: &str| DatapathError::CgroupRoot {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    match statfs(&path) {
        Err(error) => Err(wrong(&path, &error.to_string())),
        Ok(filesystem) if filesystem.f_type == CGROUP2_MAGIC => Ok(path),
        Ok(_) => Err(wrong(
            &path,
            "not in a cgroup2 hierarchy; name a directory at or below its mount point",
        )),
    }
}

pub(crate) fn check_kernel() -> Result<(), DatapathError> {
    let (major, minor) = OLDEST_KERNEL;
    // A kernel that does not say its version is left to the loader to judge.
    if KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(major, minor, 0)) {
        return Err(too_old(major, minor));
    }
    Ok(())
}

fn too_old(major: u8, minor: u8) -> DatapathError {
    DatapathError::Unsupported(format!(
        "this kernel is older than {major}.{minor}, the first on which podcreds can tell network \
         namespaces apart; update it"
    ))
}

pub(crate) fn missing_capabilities(held: CapabilitySet) -> Vec<&'static str> {
    let missing = CAPABILITIES
        .iter()
        .filter(|(capability, _)| !held.contains(*capability));
    missing.map(|(_, words)| *words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_capability_is_named() {
        let held = CapabilitySet::all();
        assert_eq!(
            missing_capabilities(CapabilitySet::empty()).len(),
            CAPABILITIES.len()
        );
        assert!(missing_capabilities(held).is_empty());
        let missing = missing_capabilities(held - CapabilitySet::BPF);
        assert_eq!(missing, ["CAP_BPF (to load the programs)"]);
    }
}
