//! The node's control groups: one in each hierarchy of the machine, which the node takes for its
//! root.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use procfs::process::{MountInfo, Process};

use super::layout::Layout;
use crate::pod::cgroup::remove_tree;

/// In a hierarchy of version 2, processes must be in leaves: those of the node itself are in this
/// one.
const LEAF: &str = "system";
/// What a new cpuset needs before a process can be in it, in version 1.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// One hierarchy of the machine.
struct Hierarchy {
    mount_point: PathBuf,
    version: Version,
}

enum Version {
    /// With the mount options that name its controllers.
    One(String),
    Two,
}

/// Where the node's cgroups are, as the machine sees them.
pub(super) struct NodeCgroups {
    hierarchies: Vec<Hierarchy>,
    name: String,
}

impl NodeCgroups {
    /// Those of this checkout's node, whether it exists or not.
    pub(super) fn of(layout: &Layout) -> Result<Self> {
        let folder = layout.folder();
        let number = fs::metadata(&folder)
            .with_context(|| format!("cannot look at {}", folder.display()))?
            .ino();
        Ok(Self {
            hierarchies: hierarchies()?,
            name: format!("podcreds-cluster-{number}"),
        })
    }

    /// Makes them, and moves this process there.
    pub(super) fn make(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let folder = hierarchy.mount_point.join(&self.name);
            fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            if hierarchy.has_cpuset() {
                inherit_cpuset(&hierarchy.mount_point, &folder)?;
            }
            join(&folder)?;
        }
        Ok(())
    }

    /// Moves this process to where the node's own processes are.
    pub(super) fn join(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let folder = hierarchy.mount_point.join(&self.name);
            let leaf = folder.join(LEAF);
            join(if leaf.exists() { &leaf } else { &folder })?;
        }
        Ok(())
    }

    /// Removes them.
    pub(super) fn remove(&self) {
        for hierarchy in &self.hierarchies {
            let folder = hierarchy.mount_point.join(&self.name);
            if folder.exists() {
                remove_tree(&folder);
            }
        }
    }

    /// Those that exist.
    pub(super) fn present(&self) -> Vec<PathBuf> {
        let folders = self
            .hierarchies
            .iter()
            .map(|hierarchy| hierarchy.mount_point.join(&self.name));
        folders.filter(|folder| folder.exists()).collect()
    }
}

/// From inside of the node's cgroup and mount namespaces: mounts each hierarchy again, so that the
/// node sees its own part only, and takes it for the whole.
pub(super) fn remount() -> Result<()> {
    for hierarchy in hierarchies()? {
        let path = &hierarchy.mount_point;
        let described = || format!("cannot mount {} again", path.display());
        umount2(path, MntFlags::MNT_DETACH).with_context(described)?;
        let (kind, options) = match &hierarchy.version {
            Version::One(options) => ("cgroup", Some(options.as_str())),
            Version::Two => ("cgroup2", None),
        };
        mount(Some(kind), path, Some(kind), MsFlags::empty(), options).with_context(described)?;
        if matches!(hierarchy.version, Version::Two) {
            delegate(path)?;
        }
    }
    Ok(())
}

/// Hands the controllers of a hierarchy of version 2 down to the pods' cgroups.
fn delegate(root: &Path) -> Result<()> {
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
    let controllers = read("cgroup.controllers");
    if controllers.trim().is_empty() {
        // Version 1 has them all.
        return Ok(());
    }
    let leaf = root.join(LEAF);
    fs::create_dir(&leaf).with_context(|| format!("cannot make {}", leaf.display()))?;
    for process in read("cgroup.procs").lines() {
        // What has ended meanwhile need not be moved.
        let _ = fs::write(leaf.join("cgroup.procs"), process);
    }
    let wanted: Vec<_> = controllers
        .split_whitespace()
        .map(|controller| format!("+{controller}"))
        .collect();
    let file = root.join("cgroup.subtree_control");
    fs::write(&file, wanted.join(" ")).with_context(|| format!("cannot write {}", file.display()))
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = Process::myself().and_then(|process| process.mountinfo());
    let mounts = mounts.context("cannot read /proc/self/mountinfo")?;
    let found: Vec<_> = mounts.into_iter().filter_map(hierarchy).collect();
    if found.is_empty() {
        bail!("no cgroup hierarchy is mounted");
    }
    Ok(found)
}

fn hierarchy(mount: MountInfo) -> Option<Hierarchy> {
    let version = match mount.fs_type.as_str() {
        "cgroup2" => Version::Two,
        "cgroup" => Version::One(controllers(&mount)),
        _ => return None,
    };
    Some(Hierarchy {
        mount_point: mount.mount_point,
        version,
    })
}

/// The options of a mount of version 1, without those that every file system has.
fn controllers(mount: &MountInfo) -> String {
    let mut options: Vec<_> = mount
        .super_options
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "rw" | "ro"))
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        })
        .collect();
    options.sort_unstable();
    // A hierarchy that is only named has no controllers, and says so.
    if options.iter().any(|option| option.starts_with("name=")) {
        options.insert(0, "none".to_owned());
    }
    options.join(",")
}

impl Hierarchy {
    fn has_cpuset(&self) -> bool {
        matches!(&self.version, Version::One(options) if options.split(',').any(|option| option == "cpuset"))
    }
}

fn inherit_cpuset(from: &Path, to: &Path) -> Result<()> {
    for file in CPUSET {
        let value = fs::read_to_string(from.join(file))
            .with_context(|| format!("cannot read {file} of {}", from.display()))?;
        fs::write(to.join(file), value.trim())
            .with_context(|| format!("cannot write {file} of {}", to.display()))?;
    }
    Ok(())
}

fn join(folder: &Path) -> Result<()> {
    fs::write(folder.join("cgroup.procs"), "0")
        .with_context(|| format!("cannot join {}", folder.display()))
}
