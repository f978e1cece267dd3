//! Finds a pod on the node, without the API server.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use podcreds_datapath::{
    DatapathError,
    diagnosis::{self, CgroupTree, FoundPod},
};
use podcreds_types::PodUid;

use super::{PodName, TOKEN_FILE, environment::Environment, process::PodProcess, token};
use crate::report::Finding;

pub(super) const NAME: &str = "known";
/// Where kubelet keeps the logs of each pod, in a folder that names it. In a container the host's
/// files are behind its first process.
const LOGS: [&str; 2] = ["/proc/1/root/var/log/pods", "/var/log/pods"];
/// Where every pod has a token, also without an association.
const API_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How long pods' tokens may take to be read, all together.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pod, and the tree in which it is.
pub(super) struct Found {
    pub(super) tree: CgroupTree,
    pub(super) pod: FoundPod,
    /// Whether it is only its token, which nobody has verified, that gives it this name.
    by_token: bool,
}

/// Why a pod is not found.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotFound {
    #[error(transparent)]
    Tree(#[from] DatapathError),
    #[error("{root}: {source}", root = root.display())]
    Unreadable { root: PathBuf, source: io::Error },
    #[error(
        "several pods have a token of that name, and nobody has verified whose is right: {}; name \
         the pod by its UID",
        join(.0)
    )]
    Several(Vec<PodUid>),
    #[error("none of the {count} pods below {root} is {name}{remark}", root = root.display())]
    Missing {
        count: usize,
        root: PathBuf,
        name: PodName,
        remark: String,
    },
}

fn join(pods: &[PodUid]) -> String {
    let uids: Vec<_> = pods.iter().map(PodUid::to_string).collect();
    uids.join(", ")
}

/// Finds the pod's cgroup.
pub(super) fn find(cgroup_root: Option<PathBuf>, name: &PodName) -> Result<Found, NotFound> {
    let tree = diagnosis::cgroup_tree(cgroup_root)?;
    let root = tree.root.clone();
    let pods = match diagnosis::find_pods(&root) {
        Ok(pods) => pods,
        Err(source) => return Err(NotFound::Unreadable { root, source }),
    };
    let count = pods.len();
    let known = match name {
        PodName::Uid(uid) => Some(*uid),
        PodName::Named { namespace, name } => by_logs(namespace, name, &pods),
    };
    let (uid, remark) = match (known, name) {
        (None, PodName::Named { namespace, name }) => {
            let search = Search::among(&pods, namespace, name);
            (search.only()?, search.remark())
        }
        _ => (known, String::new()),
    };
    let pod = pods.into_iter().find(|pod| Some(pod.uid) == uid);
    match pod {
        Some(pod) => Ok(Found {
            tree,
            pod,
            by_token: known.is_none(),
        }),
        None => Err(NotFound::Missing {
            count,
            root,
            name: name.clone(),
            remark,
        }),
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

/// What pods' tokens say of themselves.
#[derive(Default)]
struct Search {
    /// Those with a token of the wanted name.
    matching: Vec<PodUid>,
    /// How many could not be looked at in time.
    late: usize,
}

impl Search {
    /// Looks at all pods at once: one whose files never answer delays none but itself.
    fn among(pods: &[FoundPod], namespace: &str, name: &str) -> Self {
        let (answers, answered) = mpsc::channel();
        for pod in pods {
            let (pod, answers) = (pod.clone(), answers.clone());
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            let look = move || answers.send((pod.uid, is_named(&pod, &namespace, &name)));
            // One that cannot be started is late.
            let _detached = thread::Builder::new().spawn(look);
        }
        drop(answers);
        Self::collect(&answered, pods.len(), Instant::now() + PATIENCE)
    }

    fn collect(answered: &mpsc::Receiver<(PodUid, bool)>, count: usize, deadline: Instant) -> Self {
        let mut search = Self {
            late: count,
            ..Self::default()
        };
        while search.late > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((uid, is_it)) = answered.recv_timeout(left) else {
                break;
            };
            search.late -= 1;
            search.matching.extend(is_it.then_some(uid));
        }
        search
    }

    /// The one pod of that name, if there is one.
    ///
    /// # Errors
    ///
    /// When several pods call themselves so.
    fn only(&self) -> Result<Option<PodUid>, NotFound> {
        match &*self.matching {
            [] => Ok(None),
            [uid] => Ok(Some(*uid)),
            several => Err(NotFound::Several(several.to_vec())),
        }
    }

    fn remark(&self) -> String {
        match self.late {
            0 => String::new(),
            late => format!("; {late} of them could not be looked at in time"),
        }
    }
}

/// Whether one of the pod's tokens names it so. One that says that it is another pod's does not
/// count.
fn is_named(pod: &FoundPod, namespace: &str, name: &str) -> bool {
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
}

pub(super) fn judge(found: &Found) -> Finding {
    let pod = &found.pod;
    let by = match found.by_token {
        true => "; it has this name by what its token says, which nobody has verified",
        false => "",
    };
    Finding::pass(
        NAME,
        format!("pod {} has the cgroup {}{by}", pod.uid, pod.path.display()),
    )
}

pub(super) fn judge_missing(why: &NotFound) -> Finding {
    Finding::fail(
        NAME,
        why.to_string(),
        "see whether the pod runs on this node (kubectl get pod -o wide) and is no Fargate pod; a \
         name is found by kubelet's logs and by tokens, a UID always",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    const UID: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

    #[test]
    fn a_pod_that_never_answers_is_late_and_hides_no_other() {
        let (answers, answered) = mpsc::channel();
        let uid: PodUid = UID.parse().unwrap();
        answers.send((uid, true)).unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        let search = Search::collect(&answered, 2, deadline);
        assert_eq!(search.only().unwrap(), Some(uid));
        assert!(search.remark().contains("1 of them"));
    }

    #[test]
    fn two_pods_of_one_name_are_an_error_and_an_unverified_name_is_said() {
        let uid: PodUid = UID.parse().unwrap();
        let two = Search {
            matching: vec![uid, UID.replace('0', "1").parse().unwrap()],
            late: 0,
        };
        let several = two.only().unwrap_err().to_string();
        assert!(several.ends_with("; name the pod by its UID"), "{several}");
        assert!(several.contains(&format!(": {UID}, ")), "{several}");
        let found = |by_token| {
            judge(&Found {
                tree: CgroupTree {
                    mount: "/sys/fs/cgroup".into(),
                    root: "/sys/fs/cgroup".into(),
                    sees_root: true,
                },
                pod: FoundPod {
                    uid,
                    path: "/sys/fs/cgroup/pod".into(),
                },
                by_token,
            })
        };
        assert!(found(true).seen.contains("nobody has verified"));
        assert!(!found(false).seen.contains("verified"));
        assert_eq!(found(true).status, Status::Pass);
    }
}
