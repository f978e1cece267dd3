//! Kubelet's cgroups: which directories may hold pods, and which are pods.

use std::path::{Path, PathBuf};

use podcreds_types::PodUid;

/// What a directory name means to a search for pods that starts above kubelet's cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CgroupLevel {
    /// A pod's own cgroup. Nothing below it is looked at: a pod may name its cgroups as it likes.
    Pod(PodUid),
    /// A level of kubelet's own: `kubepods` or one of its QoS classes.
    Kubelet,
    /// Something else, such as the levels above kubelet's in a cluster that runs in a container.
    Other,
}

/// Reads the name of a directory whose parent is `parent`.
///
/// The two cgroup drivers name the same tree differently:
///
/// ```text
/// systemd:  kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice
/// cgroupfs: kubepods/burstable/pod<uid>
/// ```
///
/// Guaranteed pods are directly below `kubepods`. A kubelet with a `cgroupRoot` (as in kind) puts
/// that name in front of systemd's (`kubelet-kubepods-...`), and a directory in front of
/// cgroupfs's.
pub(crate) fn classify(parent: CgroupLevel, name: &str) -> CgroupLevel {
    if let Some(slice) = name.strip_suffix(".slice") {
        return classify_slice(slice);
    }
    match parent {
        CgroupLevel::Kubelet if name == "burstable" || name == "besteffort" => CgroupLevel::Kubelet,
        CgroupLevel::Kubelet => match name.strip_prefix("pod").map(str::parse) {
            Some(Ok(uid)) => CgroupLevel::Pod(uid),
            _ => CgroupLevel::Other,
        },
        _ if name == "kubepods" => CgroupLevel::Kubelet,
        _ => CgroupLevel::Other,
    }
}

/// In a slice's name each dash stands for one more level, so the last part alone says what it is.
fn classify_slice(slice: &str) -> CgroupLevel {
    let mut parts = slice.rsplitn(2, '-');
    let last = parts.next().unwrap_or_default();
    let above = parts.next().unwrap_or_default();
    let in_kubepods = above.split('-').any(|part| part == "kubepods");
    match last {
        "kubepods" => CgroupLevel::Kubelet,
        "burstable" | "besteffort" if in_kubepods => CgroupLevel::Kubelet,
        _ => match last.strip_prefix("pod").map(str::parse) {
            Some(Ok(uid)) if in_kubepods => CgroupLevel::Pod(uid),
            _ => CgroupLevel::Other,
        },
    }
}

/// Where the cgroup2 hierarchy is mounted, out of the text of `/proc/self/mountinfo`.
///
/// Never a fixed path: beside cgroup v1 it is not `/sys/fs/cgroup`.
pub(crate) fn cgroup2_mounts(mountinfo: &str) -> Vec<PathBuf> {
    let mount_point = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        if filesystem.split(' ').next()? != "cgroup2" {
            return None;
        }
        let path = mount.split(' ').nth(4)?;
        Some(Path::new(&path.replace("\\040", " ")).to_owned())
    };
    mountinfo.lines().filter_map(mount_point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DASHES: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";
    const UNDERSCORES: &str = "0f0e0d0c_0b0a_0908_0706_050403020100";
    const STATIC: &str = "0f0e0d0c0b0a09080706050403020100";

    /// Walks a path from the root as the scan does, and says where it ends.
    fn walk(path: &str) -> CgroupLevel {
        let mut level = CgroupLevel::Other;
        for name in path.split('/') {
            level = match level {
                CgroupLevel::Pod(_) => return level,
                above => classify(above, name),
            };
        }
        level
    }

    fn pod() -> CgroupLevel {
        CgroupLevel::Pod(DASHES.parse().unwrap())
    }

    #[test]
    fn pods_of_both_drivers_and_all_classes() {
        for path in [
            format!(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORES}.slice"
            ),
            format!(
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORES}.slice"
            ),
            format!("kubepods.slice/kubepods-pod{UNDERSCORES}.slice"),
            format!("kubepods.slice/kubepods-pod{STATIC}.slice"),
            format!("kubepods/burstable/pod{DASHES}"),
            format!("kubepods/besteffort/pod{DASHES}"),
            format!("kubepods/pod{DASHES}"),
            format!("kubepods/pod{STATIC}"),
        ] {
            assert_eq!(walk(&path), pod(), "{path}");
        }
    }

    #[test]
    fn pods_of_clusters_that_run_in_a_container() {
        for path in [
            format!("docker/{STATIC}{STATIC}/kubelet/kubepods/burstable/pod{DASHES}"),
            format!(
                "system.slice/docker-{STATIC}{STATIC}.scope/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UNDERSCORES}.slice"
            ),
        ] {
            assert_eq!(walk(&path), pod(), "{path}");
        }
    }

    #[test]
    fn a_pod_cannot_choose_who_it_is_by_naming_cgroups() {
        let other = "ffffffff-0b0a-0908-0706-050403020100";
        let path = format!("kubepods/pod{DASHES}/kubepods/burstable/pod{other}");
        assert_eq!(walk(&path), pod());
    }

    #[test]
    fn what_is_not_kubelets_is_no_pod() {
        for path in [
            format!("pod{DASHES}"),
            format!("system.slice/pod{DASHES}"),
            format!("user.slice/user-pod{UNDERSCORES}.slice"),
            "kubepods/burstable/podnot-a-uid".to_owned(),
            format!("kubepods/burstable/{STATIC}"),
        ] {
            assert_eq!(walk(&path), CgroupLevel::Other, "{path}");
        }
    }

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
                      31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      40 30 0:36 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            cgroup2_mounts(hybrid),
            [PathBuf::from("/sys/fs/cgroup/unified")]
        );
        assert!(cgroup2_mounts("31 30 0:27 / /x rw - cgroup cgroup rw").is_empty());
    }
}
