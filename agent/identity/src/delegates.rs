//! Pods that fetch credentials on behalf of others.
//!
//! The AWS provider of the Secrets Store CSI driver, for one, gets the tokens of the pods that it
//! mounts secrets for, and uses them from its own pod. The kernel tells which pod that is, but not
//! its service account. The token that kubelet has mounted into the pod does, once its signature is
//! verified: kubelet's directory alone would not do, since a pod may have files of its own choice
//! mounted there as well.

mod volumes;

use std::{
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use podcreds_keys::{ClusterKeys, Issued};
use podcreds_types::{PodUid, ServiceAccount, SharedMap, Undecided};
use tokio::{runtime::Handle, time::timeout};

/// How long after a look-up that found nothing in a pod's volumes the next one may be.
const LOOK_UP_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How long after a look-up that settled nothing a request starts the next one.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often a look-up that waits for the cluster's keys asks for them.
const ASK_FOR_KEYS_EVERY: Duration = Duration::from_secs(5);

/// The service accounts of `--delegate`, and which pods turned out to run as one of them.
#[derive(Clone)]
pub(super) struct Delegates(Arc<Inner>);

struct Inner {
    accounts: Vec<ServiceAccount>,
    kubelet_root: PathBuf,
    keys: Option<ClusterKeys>,
    /// Where files are read and keys are fetched.
    runtime: Handle,
    pods: SharedMap<PodUid, Candidate>,
}

/// Whether a pod may use other pods' tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DelegateStatus {
    /// It runs as one of the service accounts.
    Delegate,
    /// It does not.
    Other,
    /// It is not known yet.
    Undecided(Undecided),
}

/// What is known about a pod.
struct Candidate {
    known: DelegateState,
    /// When the last look-up began.
    looked_up: Instant,
    /// Whether it is still under way.
    is_looking_up: bool,
    /// Whether the pod has shown another pod's token. Its volumes are mounted by then, so what is
    /// not there now will not come.
    has_asked: bool,
}

enum DelegateState {
    /// For good: a pod's service account never changes.
    Settled(bool),
    /// Its volumes hold nothing that the cluster has signed for it.
    NoToken,
    /// Nothing yet.
    Unknown(Undecided),
}

/// What one look-up of a pod has shown.
enum Shown {
    Account(ServiceAccount),
    NoToken,
    Undecided(Undecided),
}

impl Delegates {
    /// Without `keys` nobody can be known as a delegate, so nobody is one.
    pub(super) fn new(
        mut accounts: Vec<ServiceAccount>,
        kubelet_root: PathBuf,
        keys: Option<ClusterKeys>,
        runtime: Handle,
    ) -> Self {
        if keys.is_none() {
            accounts.clear();
        }
        Self(Arc::new(Inner {
            accounts,
            kubelet_root,
            keys,
            runtime,
            pods: SharedMap::default(),
        }))
    }

    /// Says whether a pod that shows another pod's token may do so.
    pub(super) fn status(&self, pod: PodUid) -> DelegateStatus {
        if self.0.accounts.is_empty() {
            return DelegateStatus::Other;
        }
        self.look_up_if_due(pod, true);
        match self.0.pods.get(&pod).map(|pod| pod.status()) {
            Some(status) => status,
            // It is gone this very moment.
            None => DelegateStatus::Undecided(Undecided::LookUp),
        }
    }

    /// Looks a pod's account up in the background, before it asks.
    pub(super) fn pod_found(&self, pod: PodUid) {
        if !self.0.accounts.is_empty() {
            self.look_up_if_due(pod, false);
        }
    }

    pub(super) fn pod_gone(&self, pod: PodUid) {
        self.0.pods.remove(&pod);
    }

    fn look_up_if_due(&self, pod: PodUid, is_asking: bool) {
        if self.0.begin(pod, is_asking) {
            let inner = Arc::clone(&self.0);
            self.0.runtime.spawn(async move {
                let look_up = AssertUnwindSafe(inner.look_up(pod)).catch_unwind();
                // It panics where the machine has no thread left for it. The pod is looked up again
                // the next time that it asks.
                if look_up.await.is_err()
                    && let Some(mut pod) = inner.pods.get_mut(&pod)
                {
                    pod.is_looking_up = false;
                }
            });
        }
    }
}

impl Candidate {
    fn status(&self) -> DelegateStatus {
        match &self.known {
            DelegateState::Settled(true) => DelegateStatus::Delegate,
            DelegateState::Settled(false) | DelegateState::NoToken => DelegateStatus::Other,
            DelegateState::Unknown(reason) => DelegateStatus::Undecided(*reason),
        }
    }

    /// Whether it is to be looked up now. What was seen before the pod's first request does not
    /// count.
    fn is_due(&self, is_first: bool) -> bool {
        let pause = match self.known {
            DelegateState::Settled(_) => return false,
            DelegateState::NoToken => LOOK_UP_AGAIN_AFTER,
            DelegateState::Unknown(_) => RETRY_AFTER,
        };
        !self.is_looking_up && (is_first || self.looked_up.elapsed() >= pause)
    }
}

impl Inner {
    /// Notes that a pod is looked up now. False if there is no need to.
    fn begin(&self, pod: PodUid, is_asking: bool) -> bool {
        let mut is_new = false;
        let mut pod = self.pods.entry(pod).or_insert_with(|| {
            is_new = true;
            Candidate {
                known: DelegateState::Unknown(Undecided::LookUp),
                looked_up: Instant::now(),
                is_looking_up: false,
                has_asked: false,
            }
        });
        let is_first = is_asking && !pod.has_asked;
        pod.has_asked |= is_asking;
        let is_needed = is_new || pod.is_due(is_first);
        if is_needed {
            pod.is_looking_up = true;
            pod.looked_up = Instant::now();
        }
        is_needed
    }

    /// Looks a pod up until it is known, or nothing more can be learnt for now.
    async fn look_up(&self, pod: PodUid) {
        let Some(keys) = &self.keys else {
            return;
        };
        let mut fetches = keys.fetches();
        loop {
            let Some(has_asked) = self.pods.get(&pod).map(|pod| pod.has_asked) else {
                return;
            };
            fetches.mark_unchanged();
            let shown = self.show(pod, keys).await;
            let waits_for_keys = matches!(shown, Shown::Undecided(Undecided::NoKeys));
            // A pod that is gone meanwhile stays forgotten.
            let Some(mut pod) = self.pods.get_mut(&pod) else {
                return;
            };
            pod.known = self.known(shown, has_asked);
            pod.is_looking_up = waits_for_keys;
            drop(pod);
            if !waits_for_keys {
                return;
            }
            let _fetched = timeout(ASK_FOR_KEYS_EVERY, fetches.changed()).await;
        }
    }

    fn known(&self, shown: Shown, has_asked: bool) -> DelegateState {
        match shown {
            Shown::Account(account) => DelegateState::Settled(self.accounts.contains(&account)),
            Shown::NoToken if has_asked => DelegateState::NoToken,
            Shown::NoToken => DelegateState::Unknown(Undecided::NotMounted),
            Shown::Undecided(reason) => DelegateState::Unknown(reason),
        }
    }

    /// Finds a token in the pod's volumes that the cluster has signed for it.
    async fn show(&self, pod: PodUid, keys: &ClusterKeys) -> Shown {
        let root = self.kubelet_root.clone();
        let read = move || volumes::tokens(&root, pod);
        let tokens = match self.runtime.spawn_blocking(read).await {
            Ok(Ok(tokens)) => tokens,
            Ok(Err((reason, words))) => {
                tracing::debug!(pod_uid = %pod, words, "a pod's account is not known yet");
                return Shown::Undecided(reason);
            }
            Err(_) => return Shown::Undecided(Undecided::NoFolder),
        };
        let mut shown = Shown::NoToken;
        for token in tokens {
            match keys.issued_to(&token).await {
                Issued::To(bearer) if bearer.pod == pod => {
                    let account = bearer.account;
                    tracing::debug!(pod_uid = %pod, %account, "a pod's service account");
                    return Shown::Account(account);
                }
                Issued::To(_) | Issued::ToNobody => {}
                Issued::Unknown(reason) => {
                    tracing::debug!(pod_uid = %pod, %reason, "a pod's account is not known yet");
                    shown = Shown::Undecided(Undecided::NoKeys);
                }
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests;
