//! Pods that fetch credentials on behalf of others.
//!
//! The AWS provider of the Secrets Store CSI driver, for one, gets the tokens of the pods that it
//! mounts secrets for, and uses them from its own pod. The kernel tells which pod that is, but not
//! its service account. The token that kubelet has mounted into the pod does, once its signature is
//! verified: kubelet's directory alone would not do, since a pod may have files of its own choice
//! mounted there as well.

mod volumes;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use podcreds_keys::{ClusterKeys, Issued};
use podcreds_types::{PodUid, ServiceAccount, Undecided};
use tokio::{runtime::Handle, time::timeout};

/// How long after a look that found nothing in a pod's volumes the next one may be.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How long after a look that settled nothing somebody who asks starts the next one.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often a look that waits for the cluster's keys asks for them.
const ASK_FOR_KEYS_EVERY: Duration = Duration::from_secs(5);

/// The service accounts of `--delegate`, and which pods turned out to run as one of them.
#[derive(Clone)]
pub(super) struct Delegates(Arc<Shared>);

struct Shared {
    accounts: Vec<ServiceAccount>,
    kubelet_root: PathBuf,
    keys: Option<ClusterKeys>,
    /// Where files are read and keys are fetched.
    runtime: Handle,
    pods: DashMap<PodUid, Pod>,
}

/// Whether a pod may use other pods' tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs as one of the service accounts.
    Delegate,
    /// It does not.
    Other,
    /// Nobody can tell yet.
    Unknown(Undecided),
}

/// What is known of a pod.
struct Pod {
    known: Known,
    /// When the last look began.
    looked: Instant,
    /// Whether that look is still under way.
    is_looking: bool,
    /// Whether the pod has shown another pod's token. Its volumes are mounted by then, so what is
    /// not there now will not come.
    has_asked: bool,
}

enum Known {
    /// For good: a pod's service account never changes.
    Settled(bool),
    /// Its volumes hold nothing that the cluster has signed for it.
    NoToken,
    /// Nothing yet.
    Unknown(Undecided),
}

/// What one look at a pod has shown.
enum Seen {
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
        Self(Arc::new(Shared {
            accounts,
            kubelet_root,
            keys,
            runtime,
            pods: DashMap::new(),
        }))
    }

    /// Says whether a pod that shows another pod's token may do so.
    pub(super) fn standing(&self, pod: PodUid) -> Standing {
        if self.0.accounts.is_empty() {
            return Standing::Other;
        }
        self.look_up(pod, true);
        match self.0.pods.get(&pod).map(|pod| pod.standing()) {
            Some(standing) => standing,
            // It is gone this very moment.
            None => Standing::Unknown(Undecided::LookUp),
        }
    }

    /// Finds out about a pod that has started, in the background.
    pub(super) fn meet(&self, pod: PodUid) {
        if !self.0.accounts.is_empty() {
            self.look_up(pod, false);
        }
    }

    pub(super) fn forget(&self, pod: PodUid) {
        self.0.pods.remove(&pod);
    }

    fn look_up(&self, pod: PodUid, is_asking: bool) {
        if self.0.begin(pod, is_asking) {
            let shared = Arc::clone(&self.0);
            self.0.runtime.spawn(async move { shared.look(pod).await });
        }
    }
}

impl Pod {
    fn standing(&self) -> Standing {
        match &self.known {
            Known::Settled(true) => Standing::Delegate,
            Known::Settled(false) | Known::NoToken => Standing::Other,
            Known::Unknown(reason) => Standing::Unknown(*reason),
        }
    }

    /// Whether it is to be looked at now. What was seen before the pod's first request does not
    /// count.
    fn is_due(&self, is_first: bool) -> bool {
        let pause = match self.known {
            Known::Settled(_) => return false,
            Known::NoToken => LOOK_AGAIN_AFTER,
            Known::Unknown(_) => RETRY_AFTER,
        };
        !self.is_looking && (is_first || self.looked.elapsed() >= pause)
    }
}

impl Shared {
    /// Notes that a pod is looked at now. False if there is no need to.
    fn begin(&self, pod: PodUid, is_asking: bool) -> bool {
        let mut is_new = false;
        let mut pod = self.pods.entry(pod).or_insert_with(|| {
            is_new = true;
            Pod {
                known: Known::Unknown(Undecided::LookUp),
                looked: Instant::now(),
                is_looking: false,
                has_asked: false,
            }
        });
        let is_first = is_asking && !pod.has_asked;
        pod.has_asked |= is_asking;
        let is_needed = is_new || pod.is_due(is_first);
        if is_needed {
            pod.is_looking = true;
            pod.looked = Instant::now();
        }
        is_needed
    }

    /// Looks at a pod until it is known, or nothing more can be learnt for now.
    async fn look(&self, pod: PodUid) {
        let Some(keys) = &self.keys else {
            return;
        };
        let mut fetches = keys.fetches();
        loop {
            let Some(has_asked) = self.pods.get(&pod).map(|pod| pod.has_asked) else {
                return;
            };
            fetches.mark_unchanged();
            let seen = self.see(pod, keys).await;
            let waits_for_keys = matches!(seen, Seen::Undecided(Undecided::NoKeys));
            // A pod that is gone meanwhile stays forgotten.
            let Some(mut pod) = self.pods.get_mut(&pod) else {
                return;
            };
            pod.known = self.known(seen, has_asked);
            pod.is_looking = waits_for_keys;
            drop(pod);
            if !waits_for_keys {
                return;
            }
            let _fetched = timeout(ASK_FOR_KEYS_EVERY, fetches.changed()).await;
        }
    }

    fn known(&self, seen: Seen, has_asked: bool) -> Known {
        match seen {
            Seen::Account(account) => Known::Settled(self.accounts.contains(&account)),
            Seen::NoToken if has_asked => Known::NoToken,
            Seen::NoToken => Known::Unknown(Undecided::NotMounted),
            Seen::Undecided(reason) => Known::Unknown(reason),
        }
    }

    /// Finds a token in the pod's volumes that the cluster has signed for it.
    async fn see(&self, pod: PodUid, keys: &ClusterKeys) -> Seen {
        let root = self.kubelet_root.clone();
        let read = move || volumes::tokens(&root, pod);
        let tokens = match self.runtime.spawn_blocking(read).await {
            Ok(Ok(tokens)) => tokens,
            Ok(Err((reason, words))) => {
                tracing::debug!(pod_uid = %pod, words, "a pod's account is not known yet");
                return Seen::Undecided(reason);
            }
            Err(_) => return Seen::Undecided(Undecided::NoFolder),
        };
        let mut seen = Seen::NoToken;
        for token in tokens {
            match keys.bearer(&token).await {
                Issued::To(bearer) if bearer.pod == pod => {
                    let account = bearer.account;
                    tracing::debug!(pod_uid = %pod, %account, "a pod's service account");
                    return Seen::Account(account);
                }
                Issued::To(_) | Issued::ToNobody => {}
                Issued::Unknown(reason) => {
                    tracing::debug!(pod_uid = %pod, %reason, "a pod's account is not known yet");
                    seen = Seen::Undecided(Undecided::NoKeys);
                }
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests;
