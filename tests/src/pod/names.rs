//! What the kubelet and the container runtime name a pod's cgroups.

use std::path::{Path, PathBuf};

use crate::token::new_uid;

/// The kubelet's cgroup driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// Slices and scopes, as systemd names them.
    #[default]
    Systemd,
    /// Plain folders.
    Cgroupfs,
}

/// A pod's quality of service class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Qos {
    /// Limits equal requests: the pod's cgroup sits one level higher than the others'.
    Guaranteed,
    /// Some requests.
    #[default]
    Burstable,
    /// No requests.
    BestEffort,
}

impl Qos {
    fn folder(self) -> Option<&'static str> {
        match self {
            Self::Guaranteed => None,
            Self::Burstable => Some("burstable"),
            Self::BestEffort => Some("besteffort"),
        }
    }
}

/// A pod's cgroup, relative to where the kubelet's cgroups begin.
///
/// `root` is the kubelet's `--cgroup-root` (kind sets it to `kubelet`), `uid` is as in the pod's
/// metadata.
pub(super) fn pod(driver: Driver, qos: Qos, root: Option<&str>, uid: &str) -> PathBuf {
    let levels = root.into_iter().chain(["kubepods"]).chain(qos.folder());
    match driver {
        Driver::Cgroupfs => levels.collect::<PathBuf>().join(format!("pod{uid}")),
        Driver::Systemd => {
            let pod = format!("pod{}", uid.replace('-', "_"));
            let mut slice = String::new();
            let mut path = PathBuf::new();
            // A slice's name repeats those of all slices above it.
            for level in levels.chain([pod.as_str()]) {
                let dash = if slice.is_empty() { "" } else { "-" };
                slice = format!("{slice}{dash}{level}");
                path.push(format!("{slice}.slice"));
            }
            path
        }
    }
}

/// The cgroup of a new container in `pod`, as containerd names it.
pub(super) fn container(driver: Driver, pod: &Path) -> PathBuf {
    let id = format!("{0}{0}", new_uid().replace('-', ""));
    match driver {
        Driver::Systemd => pod.join(format!("cri-containerd-{id}.scope")),
        Driver::Cgroupfs => pod.join(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

    #[test]
    fn systemd_repeats_the_parents() {
        assert_eq!(
            pod(Driver::Systemd, Qos::Burstable, None, UID)
                .to_str()
                .unwrap(),
            "kubepods.slice/kubepods-burstable.slice/\
             kubepods-burstable-pod0f0e0d0c_0b0a_0908_0706_050403020100.slice"
        );
        assert_eq!(
            pod(Driver::Systemd, Qos::Guaranteed, Some("kubelet"), UID)
                .to_str()
                .unwrap(),
            "kubelet.slice/kubelet-kubepods.slice/\
             kubelet-kubepods-pod0f0e0d0c_0b0a_0908_0706_050403020100.slice"
        );
    }

    #[test]
    fn cgroupfs_does_not() {
        assert_eq!(
            pod(Driver::Cgroupfs, Qos::BestEffort, None, UID)
                .to_str()
                .unwrap(),
            "kubepods/besteffort/pod0f0e0d0c-0b0a-0908-0706-050403020100"
        );
    }
}
