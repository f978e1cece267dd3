//! Pods that fetch credentials on behalf of others.
//!
//! The AWS provider of the Secrets Store CSI driver, for one, gets the tokens of the pods that it mounts
//! secrets for, and uses them from its own pod. The kernel tells which pod that is, but not its service
//! account. The token that kubelet has mounted into the pod does, once its signature is verified: kubelet's
//! directory alone would not do, since a pod may have files of its own choice mounted there as well.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::{DashMap, Entry};
use tokio::runtime::Handle;

use crate::{
    credentials::ClusterKeys,
    types::{PodUid, ServiceAccount, Token},
};

/// How long after a look at a pod's volumes that settled nothing the next one may be.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// A token is some 1,200 bytes. The pod may have anything else in its volumes.
const MAX_BYTES: u64 = 16 * 1024;
/// The most files of a pod's volumes that are looked at.
const MAX_FILES: usize = 64;

/// The service accounts of `--delegate`, and which pods turned out to run as one of them.
#[derive(Clone)]
pub(super) struct Delegates(Arc<Shared>);

struct Shared {
    accounts: Vec<ServiceAccount>,
    kubelet_root: PathBuf,
    keys: Option<ClusterKeys>,
    /// Where files are read and keys are fetched.
    runtime: Handle,
    pods: DashMap<PodUid, Standing>,
}

/// What is known of a pod.
#[derive(Clone, Copy)]
enum Standing {
    /// Nothing yet. It was last looked at then.
    Open(Instant),
    /// Whether it is a delegate: a pod's service account never changes, so that stays.
    Settled(bool),
}

impl Delegates {
    pub(super) fn new(
        accounts: Vec<ServiceAccount>,
        kubelet_root: PathBuf,
        keys: Option<ClusterKeys>,
        runtime: Handle,
    ) -> Self {
        Self(Arc::new(Shared {
            accounts,
            kubelet_root,
            keys,
            runtime,
            pods: DashMap::new(),
        }))
    }

    /// Whether this pod may use other pods' tokens. As long as nothing is known of it, it may not.
    pub(super) fn contains(&self, pod: PodUid) -> bool {
        let standing = self.0.pods.get(&pod).map(|standing| *standing);
        if let Some(Standing::Settled(is_delegate)) = standing {
            return is_delegate;
        }
        self.look_up(pod);
        false
    }

    /// Finds out about a pod, in the background, unless that was tried a moment ago.
    pub(super) fn look_up(&self, pod: PodUid) {
        if self.0.accounts.is_empty() || !self.0.begin(pod) {
            return;
        }
        let shared = Arc::clone(&self.0);
        self.0
            .runtime
            .spawn(async move { shared.settle(pod).await });
    }

    pub(super) fn forget(&self, pod: PodUid) {
        self.0.pods.remove(&pod);
    }
}

impl Shared {
    /// Notes that a pod is looked at now. False if there is no need to.
    fn begin(&self, pod: PodUid) -> bool {
        let now = Standing::Open(Instant::now());
        match self.pods.entry(pod) {
            Entry::Vacant(entry) => {
                entry.insert(now);
                true
            }
            Entry::Occupied(mut entry) => match entry.get() {
                Standing::Open(since) if since.elapsed() >= LOOK_AGAIN_AFTER => {
                    entry.insert(now);
                    true
                }
                Standing::Open(_) | Standing::Settled(_) => false,
            },
        }
    }

    /// Finds a token in the pod's volumes that the cluster has signed for it. Where there is none, or no
    /// key to verify it, nothing is settled.
    async fn settle(self: Arc<Self>, pod: PodUid) {
        let Some(keys) = &self.keys else {
            return;
        };
        let shared = Arc::clone(&self);
        let read = move || mounted_tokens(&shared.kubelet_root, pod);
        let tokens = self.runtime.spawn_blocking(read).await;
        for token in tokens.unwrap_or_default() {
            if let Some(bearer) = keys.bearer(&token).await
                && bearer.pod == pod
            {
                let is_delegate = self.accounts.contains(&bearer.account);
                tracing::debug!(pod_uid = %pod, account = %bearer.account, is_delegate, "a pod's account");
                // A pod that is gone meanwhile stays forgotten.
                if let Some(mut standing) = self.pods.get_mut(&pod) {
                    *standing = Standing::Settled(is_delegate);
                }
                return;
            }
        }
    }
}

/// What may be a token among the files of a pod's projected volumes.
fn mounted_tokens(kubelet_root: &Path, pod: PodUid) -> Vec<Token> {
    let volumes = kubelet_root
        .join("pods")
        .join(pod.to_string())
        .join("volumes/kubernetes.io~projected");
    let files = |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten();
    files(volumes)
        // Kubelet's own files are behind one link, `..data`.
        .flat_map(|volume| files(volume.path().join("..data")))
        .take(MAX_FILES)
        .filter_map(|file| small_text(&file.path()))
        .map(|text| Token::new(text.trim()))
        .collect()
}

/// The text of a regular file that is small enough to be a token.
fn small_text(path: &Path) -> Option<String> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    let file = File::open(path).ok()?;
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text).ok()?;
    (read as u64 <= MAX_BYTES).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures_util::future::{BoxFuture, pending};
    use tokio::task::yield_now;

    use super::*;
    use crate::upstream::{FetchKeys, KeysError};

    const POD: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

    /// Never answers.
    #[derive(Default)]
    struct Silent(AtomicUsize);

    impl FetchKeys for Silent {
        fn fetch(&self) -> BoxFuture<'static, Result<Vec<u8>, KeysError>> {
            self.0.fetch_add(1, Relaxed);
            Box::pin(pending())
        }
    }

    #[tokio::test]
    async fn one_look_at_a_time_however_many_requests_there_are() {
        let root = tempfile::tempdir().unwrap();
        let keys = ClusterKeys::new(Arc::<Silent>::default(), "audience");
        let delegates = Delegates::new(
            vec!["kube-system/driver".parse().unwrap()],
            root.path().to_owned(),
            Some(keys),
            Handle::current(),
        );
        let pod = POD.parse().unwrap();
        for _ in 0..1000 {
            assert!(!delegates.contains(pod));
        }
        let tasks = Handle::current().metrics().num_alive_tasks();
        assert!(tasks <= 1, "{tasks}");
        delegates.forget(pod);
        yield_now().await;
        assert!(delegates.0.pods.is_empty(), "it stays forgotten");
    }

    #[test]
    fn what_is_too_large_or_no_file_is_no_token() {
        let root = tempfile::tempdir().unwrap();
        let volumes = root.path().join("pods").join(POD);
        let data = volumes.join("volumes/kubernetes.io~projected/token/..data");
        fs::create_dir_all(data.join("folder")).unwrap();
        fs::write(data.join("huge"), vec![b'x'; MAX_BYTES as usize + 1]).unwrap();
        fs::write(data.join("token"), "token\n").unwrap();
        let tokens = mounted_tokens(root.path(), POD.parse().unwrap());
        let texts: Vec<_> = tokens.iter().map(Token::expose).collect();
        assert_eq!(texts, ["token"]);
    }
}
