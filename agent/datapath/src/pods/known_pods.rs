//! The pods on the node, for all threads: written by the datapath's, read for each connection.

use podcreds_types::{PodUid, SharedMap};

/// What the acceptor needs to know of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownPod {
    pub(crate) uid: PodUid,
    /// The cookie of its own network namespace; 0 as long as it has none.
    pub(crate) netns: u64,
}

/// The known pods, by cgroup id and by UID.
#[derive(Default)]
pub(crate) struct KnownPods {
    by_cgroup: SharedMap<u64, KnownPod>,
    /// How many cgroups each has: two for a moment, when one is made again.
    cgroups: SharedMap<PodUid, u32>,
}

impl KnownPods {
    /// A pod by its cgroup id.
    pub(crate) fn get(&self, cgroup: u64) -> Option<KnownPod> {
        self.by_cgroup.get(&cgroup).map(|pod| *pod)
    }

    /// Whether a pod with this UID is on the node.
    pub(crate) fn has(&self, uid: PodUid) -> bool {
        self.cgroups.contains_key(&uid)
    }

    /// Adds a pod, or learns something else about one.
    pub(crate) fn insert(&self, cgroup: u64, pod: KnownPod) {
        let before = self.by_cgroup.insert(cgroup, pod);
        if before.is_none_or(|before| before.uid != pod.uid) {
            *self.cgroups.entry(pod.uid).or_default() += 1;
            if let Some(before) = before {
                self.forget(before.uid);
            }
        }
    }

    /// Removes a pod's cgroup.
    pub(crate) fn remove(&self, cgroup: u64) {
        if let Some((_, pod)) = self.by_cgroup.remove(&cgroup) {
            self.forget(pod.uid);
        }
    }

    fn forget(&self, uid: PodUid) {
        self.cgroups.remove_if_mut(&uid, |_, cgroups| {
            *cgroups = cgroups.saturating_sub(1);
            *cgroups == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_until_its_last_cgroup_is_removed() {
        let uid: PodUid = "0f0e0d0c-0b0a-0908-0706-050403020100".parse().unwrap();
        let pods = KnownPods::default();
        assert!(!pods.has(uid));
        for (cgroup, netns) in [(1, 0), (1, 5), (2, 0)] {
            pods.insert(cgroup, KnownPod { uid, netns });
        }
        assert_eq!(pods.get(1), Some(KnownPod { uid, netns: 5 }));
        pods.remove(1);
        assert!(pods.has(uid));
        pods.remove(1);
        assert!(pods.has(uid));
        pods.remove(2);
        assert!(!pods.has(uid));
        assert_eq!(pods.get(2), None);
    }
}
