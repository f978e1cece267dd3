//! Follows the events that the programs report.

use std::{collections::HashSet, io, sync::Arc};

use podcreds_common::{
    Counter, EVENT_BOUND_TO_DEVICE, EVENT_FOREIGN_NETNS, EVENT_PORT_WANTED, EVENT_UNKNOWN_POD,
    KernelEvent,
};
use podcreds_types::CallerId;

use super::{NotRedirected, Pods, TrackedPod};
use crate::{metrics::outcome, namespaces::namespace::Scope, pods::processes};

impl Pods {
    /// Follows what the programs have reported.
    pub(crate) fn handle_events(&mut self, events: &[KernelEvent], beat: impl Fn()) {
        for event in events {
            self.report_not_redirected(event);
        }
        for event in to_follow(events) {
            beat();
            self.follow(event);
        }
    }

    /// Does what an event asks for, whether it is the programs' or another agent's.
    pub(super) fn follow(&mut self, event: &KernelEvent) {
        let result = match event.kind {
            EVENT_FOREIGN_NETNS => self.serve_nested(event),
            EVENT_BOUND_TO_DEVICE => self.leave_alone(event),
            EVENT_PORT_WANTED => {
                self.give_up_port(event);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            self.metrics.errors.inc();
            tracing::debug!(%error, ?event, "an event of the kernel's cannot be followed");
        }
    }

    /// Says whose connect was left alone, where it was.
    fn report_not_redirected(&self, event: &KernelEvent) {
        let pod = self.known.get(&event.pod).map(Box::as_ref);
        let (counter, caller) = match event.kind {
            // Or its own is not known yet, or not at that moment: that is over by the next try.
            EVENT_FOREIGN_NETNS => {
                let is_foreign =
                    |pod: &&TrackedPod| pod.location.is_some() && pod.endpoint.netns != event.netns;
                (Counter::ForeignNetns, pod.filter(is_foreign).map(named))
            }
            EVENT_BOUND_TO_DEVICE => (Counter::BoundToDevice, pod.map(named)),
            EVENT_UNKNOWN_POD => (Counter::UnknownPod, Some(process(event.thread))),
            _ => return,
        };
        // A pod may be gone by now.
        if let Some((caller, about)) = caller {
            (self.hooks.not_redirected)(NotRedirected {
                caller,
                outcome: outcome(counter),
                about,
            });
        }
    }

    /// Listens for a pod in a namespace that is not its own.
    fn serve_nested(&mut self, event: &KernelEvent) -> io::Result<()> {
        let Some(pod) = self.known.get(&event.pod) else {
            return Ok(());
        };
        let path = Arc::clone(&pod.path);
        if pod.location.is_none() {
            // It may be the pod's own, which is not known yet.
            self.look_afresh(event.pod);
            return Ok(());
        }
        // Or it is, and the pod's process has gone there from where it was.
        if !pod.witness.is_some_and(|witness| witness.stands(&path)) {
            self.look_soon(event.pod);
        }
        let (programs, namespaces) = (&mut self.programs, &mut self.namespaces);
        self.nested.serve(programs, namespaces, event, &path)
    }

    /// Says that a pod will come to the node path, since the loopback is not for the socket that it
    /// has.
    fn leave_alone(&self, event: &KernelEvent) -> io::Result<()> {
        let Some((pod, location)) = self
            .known
            .get(&event.pod)
            .and_then(|pod| Some((pod, pod.location?)))
        else {
            return Ok(());
        };
        let addresses = self.namespaces.addresses(location)?;
        (self.hooks.left_alone)(pod.uid, addresses);
        Ok(())
    }

    /// Moves the listeners from a port that an application wants. What cannot be moved now is tried
    /// again.
    fn give_up_port(&mut self, event: &KernelEvent) {
        for location in self.namespaces.give_up_port(event.netns, event.port) {
            self.refresh(location, Scope::Unreachable);
        }
    }

    /// Reports when a pod can no longer, or can again, come by its own listeners.
    pub(super) fn report_reachable(&mut self, id: u64) {
        let Some(pod) = self.known.get_mut(&id) else {
            return;
        };
        let is_reachable = pod.endpoint.port4 != 0;
        if is_reachable == pod.is_reachable {
            return;
        }
        pod.is_reachable = is_reachable;
        (self.hooks.reachable)(pod.uid, is_reachable);
        if is_reachable {
            tracing::debug!(pod_uid = %pod.uid, "a pod can reach its listener");
        } else if !std::mem::replace(&mut pod.is_reported, true) {
            // It can change its mind as often as it likes: once is enough.
            tracing::warn!(pod_uid = %pod.uid, "a pod cannot reach its listener: its lo is down or has no \
                address, or a packet filter stands between. It is left to the node path");
        }
    }
}

/// Of each kind one event for each pod, since a pod can cause any number of them. What is left out
/// happens again with the client's next try.
fn to_follow(events: &[KernelEvent]) -> impl Iterator<Item = &KernelEvent> {
    let mut seen = HashSet::new();
    let is_to_be_followed = move |event: &&KernelEvent| {
        // A port is reported once, and of nobody in particular.
        event.kind == EVENT_PORT_WANTED || seen.insert((event.pod, event.kind))
    };
    events.iter().filter(is_to_be_followed)
}

fn named(pod: &TrackedPod) -> (CallerId, Option<Arc<str>>) {
    (CallerId::Pod(pod.uid), None)
}

/// A process that is in no known pod, and what it is. It may have ended.
fn process(id: u32) -> (CallerId, Option<Arc<str>>) {
    (CallerId::Process(id), processes::about(id).map(Arc::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_causes_many_events_takes_one_turn_in_each_batch() {
        let event = |kind, pod, port| KernelEvent {
            pod,
            netns: u64::from(port),
            thread: 1,
            port,
            kind,
        };
        let mut events: Vec<_> = (0..20)
            .map(|netns| event(EVENT_FOREIGN_NETNS, 1, netns))
            .collect();
        events.extend([
            event(EVENT_BOUND_TO_DEVICE, 1, 20),
            event(EVENT_FOREIGN_NETNS, 2, 21),
            event(EVENT_PORT_WANTED, 0, 22),
            event(EVENT_PORT_WANTED, 0, 23),
            event(EVENT_BOUND_TO_DEVICE, 1, 24),
        ]);
        let followed: Vec<_> = to_follow(&events).map(|event| event.port).collect();
        assert_eq!(followed, [0, 20, 21, 22, 23]);
    }
}
