//! Pods that fetch credentials on behalf of others.
//!
//! The AWS provider of the Secrets Store CSI driver, for one, gets the tokens of the pods that it mounts
//! secrets for, and uses them from its own pod. The kernel tells which pod that is, but not its service
//! account. The token that kubelet has mounted into the pod does, once its signature is verified: kubelet's
//! directory alone would not do, since a pod may have files of its own choice mounted there as well.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use dashmap::DashMap;
use tokio::runtime::Handle;

use crate::{
    credentials::ClusterKeys,
    types::{PodUid, ServiceAccount, Token},
};

/// The service accounts of `--delegate`, and which pods turned out to run as one of them.
#[derive(Clone)]
pub(super) struct Delegates(Arc<Shared>);

struct Shared {
    accounts: Vec<ServiceAccount>,
    kubelet_root: PathBuf,
    keys: Option<ClusterKeys>,
    /// Where files are read and keys are fetched.
    runtime: Handle,
    /// A pod's service account never changes, so each is settled once.
    settled: DashMap<PodUid, bool>,
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
            settled: DashMap::new(),
        }))
    }

    /// Whether this pod may use other pods' tokens. As long as nothing is known of it, it may not.
    pub(super) fn contains(&self, pod: PodUid) -> bool {
        let settled = self.0.settled.get(&pod).map(|is_delegate| *is_delegate);
        settled.unwrap_or_else(|| {
            self.look_up(pod);
            false
        })
    }

    /// Finds out about a pod, in the background.
    pub(super) fn look_up(&self, pod: PodUid) {
        if self.0.accounts.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.0);
        self.0
            .runtime
            .spawn(async move { shared.settle(pod).await });
    }

    pub(super) fn forget(&self, pod: PodUid) {
        self.0.settled.remove(&pod);
    }
}

impl Shared {
    /// Finds a token in the pod's volumes that the cluster has signed for it. Where there is none, or no
    /// key to verify it, nothing is settled.
    async fn settle(&self, pod: PodUid) {
        let Some(keys) = &self.keys else {
            return;
        };
        for token in mounted_tokens(&self.kubelet_root, pod) {
            if let Some(bearer) = keys.bearer(&token).await
                && bearer.pod == pod
            {
                let is_delegate = self.accounts.contains(&bearer.account);
                tracing::debug!(pod_uid = %pod, account = %bearer.account, is_delegate, "a pod's account");
                self.settled.insert(pod, is_delegate);
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
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .map(|text| Token::new(text.trim()))
        .collect()
}
