//! Finds a pod on the node, without the API server.

use std::{fs, path::Path, path::PathBuf};

use podcreds_datapath::diagnosis::{self, CgroupTree, FoundPod};
use podcreds_types::PodUid;

use super::{PodName, TOKEN_FILE, environment::Environment, process::PodProcess, token};
use crate::report::Finding;

const NAME: &str = "known";
/// Where kubelet keeps the logs of each pod, in a folder that names it. In a container the host's
/// files are behind its first process.
const LOGS: [&str; 2] = ["/proc/1/root/var/log/pods", "/var/log/pods"];
/// Where every pod has a token, also without an association.
const API_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The pod, and the tree in which it is.
pub(super) struct Found {
    pub(super) tree: CgroupTree,
    pub(super) pod: FoundPod,
}

/// Finds the pod's cgroup.
///
/// # Errors
///
/// Why there is none, in a sentence.
pub(super) fn find(cgroup_root: Option<PathBuf>, name: &PodName) -> Result<Found, String> {
    let tree = diagnosis::cgroup_tree(cgroup_root).map_err(|error| error.to_string())?;
    let place = tree.root.display();
    let pods = diagnosis::find_pods(&tree.root).map_err(|error| format!("{place}: {error}"))?;
    let count = pods.len();
    let uid = match name {
        PodName::Uid(uid) => Some(*uid),
        PodName::Named { namespace, name } => {
            by_logs(namespace, name, &pods).or_else(|| by_tokens(namespace, name, &pods))
        }
    };
    let pod = pods.into_iter().find(|pod| Some(pod.uid) == uid);
    match pod {
        Some(pod) => Ok(Found { tree, pod }),
        None => Err(format!("none of the {count} pods below {place} is {name}")),
    }
}

/// Looks the name up in what kubelet has written.
fn by_logs(namespace: &str, name: &str, pods: &[FoundPod]) -> Option<PodUid> {
    let start = format!("{namespace}_{name}_");
    let folders = LOGS
        .iter()
        .flat_map(|folder| fs::read_dir(Path::new(folder)).into_iter().flatten());
    let uids = folders.flatten().filter_map(|folder| {
        let folder = folder.file_name();
        folder.to_str()?.strip_prefix(&start)?.parse().ok()
    });
    // One of an earlier pod of this name may still be there.
    uids.into_iter()
        .find(|uid: &PodUid| pods.iter().any(|pod| pod.uid == *uid))
}

/// Looks at what pods' tokens say of themselves. One that says that it is another pod's does not
/// count.
fn by_tokens(namespace: &str, name: &str, pods: &[FoundPod]) -> Option<PodUid> {
    let is_it = |pod: &&FoundPod| {
        PodProcess::all_of(&pod.path).iter().any(|process| {
            let told = Environment::of(process);
            let own = told.as_ref().and_then(Environment::token_file);
            [own.unwrap_or(TOKEN_FILE), API_TOKEN].iter().any(|file| {
                let Ok(token) = token::read(process, file) else {
                    return false;
                };
                token.claims().is_ok_and(|claims| {
                    claims.pod == Some(pod.uid)
                        && claims.namespace.as_deref() == Some(namespace)
                        && claims.pod_name.as_deref() == Some(name)
                })
            })
        })
    };
    pods.iter().find(is_it).map(|pod| pod.uid)
}

pub(super) fn judge(found: &Found) -> Finding {
    let pod = &found.pod;
    Finding::pass(
        NAME,
        format!("pod {} has the cgroup {}", pod.uid, pod.path.display()),
    )
}

pub(super) fn judge_missing(why: &str) -> Finding {
    Finding::fail(
        NAME,
        why,
        "see whether the pod runs on this node (kubectl get pod -o wide) and is no Fargate pod; a \
         name is found by kubelet's logs and by tokens, a UID always",
    )
}
