//! Pods' listeners in network namespaces that are not the pods' own.
//!
//! A container that a pod runs itself (Docker in Docker, a runner's job) is in the pod's cgroup,
//! and in a network namespace that the pod has made. When such a process asks for
//! credentials, the programs say so, and the agent listens for that pod in that namespace, so that
//! the next try is redirected like any other. The cgroup still says who is calling: a
//! listener of one pod's is of no use to another.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use podcreds_common::{KernelEvent, MAX_NESTED, NestedKey, PodEndpoint};

use crate::{
    accept::NestedRegistry,
    namespaces::{Namespaces, location::Location, netns::current_cookie},
    pods::processes::{self, Witness},
    programs::Programs,
};

/// How many namespaces of one pod are listened in. A container more than that is served on the node
/// path.
const MAX_PER_POD: usize = 16;

/// How often the agent looks whether a process is left in a namespace, which it keeps alive until
/// then.
const LOOK: Duration = Duration::from_secs(2);

/// All such namespaces.
pub(crate) struct Nested {
    open: HashMap<NestedKey, NestedListeners>,
    registry: Arc<NestedRegistry>,
    look_at: Instant,
}

/// One namespace, with the listeners of one pod.
struct NestedListeners {
    location: Location,
    endpoint: PodEndpoint,
    /// The pod's cgroup.
    pod: Arc<Path>,
    /// A process of the pod that is in it.
    witness: Witness,
    /// Whether the programs know.
    published: bool,
}

impl Nested {
    pub(crate) fn new(registry: Arc<NestedRegistry>) -> Self {
        Self {
            open: HashMap::new(),
            registry,
            look_at: Instant::now(),
        }
    }

    /// When [`Self::look`] has something to do.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        (!self.open.is_empty()).then_some(self.look_at)
    }

    /// Listens where a process of the pod whose cgroup is at `pod` has asked from, unless that is
    /// full, it is gone, or is in a pod's own namespace or the host's.
    pub(crate) fn serve(
        &mut self,
        programs: &mut Programs,
        namespaces: &mut Namespaces,
        event: &KernelEvent,
        pod: &Arc<Path>,
    ) -> io::Result<()> {
        let key = NestedKey {
            pod: event.pod,
            netns: event.netns,
        };
        if self.open.contains_key(&key) || self.is_full(event.pod) {
            return Ok(());
        }
        let Some((netns, witness)) = processes::witness(pod, event.thread) else {
            return Ok(());
        };
        // A process that enters another pod's namespace is not to be served there.
        if namespaces.is_own(netns.id()) {
            return Ok(());
        }
        // A socket need not be of the namespace that its process is in.
        if netns.run(current_cookie)? != event.netns {
            return Ok(());
        }
        let location = Location {
            netns: netns.id(),
            only: Some(event.pod),
        };
        let endpoint = namespaces.join(programs, location, netns, event.pod)?;
        tracing::debug!(
            cgroup = event.pod,
            netns = event.netns,
            port4 = endpoint.port4,
            "listening for a pod in a network namespace inside of it"
        );
        let listeners = NestedListeners {
            location,
            endpoint,
            pod: Arc::clone(pod),
            witness,
            published: false,
        };
        self.open.insert(key, listeners);
        // The acceptor must know the namespace before the kernel redirects to it.
        self.registry.insert(key, ());
        self.publish(programs, key)
    }

    /// All that the programs know of, with a process of the pod that is there.
    pub(crate) fn published(&mut self) -> Vec<(NestedKey, PodEndpoint, u32)> {
        let open = self.open.iter_mut();
        let used = open.filter_map(|(key, listeners)| {
            // The process that has asked may have ended since.
            let is_there = listeners.published && listeners.is_used();
            is_there.then(|| (*key, listeners.endpoint, listeners.witness.pid()))
        });
        used.collect()
    }

    /// One of them.
    pub(crate) fn published_at(&self, key: NestedKey) -> Option<PodEndpoint> {
        let open = self.open.get(&key).filter(|listeners| listeners.published);
        open.map(|listeners| listeners.endpoint)
    }

    /// Where one of them is, whether or not the programs know.
    pub(crate) fn location(&self, key: NestedKey) -> Option<Location> {
        self.open.get(&key).map(|listeners| listeners.location)
    }

    fn is_full(&self, pod: u64) -> bool {
        let of_pod = self.open.keys().filter(|key| key.pod == pod).count();
        of_pod >= MAX_PER_POD || self.open.len() >= MAX_NESTED
    }

    fn publish(&mut self, programs: &mut Programs, key: NestedKey) -> io::Result<()> {
        if let Some(listeners) = self.open.get_mut(&key)
            && !listeners.published
        {
            programs.publish_nested(key, listeners.endpoint)?;
            listeners.published = true;
        }
        Ok(())
    }

    /// Sends a pod to where its listeners have moved. False if there are none of these at this
    /// location.
    pub(crate) fn moved(
        &mut self,
        programs: &mut Programs,
        location: Location,
        endpoint: PodEndpoint,
    ) -> io::Result<bool> {
        let mut open = self.open.iter_mut();
        let Some((key, listeners)) = open.find(|(_, listeners)| listeners.location == location)
        else {
            return Ok(false);
        };
        listeners.endpoint = endpoint;
        listeners.published = false;
        let key = *key;
        self.publish(programs, key)?;
        Ok(true)
    }

    /// Closes what no process of the pod is in any more, and publishes what could not be published.
    pub(crate) fn look(
        &mut self,
        programs: &mut Programs,
        namespaces: &mut Namespaces,
    ) -> io::Result<()> {
        let now = Instant::now();
        if now < self.look_at {
            return Ok(());
        }
        self.look_at = now + LOOK;
        let mut result = Ok(());
        for key in self.open.keys().copied().collect::<Vec<_>>() {
            let is_used = self
                .open
                .get_mut(&key)
                .is_some_and(NestedListeners::is_used);
            let looked = if is_used {
                self.publish(programs, key)
            } else {
                self.close(programs, namespaces, key)
            };
            result = result.and(looked);
        }
        result
    }

    /// Closes all of a pod's.
    pub(crate) fn forget(
        &mut self,
        programs: &mut Programs,
        namespaces: &mut Namespaces,
        pod: u64,
    ) -> io::Result<()> {
        let keys = self.open.keys().copied().filter(|key| key.pod == pod);
        let mut result = Ok(());
        for key in keys.collect::<Vec<_>>() {
            result = result.and(self.close(programs, namespaces, key));
        }
        result
    }

    fn close(
        &mut self,
        programs: &mut Programs,
        namespaces: &mut Namespaces,
        key: NestedKey,
    ) -> io::Result<()> {
        let withdrawn = programs.withdraw_nested(key);
        self.registry.remove(&key);
        if let Some(listeners) = self.open.remove(&key) {
            namespaces.leave(listeners.location, key.pod);
        }
        withdrawn
    }
}

impl NestedListeners {
    /// Whether a process of the pod is in the namespace. There may be one that is not found, which
    /// is then served when it asks again.
    fn is_used(&mut self) -> bool {
        if self.witness.stands(&self.pod) {
            return true;
        }
        match processes::another_witness(&self.pod, self.location.netns) {
            Some(witness) => {
                self.witness = witness;
                true
            }
            None => false,
        }
    }
}
