//! The known pods: what each needs from the kernel, and where it stands.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use podcreds_common::Endpoint;

use super::{
    accept::{KnownPod, Registry},
    discovery::{Change, PodCgroup},
    metrics::Metrics,
    namespaces::Namespaces,
    netns::{Netns, NetnsId},
    processes,
    programs::Programs,
};
use crate::types::PodUid;

/// How soon after a pod's cgroup has changed its processes are looked at. The delay then doubles.
const FIRST_LOOK: Duration = Duration::from_millis(1);
/// How often they are looked at in the long run.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// Told of a pod whose cgroup is gone. Called on the datapath's thread.
pub type OnPodGone = Box<dyn Fn(PodUid) + Send>;

/// Keeps the programs' map and the listeners in step with the pods on the node.
pub(super) struct Pods {
    programs: Programs,
    namespaces: Namespaces,
    host: NetnsId,
    registry: Arc<Registry>,
    known: HashMap<u64, Pod>,
    on_gone: OnPodGone,
    metrics: Metrics,
}

/// A pod whose cgroup is there.
struct Pod {
    uid: PodUid,
    path: PathBuf,
    /// Its own network namespace. A hostNetwork pod has none, nor has one whose first process is to come.
    netns: Option<NetnsId>,
    look_at: Instant,
    delay: Duration,
    /// Whether the last look failed, so that a failure is logged once.
    failing: bool,
}

impl Pods {
    /// Listens in the host's namespace. There are no pods yet.
    pub(super) fn new(
        mut programs: Programs,
        mut namespaces: Namespaces,
        host: Netns,
        registry: Arc<Registry>,
        on_gone: OnPodGone,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let id = host.id();
        let endpoint = namespaces.join(&mut programs, host)?;
        programs.publish_host(endpoint)?;
        Ok(Self {
            programs,
            namespaces,
            host: id,
            registry,
            known: HashMap::new(),
            on_gone,
            metrics,
        })
    }

    pub(super) fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// Follows what discovery has seen.
    pub(super) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Appeared(pod) => self.appeared(pod),
                Change::Stirred(id) => {
                    if let Some(pod) = self.known.get_mut(&id) {
                        pod.delay = FIRST_LOOK;
                        pod.look_at = Instant::now();
                    }
                }
                Change::Gone(id) => self.gone(id),
            }
        }
        self.metrics
            .pods
            .set(i64::try_from(self.known.len()).unwrap_or(i64::MAX));
    }

    /// When [`Self::look`] has something to do.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.known.values().map(|pod| pod.look_at).min()
    }

    /// Looks at the processes of the pods that are due, and listens where they are.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        let due: Vec<u64> = self
            .known
            .iter()
            .filter(|(_, pod)| pod.look_at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let result = self.follow_namespace(id);
            let Some(pod) = self.known.get_mut(&id) else {
                continue;
            };
            if let Err(error) = &result {
                self.metrics.errors.inc();
                if !pod.failing {
                    tracing::warn!(pod_uid = %pod.uid, %error, "cannot listen in a pod's network \
                        namespace; it will be tried again");
                }
            }
            pod.failing = result.is_err();
            pod.look_at = now + pod.delay;
            pod.delay = (pod.delay * 2).min(LAST_LOOK);
        }
    }

    /// Follows a change of IPv6 addresses in a namespace.
    pub(super) fn addresses_changed(&mut self, id: NetnsId) {
        let result = self.namespaces.refresh(&mut self.programs, id);
        match result {
            Ok(Some(endpoint)) => self.move_pods(id, endpoint),
            Ok(None) => {}
            Err(error) => {
                self.metrics.errors.inc();
                tracing::warn!(%error, "cannot follow a change of IPv6 addresses in a pod");
            }
        }
    }

    /// Accepts what waits in the backlogs, then closes all listeners.
    pub(super) async fn drain(&mut self) {
        self.namespaces.drain().await;
    }

    /// Makes a pod known at once, so that a hostNetwork pod's first connect is redirected already.
    fn appeared(&mut self, PodCgroup { id, uid, path }: PodCgroup) {
        let known = KnownPod { uid, netns: 0 };
        self.registry.insert(id, known);
        if let Err(error) = self.programs.publish_pod(id, Endpoint::default()) {
            self.metrics.errors.inc();
            tracing::error!(pod_uid = %uid, %error, "cannot make a pod known to the kernel");
        }
        tracing::debug!(pod_uid = %uid, cgroup = %path.display(), "found a pod");
        let pod = Pod {
            uid,
            path,
            netns: None,
            look_at: Instant::now(),
            delay: FIRST_LOOK,
            failing: false,
        };
        self.known.insert(id, pod);
    }

    fn gone(&mut self, id: u64) {
        let Some(pod) = self.known.remove(&id) else {
            return;
        };
        if let Err(error) = self.programs.withdraw_pod(id) {
            self.metrics.errors.inc();
            tracing::error!(pod_uid = %pod.uid, %error, "cannot make the kernel forget a pod");
        }
        self.registry.remove(&id);
        if let Some(netns) = pod.netns {
            self.namespaces.leave(netns);
        }
        tracing::debug!(pod_uid = %pod.uid, "a pod is gone");
        if !self.known.values().any(|other| other.uid == pod.uid) {
            (self.on_gone)(pod.uid);
        }
    }

    /// Sees which namespace is the pod's now, and sends the pod to the listeners there.
    fn follow_namespace(&mut self, id: u64) -> io::Result<()> {
        let Some(pod) = self.known.get_mut(&id) else {
            return Ok(());
        };
        let Some(netns) = processes::own_netns(&pod.path, self.host, pod.netns) else {
            return Ok(());
        };
        let found = netns.id();
        if pod.netns == Some(found) {
            return Ok(());
        }
        let endpoint = self.namespaces.join(&mut self.programs, netns)?;
        let left = pod.netns.replace(found);
        let known = KnownPod {
            uid: pod.uid,
            netns: endpoint.netns,
        };
        tracing::debug!(pod_uid = %pod.uid, port4 = endpoint.port4, port6 = endpoint.port6,
            "listening in a pod's network namespace");
        // First the accept loops must know the pod, then the kernel may send it to them.
        self.registry.insert(id, known);
        let published = self.programs.publish_pod(id, endpoint);
        if let Some(left) = left {
            self.namespaces.leave(left);
        }
        published
    }

    /// Sends the pods of a namespace elsewhere, then closes what they no longer use.
    fn move_pods(&mut self, netns: NetnsId, endpoint: Endpoint) {
        let mut results = Vec::new();
        if netns == self.host {
            results.push(self.programs.publish_host(endpoint));
        }
        for (id, pod) in &self.known {
            if pod.netns == Some(netns) {
                results.push(self.programs.publish_pod(*id, endpoint));
            }
        }
        self.namespaces.retire_v6(netns);
        tracing::debug!(port6 = endpoint.port6, "IPv6 came or went in a pod");
        for error in results.into_iter().filter_map(Result::err) {
            self.metrics.errors.inc();
            tracing::error!(%error, "cannot send a pod to its new listener");
        }
    }
}
