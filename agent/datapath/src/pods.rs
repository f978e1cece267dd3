//! The known pods: what each needs from the kernel, and where it stands.

mod ends;
mod events;
pub(crate) mod known_pods;
mod looks;
pub(crate) mod processes;
mod reached;
mod schedule;

use std::{collections::HashMap, io, net::IpAddr, path::Path, sync::Arc, time::Instant};

use podcreds_common::PodEndpoint;
use podcreds_types::{CallerId, PodUid};

use self::{
    ends::{EndWatch, Ends},
    known_pods::{KnownPod, KnownPods},
    processes::Witness,
    schedule::Schedule,
};
use super::{
    discovery::{PodCgroup, PodChange},
    metrics::Metrics,
    namespaces::{
        Namespaces,
        location::{Location, News},
        namespace::Scope,
        nested::Nested,
        netns::Netns,
    },
    programs::Programs,
};

/// Takes a pod. Called on the datapath's thread.
pub type OnPod = Box<dyn Fn(PodUid) + Send>;

/// Takes whether a pod can reach its own listeners. Called on the datapath's thread.
pub type OnReachable = Box<dyn Fn(PodUid, bool) + Send>;

/// Takes a pod that had a connect left alone, and the addresses of its network namespace.
/// Called on the datapath's thread.
pub type OnLeftAlone = Box<dyn Fn(PodUid, Vec<IpAddr>) + Send>;

/// Takes a caller that was not redirected. Called on the datapath's thread.
pub type OnNotRedirected = Box<dyn Fn(NotRedirected) + Send>;

/// A caller that asked for credentials and was not redirected to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRedirected {
    /// Who that is: a pod, or a process of none.
    pub caller: CallerId,
    /// Why, as `podcreds_kernel_connects_total` names it.
    pub outcome: &'static str,
    /// The program and the cgroup of a process.
    pub about: Option<Arc<str>>,
}

/// In place of a pod's cgroup id where the agent itself uses a location.
const AGENT: u64 = 0;

/// How the rest of the agent learns of pods.
pub(super) struct PodHooks {
    pub(super) started: OnPod,
    pub(super) gone: OnPod,
    pub(super) reachable: OnReachable,
    pub(super) left_alone: OnLeftAlone,
    pub(super) not_redirected: OnNotRedirected,
}

/// Keeps the programs' map and the listeners in step with the pods on the node.
pub(super) struct Pods {
    programs: Programs,
    namespaces: Namespaces,
    /// Where every pod may go that calls from the host's namespace and has no listeners there yet.
    host: Location,
    host_endpoint: PodEndpoint,
    host_published: bool,
    known_pods: Arc<KnownPods>,
    /// The ends of witnesses.
    ends: Ends,
    schedule: Schedule,
    /// Boxed, since half of a map's slots are empty.
    known: HashMap<u64, Box<TrackedPod>>,
    /// Listeners in other namespaces than the pods' own.
    nested: Nested,
    hooks: PodHooks,
    metrics: Metrics,
    /// Whether pods that are found now have just come.
    is_started: bool,
}

/// A pod whose cgroup is there.
struct TrackedPod {
    uid: PodUid,
    path: Arc<Path>,
    /// When it was found, until it has a listener. `None` for those that were there at the start.
    found: Option<Instant>,
    /// Where it has listeners of its own. A pod whose first process is to come has none.
    location: Option<Location>,
    /// The process by which that is known.
    witness: Option<Witness>,
    /// Reports when that process ends.
    end: Option<EndWatch>,
    /// Whether it stands, and its end would not be reported.
    is_unwatched: bool,
    /// Where its listeners are.
    endpoint: PodEndpoint,
    /// Whether the programs know that.
    published: bool,
    /// Whether it can reach them, as last reported.
    is_reachable: bool,
    /// Whether the log says that it cannot.
    is_reported: bool,
    /// When its processes are looked at next, unless something happens before; `None` for never.
    look_at: Option<Instant>,
    /// How many looks there have been since something happened.
    looks: u32,
    /// Whether the last look failed, so that a failure is logged once.
    failing: bool,
}

impl Pods {
    /// Listens in the host's namespace. There are no pods yet.
    pub(super) fn new(
        mut programs: Programs,
        mut namespaces: Namespaces,
        host: Netns,
        known_pods: Arc<KnownPods>,
        nested: Nested,
        hooks: PodHooks,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let location = Location {
            netns: host.id(),
            only: None,
        };
        let host_endpoint = namespaces.join(&mut programs, location, host, AGENT)?;
        programs.publish_host(host_endpoint)?;
        Ok(Self {
            programs,
            namespaces,
            host: location,
            host_endpoint,
            host_published: true,
            known_pods,
            ends: Ends::new()?,
            schedule: Schedule::default(),
            known: HashMap::new(),
            nested,
            hooks,
            metrics,
            is_started: false,
        })
    }

    /// All pods are known that were there before the agent.
    pub(super) fn started(&mut self) {
        self.is_started = true;
    }

    pub(super) fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }

    /// Follows what discovery has seen. Calls `beat` before each step, as all that may take long
    /// do.
    pub(super) fn apply(&mut self, changes: Vec<PodChange>, beat: impl Fn()) {
        for change in changes {
            beat();
            match change {
                PodChange::Appeared(pod) => self.appeared(pod),
                PodChange::ContainerMade(id) => self.container_made(id),
                PodChange::Gone(id) => self.gone(id),
            }
        }
        self.metrics
            .pods
            .set(i64::try_from(self.known.len()).unwrap_or(i64::MAX));
    }

    /// A container is starting in a pod.
    fn container_made(&mut self, id: u64) {
        self.look_afresh(id);
        // The container before this one may have set packet filters up.
        if let Some(location) = self.known.get(&id).and_then(|pod| pod.location) {
            self.refresh(location, Scope::All);
        }
    }

    /// Whether something is not as it should be, and has to be tried again.
    pub(super) fn has_trouble(&self) -> bool {
        !self.host_published || !self.namespaces.troubled().is_empty()
    }

    /// Whether something at a location is to be tried again.
    fn is_troubled(&self, location: Location) -> bool {
        let is_unpublished = location == self.host && !self.host_published;
        is_unpublished || self.namespaces.troubled().contains(&location)
    }

    /// Tries again what is not as it should be: opens listeners that are dead, and sees whether
    /// those can be reached that could not.
    pub(super) fn retry(&mut self, beat: impl Fn()) {
        let mut locations: Vec<_> = self.namespaces.troubled().iter().copied().collect();
        if !self.host_published {
            locations.push(self.host);
        }
        for location in locations {
            beat();
            self.refresh(location, Scope::Unreachable);
        }
    }

    /// Sees whether all listeners can be reached.
    pub(super) fn try_all(&mut self, beat: impl Fn()) {
        for location in self.namespaces.locations() {
            beat();
            self.refresh(location, Scope::All);
        }
    }

    /// Follows the news of a location.
    pub(super) fn handle_news(&mut self, news: News) {
        match news {
            News::Changed(location) => self.refresh(location, Scope::All),
            News::Died(netns) => self.namespaces.reopen_soon(netns),
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
                tracing::warn!(%error, "cannot listen in a network namespace any more; it will be tried again");
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
        self.known_pods.insert(id, known);
        let pod = TrackedPod {
            uid,
            path,
            found: self.is_started.then(Instant::now),
            location: None,
            witness: None,
            end: None,
            is_unwatched: false,
            endpoint: PodEndpoint::default(),
            published: false,
            is_reachable: true,
            is_reported: false,
            look_at: None,
            looks: 0,
            failing: false,
        };
        self.known.insert(id, Box::new(pod));
        self.look_afresh(id);
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
            if pod.location.is_some()
                && let Some(found) = pod.found.take()
            {
                let delay = found.elapsed().as_secs_f64();
                self.metrics.listener_delay.observe(delay);
            }
        }
        Ok(())
    }

    fn gone(&mut self, id: u64) {
        let Some(pod) = self.known.remove(&id) else {
            return;
        };
        self.schedule.change(id, pod.look_at, None);
        if let Err(error) = self.programs.withdraw_pod(id) {
            self.metrics.errors.inc();
            tracing::error!(pod_uid = %pod.uid, %error, "cannot make the kernel forget a pod");
        }
        self.known_pods.remove(id);
        let (programs, namespaces) = (&mut self.programs, &mut self.namespaces);
        let forgotten = self.nested.forget(programs, namespaces, id);
        self.succeeded(forgotten);
        if let Some(location) = pod.location {
            self.namespaces.leave(location, id);
        }
        tracing::debug!(pod_uid = %pod.uid, "a pod is gone");
        if !self.known_pods.has(pod.uid) {
            (self.hooks.gone)(pod.uid);
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
        pod.endpoint = self
            .namespaces
            .join(&mut self.programs, location, netns, id)?;
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
        self.known_pods.insert(id, known);
        let published = self.publish(id);
        self.report_reachable(id);
        if let Some(left) = left {
            self.namespaces.leave(left, id);
        }
        published
    }

    /// Sends the pods of a location elsewhere, then closes what they no longer use.
    fn move_pods(&mut self, location: Location, endpoint: PodEndpoint) {
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
        let nested = self.nested.moved(&mut self.programs, location, endpoint);
        self.succeeded(nested.map(drop));
        for id in self.namespaces.pods_at(location) {
            let Some(pod) = self.known.get_mut(&id) else {
                continue;
            };
            if pod.location != Some(location) {
                continue;
            }
            pod.endpoint = endpoint;
            pod.published = false;
            let published = self.publish(id);
            if !self.succeeded(published) {
                self.look_soon(id);
            }
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
