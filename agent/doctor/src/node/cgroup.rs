//! The cgroup hierarchy: whether its root is to be seen, and pods in it.

use std::{fmt::Display, path::PathBuf};

use podcreds_datapath::diagnosis::{self, CgroupTree};

use crate::report::Finding;

const NAME: &str = "cgroup";

pub(super) fn check(cgroup_root: Option<PathBuf>) -> Finding {
    let tree = match diagnosis::cgroup_tree(cgroup_root) {
        Ok(tree) => tree,
        Err(error) => {
            return Finding::fail(
                NAME,
                error.to_string(),
                "mount cgroup2 at /sys/fs/cgroup (in a container: the host's, as a hostPath volume)",
            );
        }
    };
    let pods = diagnosis::find_pods(&tree.root);
    judge(&tree, pods.map(|pods| pods.len()))
}

fn judge(tree: &CgroupTree, pods: Result<usize, impl Display>) -> Finding {
    let place = tree.root.display();
    let seen = match &pods {
        Ok(1) => format!("cgroup2 at {}, 1 pod below {place}", tree.mount.display()),
        Ok(pods) => format!(
            "cgroup2 at {}, {pods} pods below {place}",
            tree.mount.display()
        ),
        Err(why) => format!("cannot read {place}: {why}"),
    };
    if !tree.sees_root {
        // Programs that are attached there run for that part alone, and end with it.
        return Finding::warn(
            NAME,
            format!("{seen}; this is not the root of the hierarchy"),
            "mount the host's /sys/fs/cgroup into the container: programs at a cgroup that is not \
             the root see only what is below it, and go when it goes",
        );
    }
    match pods {
        Ok(0) => Finding::warn(
            NAME,
            seen,
            "if this node has pods, kubelet keeps them elsewhere: see --cgroup-root",
        ),
        Ok(_) => Finding::pass(NAME, seen),
        Err(_) => Finding::fail(NAME, seen, "run it as root"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn a_part_of_the_hierarchy_and_a_tree_without_pods_are_warnings() {
        let mut tree = CgroupTree {
            mount: "/sys/fs/cgroup".into(),
            root: "/sys/fs/cgroup".into(),
            sees_root: true,
        };
        let judge = |tree: &CgroupTree, pods: Result<usize, &str>| judge(tree, pods);
        assert_eq!(judge(&tree, Ok(3)).status, Status::Pass);
        assert_eq!(judge(&tree, Ok(0)).status, Status::Warn);
        assert_eq!(judge(&tree, Err("no")).status, Status::Fail);
        tree.sees_root = false;
        let part = judge(&tree, Ok(3));
        assert_eq!(part.status, Status::Warn);
        assert!(part.seen.contains("not the root"), "{}", part.seen);
    }
}
