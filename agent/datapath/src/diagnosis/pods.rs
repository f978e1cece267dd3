//! The pods of the node, and their processes, by their cgroups.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use podcreds_common::MAX_POD_LEVEL;
use podcreds_types::PodUid;

use crate::{
    discovery::kubepods::{CgroupLevel, classify},
    pods::processes,
};

/// A pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPod {
    /// Which pod it is.
    pub uid: PodUid,
    /// The cgroup.
    pub path: PathBuf,
}

/// A process of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupProcess {
    /// Its ID, as this process sees it.
    pub pid: u32,
    /// The cgroup that it is in, at or below the pod's.
    pub cgroup: PathBuf,
}

/// The pods below `root`, one look at each level.
///
/// # Errors
///
/// When `root` itself cannot be read. What cannot be read below is left out.
pub fn find_pods(root: &Path) -> io::Result<Vec<FoundPod>> {
    let mut pods = Vec::new();
    walk(root, &mut |path, level| {
        if let CgroupLevel::Pod(uid) = level {
            let path = path.to_owned();
            pods.push(FoundPod { uid, path });
        }
    })?;
    Ok(pods)
}

/// The cgroups between `root` and the pods: `kubepods` and its classes.
///
/// # Errors
///
/// When `root` itself cannot be read.
pub fn kubelet_levels(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut levels = Vec::new();
    walk(root, &mut |path, level| {
        if level == CgroupLevel::Kubelet {
            levels.push(path.to_owned());
        }
    })?;
    Ok(levels)
}

/// The processes of a pod: the first ones of each container, the oldest container first.
pub fn processes_of(pod: &Path) -> Vec<CgroupProcess> {
    processes::all(pod)
        .into_iter()
        .map(|(pid, cgroup)| CgroupProcess { pid, cgroup })
        .collect()
}

fn walk(root: &Path, found: &mut dyn FnMut(&Path, CgroupLevel)) -> io::Result<()> {
    let level = match root.file_name() {
        Some(name) => classify(CgroupLevel::Other, &name.to_string_lossy()),
        None => CgroupLevel::Other,
    };
    found(root, level);
    walk_below(root, level, 0, found)
}

fn walk_below(
    path: &Path,
    level: CgroupLevel,
    depth: i32,
    found: &mut dyn FnMut(&Path, CgroupLevel),
) -> io::Result<()> {
    if depth >= MAX_POD_LEVEL {
        return Ok(());
    }
    for entry in fs::read_dir(path)?.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let (path, name) = (entry.path(), entry.file_name());
        let below = classify(level, &name.to_string_lossy());
        found(&path, below);
        if !matches!(below, CgroupLevel::Pod(_)) {
            // One that has gone meanwhile has nothing below.
            let _gone = walk_below(&path, below, depth + 1, found);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_and_the_levels_above_them_are_found() {
        let uid = "0f0e0d0c-0b0a-0908-0706-050403020100";
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join(format!("kubepods/burstable/pod{uid}"));
        fs::create_dir_all(pod.join("container/kubepods/podnone")).unwrap();
        fs::create_dir(root.path().join("system.slice")).unwrap();
        let expected = FoundPod {
            uid: uid.parse().unwrap(),
            path: pod.clone(),
        };
        assert_eq!(find_pods(root.path()).unwrap(), [expected]);
        let levels = kubelet_levels(root.path()).unwrap();
        let kubepods = root.path().join("kubepods");
        assert_eq!(levels, [kubepods.clone(), kubepods.join("burstable")]);
        assert!(find_pods(&pod.join("missing")).is_err());
    }
}
