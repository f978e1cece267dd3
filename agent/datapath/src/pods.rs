//! The known pods: what each needs from the kernel, and where it stands.

mod events;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use podcreds_common::Endpoint;
use podcreds_types::PodUid;

use super::{
    accept::{KnownPod, Registry},
    discovery::{Change, PodCgroup},
    metrics::Metrics,
    namespace::Scope,
    namespaces::{Location, Namespaces, News},
    nested::Nested,
    netns::Netns,
    processes::{self, NetnsSearch, Witness},
    programs::Programs,
};

/// How soon after a pod's cgroup has changed its processes are looked at. The delay then doubles.
const FIRST_LOOK: Duration = Duration::from_millis(1);
/// How often they are looked at in the long run.
const LAST_LOOK: Duration = Duration::from_secs(10);

/// How long a pod's processes are all in the host's namespace before it counts as a hostNetwork
/// pod. A container runtime's helper is there for milliseconds.
const HOST_PATIENCE: Duration = Duration::from_millis(500);

/// Why a pod's network namespace may not be found.
const INVISIBLE: &str = "its processes cannot be seen: the agent must run in the host's PID namespace \
    (hostPID: true)";

/// Takes a pod. Called on the datapath's thread.
pub type OnPod = Box<dyn Fn(PodUid) + Send>;

/// Takes whether a pod can reach its own listeners. Called on the datapath's thread.
pub type OnReachable = Box<dyn Fn(PodUid, bool) + Send>;

/// Takes a pod that had a connect left alone, and the addresses of its network namespace.
/// Called on the datapath's thread.
pub type OnLeftAlone = Box<dyn Fn(PodUid, Vec<IpAddr>) + Send>;

/// How the rest of the agent learns of pods.
pub(super) struct PodHooks {
    pub(super) started: OnPod,
    pub(super) gone: OnPod,
    pub(super) reachable: OnReachable,
    pub(super) left_alone: OnLeftAlone,
}

/// Keeps the programs' map and the listeners in step with the pods on the node.
pub(super) struct Pods {
    programs: Programs,
    namespaces: Namespaces,
    /// Where every pod may go that calls from the host's namespace and has no listeners there yet.
    host: Location,
    host_endpoint: Endpoint,
    host_published: bool,
    registry: Arc<Registry>,
    /// Boxed, since half of a map's slots are empty.
    known: HashMap<u64, Box<Pod>>,
    /// Listeners in other namespaces than the pods' own.
    nested: Nested,
    hooks: PodHooks,
    metrics: Metrics,
}

/// A pod whose cgroup is there.
struct Pod {
    uid: PodUid,
    path: Arc<Path>,
    /// Where it has listeners of its own. A pod whose first process is to come has none.
    location: Option<Location>,
    /// The process by which that is known.
    witness: Option<Witness>,
    /// Where its listeners are.
    endpoint: Endpoint,
    /// Whether the programs know that.
    published: bool,
    /// Whether it can reach them, as last reported.
    is_reachable: bool,
    /// Whether the log says that it cannot.
    is_reported: bool,
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
        nested: Nested,
        hooks: PodHooks,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let location = Location {
            netns: host.id(),
            only: None,
        };
        let host_endpoint = namespaces.join(&mut programs, location, host)?;
        programs.publish_host(host_endpoint)?;
        Ok(Self {
            programs,
            namespaces,
            host: location,
            host_endpoint,
            host_published: true,
            registry,
            known: HashMap::new(),
            nested,
            hooks,
            metrics,
        })
    }

    pub(super) fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// Follows what discovery has seen. Calls `beat` before each step, as all that may take long
    /// do.
    pub(super) fn apply(&mut self, changes: Vec<Change>, beat: impl Fn()) {
        for change in changes {
            beat();
            match change {
                Change::Appeared(pod) => self.appeared(pod),
                Change::ContainerMade(id) => {
                    let Some(pod) = self.known.get_mut(&id) else {
                        continue;
                    };
                    pod.delay = FIRST_LOOK;
                    pod.look_at = Instant::now();
                    // The container before this one may have set packet filters up.
                    if let Some(location) = pod.location {
                        self.refresh(location, Scope::All);
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
        let pods = self.known.values().map(|pod| pod.look_at).min();
        pods.into_iter().chain(self.nested.next_look()).min()
    }

    /// Looks at the processes of the pods that are due, and listens where they are.
    pub(super) fn look(&mut self, beat: impl Fn()) {
        let looked = self.nested.look(&mut self.programs, &mut self.namespaces);
        self.succeeded(looked);
        let now = Instant::now();
        let due: Vec<u64> = self
            .known
            .iter()
            .filter(|(_, pod)| pod.look_at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            beat();
            let result = self.follow_namespace(id).and_then(|()| self.publish(id));
            let Some(pod) = self.known.get_mut(&id) else {
                continue;
            };
            if let Err(error) = &result {
                self.metrics.errors.inc();
                if !pod.failing {
                    tracing::warn!(pod_uid = %pod.uid, %error, "a pod cannot be served yet; it will be \
                        tried again");
                }
            }
            pod.failing = result.is_err();
            pod.look_at = now + pod.delay;
            pod.delay = (pod.delay * 2).min(LAST_LOOK);
        }
    }

    /// Sees whether all listeners are alive, and whether IPv6 has come or gone unnoticed.
    /// Also, of those in `scope`, whether they can be reached.
    pub(super) fn refresh_all(&mut self, scope: Scope, beat: impl Fn()) {
        for location in self.namespaces.locations() {
            beat();
            self.refresh(location, scope);
        }
    }

    /// Follows the news of a location.
    pub(super) fn handle_news(&mut self, news: News) {
        match news {
            News::Changed(location) => self.refresh(location, Scope::All),
            News::Tried(outcome) => {
                if let Some(endpoint) = self.namespaces.settle(&outcome) {
                    self.move_pods(outcome.location, endpoint);
                }
            }
        }
    }

    fn refresh(&mut self, location: Location, scope: Scope) {
        match self.namespaces.refresh(&mut self.programs, location, scope) {
            Ok(Some(endpoint)) => self.move_pods(location, endpoint),
            Ok(None) => {}
            Err(error) => {
                self.metrics.errors.inc();
                tracing::warn!(%error, "cannot listen anew in a network namespace; it will be tried again");
            }
        }
        if location == self.host && !self.host_published {
            let published = self.programs.publish_host(self.host_endpoint);
            self.host_published = self.succeeded(published);
        }
    }

    /// Accepts what waits in the backlogs, then closes all listeners.
    pub(super) async fn drain(&mut self) {
        self.namespaces.drain().await;
    }

    /// Makes a pod known at once, so that a hostNetwork pod's first connect is redirected already.
    fn appeared(&mut self, PodCgroup { id, uid, path }: PodCgroup) {
        tracing::debug!(pod_uid = %uid, cgroup = %path.display(), "found a pod");
        let known = KnownPod { uid, netns: 0 };
        self.registry.insert(id, known);
        let pod = Pod {
            uid,
            path,
            location: None,
            witness: None,
            endpoint: Endpoint::default(),
            published: false,
            is_reachable: true,
            is_reported: false,
            look_at: Instant::now(),
            delay: FIRST_LOOK,
            failing: false,
        };
        self.known.insert(id, Box::new(pod));
        // If it fails, the first look tries again, and logs why.
        let _published = self.publish(id);
    }

    /// Tells the programs where a pod's listeners are, unless they know.
    fn publish(&mut self, id: u64) -> io::Result<()> {
        if let Some(pod) = self.known.get_mut(&id)
            && !pod.published
        {
            self.programs.publish_pod(id, pod.endpoint)?;
            pod.published = true;
        }
        Ok(())
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
        let (programs, namespaces) = (&mut self.programs, &mut self.namespaces);
        let forgotten = self.nested.forget(programs, namespaces, id);
        self.succeeded(forgotten);
        if let Some(location) = pod.location {
            self.namespaces.leave(location);
        }
        tracing::debug!(pod_uid = %pod.uid, "a pod is gone");
        if !self.known.values().any(|other| other.uid == pod.uid) {
            (self.hooks.gone)(pod.uid);
        }
    }

    /// Sees where the pod's processes are now, and listens there.
    fn follow_namespace(&mut self, id: u64) -> io::Result<()> {
        let Some(pod) = self.known.get_mut(&id) else {
            return Ok(());
        };
        let host = self.host.netns;
        match processes::own_netns(&pod.path, host, pod.witness.as_ref()) {
            NetnsSearch::Found(netns, witness) => {
                let location = Location {
                    netns: netns.id(),
                    only: None,
                };
                self.settle(id, location, netns)?;
                if let Some(pod) = self.known.get_mut(&id) {
                    pod.witness = Some(witness);
                }
                Ok(())
            }
            // A queue of its own, so that it need not stand in one with the other hostNetwork pods.
            NetnsSearch::Host if pod.location.is_none() && pod.delay > HOST_PATIENCE => {
                let location = Location {
                    netns: host,
                    only: Some(id),
                };
                self.settle(id, location, Netns::of_agent()?)
            }
            NetnsSearch::Same | NetnsSearch::Host | NetnsSearch::Nothing => Ok(()),
            NetnsSearch::Invisible => Err(io::Error::other(INVISIBLE)),
        }
    }

    /// Listens for a pod at a location, and gives up the one where it was.
    fn settle(&mut self, id: u64, location: Location, netns: Netns) -> io::Result<()> {
        let Some(pod) = self.known.get_mut(&id) else {
            return Ok(());
        };
        if pod.location == Some(location) {
            return Ok(());
        }
        pod.endpoint = self.namespaces.join(&mut self.programs, location, netns)?;
        pod.published = false;
        tracing::debug!(pod_uid = %pod.uid, port4 = pod.endpoint.port4, port6 = pod.endpoint.port6,
            "listening in a pod's network namespace");
        let known = KnownPod {
            uid: pod.uid,
            netns: pod.endpoint.netns,
        };
        (self.hooks.started)(pod.uid);
        let left = pod.location.replace(location);
        // The acceptor must know the pod before the kernel redirects it.
        self.registry.insert(id, known);
        let published = self.publish(id);
        self.report_reachable(id);
        if let Some(left) = left {
            self.namespaces.leave(left);
        }
        published
    }

    /// Sends the pods of a location elsewhere, then closes what they no longer use.
    fn move_pods(&mut self, location: Location, endpoint: Endpoint) {
        tracing::debug!(
            port4 = endpoint.port4,
            port6 = endpoint.port6,
            "listeners have changed"
        );
        if location == self.host {
            self.host_endpoint = endpoint;
            let published = self.programs.publish_host(endpoint);
            self.host_published = self.succeeded(published);
        }
        let mut moved = Vec::new();
        for (id, pod) in &mut self.known {
            if pod.location == Some(location) {
                pod.endpoint = endpoint;
                pod.published = false;
                moved.push(*id);
            }
        }
        let nested = self.nested.moved(&mut self.programs, location, endpoint);
        self.succeeded(nested.map(drop));
        for id in moved {
            // What fails is tried again when the pod is looked at.
            let published = self.publish(id);
            self.succeeded(published);
            self.report_reachable(id);
        }
        self.namespaces.retire_v6(location);
    }

    fn succeeded(&self, result: io::Result<()>) -> bool {
        if let Err(error) = &result {
            self.metrics.errors.inc();
            tracing::warn!(%error, "cannot publish a listener to the kernel; it will be tried again");
        }
        result.is_ok()
    }
}
