//! Which listeners can be reached, for two agents of which one is about to leave: no pod is to be
//! sent to the other one before that can be reached there too.

use std::collections::HashSet;

use podcreds_common::{EVENT_FOREIGN_NETNS, KernelEvent, NestedKey, PodEndpoint};
use podcreds_types::ReachedListeners;

use super::{AGENT, Pods};
use crate::{
    namespaces::{location::Location, namespace::Scope},
    pods::processes,
};

impl Pods {
    /// The listeners that pods are sent to and reach. Not those of pods that have no process left
    /// in their namespace: another agent cannot find that. Pods in the host's namespace are served
    /// by the listeners there, also where they have some of their own.
    pub(crate) fn reached(&mut self) -> Vec<ReachedListeners> {
        let nested = self.nested.published().into_iter();
        let own = self.known.iter().filter(|(_, pod)| pod.published);
        let own = own.filter(|(_, pod)| {
            let last = pod.witness.as_ref();
            last.is_some_and(|last| processes::is_in_use(&pod.path, last))
        });
        let own = own.map(|(id, pod)| reached_at(*id, pod.endpoint, None));
        let nested =
            nested.map(|(key, endpoint, process)| reached_at(key.pod, endpoint, Some(process)));
        let host = self.host_published.then_some(self.host_endpoint);
        let host = host.map(|endpoint| reached_at(AGENT, endpoint, None));
        let all = own.chain(nested).chain(host);
        all.filter(|it| it.v4 || it.v6).collect()
    }

    /// Whether a pod is sent to listeners of this agent from there, and reaches them. One that is
    /// not known is gone, or nobody has looked for it.
    pub(crate) fn reaches(&self, listeners: &ReachedListeners) -> bool {
        let ReachedListeners { pod, netns, .. } = *listeners;
        if pod != AGENT && !self.known.contains_key(&pod) {
            return true;
        }
        self.endpoint_in(pod, netns)
            .map(|endpoint| reached_at(pod, endpoint, None))
            .is_some_and(|here| (here.v4 || !listeners.v4) && (here.v6 || !listeners.v6))
    }

    /// Goes after listeners that are not reached: looks where their pods are, and tries those again
    /// that could not be reached before. What nobody asks about has its own time.
    pub(crate) fn retry_unreached(&mut self, unreached: &[ReachedListeners], beat: impl Fn()) {
        for listeners in unreached {
            beat();
            self.look_for(listeners);
        }
        let locations = unreached.iter();
        let locations = locations.filter_map(|listeners| self.location_of(listeners));
        for location in locations.collect::<HashSet<_>>() {
            if self.is_troubled(location) {
                beat();
                self.refresh(location, Scope::Unreachable);
            }
        }
    }

    /// Looks where a pod is.
    fn look_for(&mut self, listeners: &ReachedListeners) {
        let ReachedListeners { pod, netns, .. } = *listeners;
        let known = self.known.get(&pod);
        let is_located = known.is_some_and(|pod| pod.location.is_some());
        match listeners.process {
            // It is not known yet where the pod is. Were it looked at afresh each time, it would
            // never become known that it is in the host's namespace.
            Some(_) if !is_located => self.look_soon(pod),
            // As if it had asked for credentials there. It has not, so nobody is told that it has.
            Some(thread) => self.follow(&KernelEvent {
                pod,
                netns,
                thread,
                port: 0,
                kind: EVENT_FOREIGN_NETNS,
            }),
            None => self.look_afresh(pod),
        }
    }

    /// Where this agent listens in their place, if it does.
    fn location_of(&self, listeners: &ReachedListeners) -> Option<Location> {
        let ReachedListeners { pod, netns, .. } = *listeners;
        let own = self.known.get(&pod);
        let own = own.filter(|own| own.endpoint.netns == netns);
        let is_host = self.host_endpoint.netns == netns;
        own.and_then(|own| own.location)
            .or(is_host.then_some(self.host))
            .or_else(|| self.nested.location(NestedKey { pod, netns }))
    }

    /// Where the programs send a pod's calls from a namespace, as they choose it.
    fn endpoint_in(&self, pod: u64, netns: u64) -> Option<PodEndpoint> {
        let own = self.known.get(&pod).filter(|pod| pod.published);
        let own = own.map(|pod| pod.endpoint);
        let host = self.host_published.then_some(self.host_endpoint);
        let is_there = |endpoint: &PodEndpoint| endpoint.netns == netns;
        own.filter(is_there)
            .or(host.filter(is_there))
            .or_else(|| self.nested.published_at(NestedKey { pod, netns }))
    }
}

fn reached_at(pod: u64, endpoint: PodEndpoint, process: Option<u32>) -> ReachedListeners {
    ReachedListeners {
        pod,
        netns: endpoint.netns,
        v4: endpoint.port4 != 0,
        v6: endpoint.port6 != 0,
        process,
    }
}
