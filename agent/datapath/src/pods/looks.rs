//! Looks at pods' processes: when, and what follows.
//!
//! A pod is looked at when something happens to it, and again after 1, 2, 4, ... ms and at last
//! every ten seconds, until the process is found that shows its network namespace. From then on the
//! kernel reports when that process ends, and nothing is looked at before.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{Pods, TrackedPod};
use crate::{
    namespaces::{location::Location, netns::Netns},
    pods::processes::{self, NetnsSearch},
};

/// How soon after the first look the next one follows. The delay then doubles.
const FIRST_DELAY: Duration = Duration::from_millis(1);
/// The longest delay.
const LAST_DELAY: Duration = Duration::from_secs(10);
/// How many looks it takes until the delay is a second.
const LOOKS_TO_A_SECOND: u32 = 10;
/// How many looks there are: for the first quarter of a minute with growing delays, then for two
/// more minutes. A process that comes later comes with a container, which is an event.
const MOST_LOOKS: u32 = 14 + 12;

/// How long a pod's processes are all in the host's namespace before it counts as a hostNetwork
/// pod. A container runtime's helper is there for milliseconds.
const HOST_PATIENCE: Duration = Duration::from_millis(500);

/// Why a pod's network namespace may not be found.
const INVISIBLE: &str = "its processes cannot be seen: the agent must run in the host's PID \
    namespace (hostPID: true)";

impl TrackedPod {
    /// How long the next look is put off.
    fn delay(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.looks).unwrap_or(u32::MAX);
        FIRST_DELAY.saturating_mul(doubled).min(LAST_DELAY)
    }

    /// Whether it is not to be looked at before something happens.
    fn is_settled(&self) -> bool {
        let is_done = self.end.is_some() || self.looks >= MOST_LOOKS;
        is_done && !self.failing && !self.is_unwatched
    }
}

impl Pods {
    /// When [`Self::look`] has something to do.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let pods = self.schedule.next();
        pods.into_iter().chain(self.nested.next_look()).min()
    }

    /// Looks at the processes of the pods that are due, and listens where they are.
    pub(crate) fn look(&mut self, beat: impl Fn()) {
        let looked = self.nested.look(&mut self.programs, &mut self.namespaces);
        self.succeeded(looked);
        let now = Instant::now();
        for id in self.schedule.due(now) {
            beat();
            let result = self.follow_namespace(id).and_then(|()| self.publish(id));
            self.looked(id, now, &result);
        }
    }

    /// Notes a look's result, and when the next one is due.
    fn looked(&mut self, id: u64, at: Instant, result: &io::Result<()>) {
        let Some(pod) = self.known.get_mut(&id) else {
            return;
        };
        if let Err(error) = result {
            self.metrics.errors.inc();
            if !pod.failing {
                tracing::warn!(pod_uid = %pod.uid, %error,
                    "a pod cannot be served yet; it will be tried again");
            }
        }
        pod.failing = result.is_err();
        let next = (!pod.is_settled()).then(|| at + pod.delay());
        pod.looks = pod.looks.saturating_add(1);
        self.schedule_look(id, next);
    }

    /// Looks at a pod's processes at once: something has happened to it.
    pub(super) fn look_afresh(&mut self, id: u64) {
        if let Some(pod) = self.known.get_mut(&id) {
            pod.looks = 0;
            self.schedule_look(id, Some(Instant::now()));
        }
    }

    /// Looks at a pod's processes within a second: something has happened that the pod itself can
    /// bring about. However often it does, it is looked at once a second.
    pub(super) fn look_soon(&mut self, id: u64) {
        let Some(pod) = self.known.get_mut(&id) else {
            return;
        };
        pod.looks = pod.looks.min(LOOKS_TO_A_SECOND);
        let at = Instant::now() + pod.delay();
        let at = pod.look_at.map_or(at, |before| before.min(at));
        self.schedule_look(id, Some(at));
    }

    /// Looks once at each pod that waits for an event: events have been lost, or may have been.
    pub(crate) fn look_at_unsettled(&mut self) {
        let now = Instant::now();
        let waits = |pod: &TrackedPod| pod.end.is_none() && pod.look_at.is_none();
        let waiting = self.known.iter().filter(|(_, pod)| waits(pod));
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.schedule_look(id, Some(now));
        }
    }

    /// Waits until witnesses have ended. Cancel-safe.
    pub(crate) async fn next_ends(&self) -> io::Result<Vec<u64>> {
        self.ends.next().await
    }

    /// Follows the end of pods' witnesses.
    pub(crate) fn handle_ends(&mut self, pods: Vec<u64>) {
        for id in pods {
            if let Some(pod) = self.known.get_mut(&id) {
                pod.end = None;
                self.look_soon(id);
            }
        }
    }

    fn schedule_look(&mut self, id: u64, at: Option<Instant>) {
        if let Some(pod) = self.known.get_mut(&id) {
            let before = std::mem::replace(&mut pod.look_at, at);
            self.schedule.change(id, before, at);
        }
    }

    /// Sees where the pod's processes are now, and listens there.
    fn follow_namespace(&mut self, id: u64) -> io::Result<()> {
        let Some(pod) = self.known.get_mut(&id) else {
            return Ok(());
        };
        pod.is_unwatched = false;
        let host = self.host.netns;
        // A queue of its own, so that it need not stand in one with the other hostNetwork pods.
        let in_host = Location {
            netns: host,
            only: Some(id),
        };
        let was_in_host = pod.location == Some(in_host);
        match processes::own_netns(&pod.path, host, pod.witness.as_ref(), was_in_host) {
            NetnsSearch::Found(netns, witness) => {
                let location = Location {
                    netns: netns.id(),
                    only: None,
                };
                self.settle(id, location, netns)?;
                if let Some(pod) = self.known.get_mut(&id) {
                    pod.witness = Some(witness);
                    pod.end = None;
                }
                self.watch_end(id);
                Ok(())
            }
            NetnsSearch::Host => {
                // Who spoke for another namespace is not there any more, or has ended. It may only
                // have passed through it.
                pod.end = None;
                if pod.witness.take().is_some() || pod.delay() <= HOST_PATIENCE {
                    return Ok(());
                }
                self.settle(id, in_host, Netns::of_agent()?)
            }
            NetnsSearch::Same => {
                self.watch_end(id);
                Ok(())
            }
            NetnsSearch::Nothing => Ok(()),
            NetnsSearch::Invisible => Err(io::Error::other(INVISIBLE)),
        }
    }

    /// Waits for the end of a pod's witness. Where that cannot be, the pod is looked at again and
    /// again.
    fn watch_end(&mut self, id: u64) {
        if let Some(pod) = self.known.get_mut(&id)
            && let Some(witness) = &pod.witness
            && pod.end.is_none()
        {
            match self.ends.watch(witness, &pod.path, id) {
                Ok(end) => pod.end = Some(end),
                Err(error) => {
                    pod.is_unwatched = true;
                    tracing::debug!(pod_uid = %pod.uid, %error,
                        "cannot wait for the end of a pod's process");
                }
            }
        }
    }
}
