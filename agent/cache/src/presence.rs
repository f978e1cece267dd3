//! Which pods are on the node, as far as the agent knows: nothing is kept for one that is gone.

use std::{sync::OnceLock, time::Duration};

use podcreds_types::{PodUid, SharedMap};

use crate::Subject;

/// How long after a pod has gone its last processes may still ask.
const LAST_REQUESTS: Duration = Duration::from_secs(60);

/// The pods that the datapath sees, or, where it sees none, the pods that have gone lately.
#[derive(Default)]
pub(crate) struct Presence {
    is_on_node: OnceLock<Box<dyn Fn(PodUid) -> bool + Send + Sync>>,
    /// When they went, as the time since the machine started.
    gone: SharedMap<PodUid, Duration>,
}

impl Presence {
    /// From now on, believes this account of the pods on the node. The first one stays.
    pub(crate) fn trust(&self, is_on_node: impl Fn(PodUid) -> bool + Send + Sync + 'static) {
        let _ = self.is_on_node.set(Box::new(is_on_node));
    }

    /// Whether a subject's credentials may be kept. A pod that has come back is there.
    pub(crate) fn has(&self, subject: &Subject) -> bool {
        match (subject, self.is_on_node.get()) {
            (Subject::Pod(pod), Some(is_on_node)) => is_on_node(*pod),
            (Subject::Pod(pod), None) => !self.gone.contains_key(pod),
            (Subject::Token(_), _) => true,
        }
    }

    /// Notes that a pod has gone.
    pub(crate) fn note_gone(&self, pod: PodUid, now: Duration) {
        if self.is_on_node.get().is_none() {
            self.gone.insert(pod, now);
        }
    }

    /// Forgets those that have been gone for long.
    pub(crate) fn sweep(&self, now: Duration) {
        self.gone
            .retain(|_, went| now.saturating_sub(*went) < LAST_REQUESTS);
    }

    /// How long until there is something to forget.
    pub(crate) fn next_sweep(&self, now: Duration) -> Option<Duration> {
        let ends = self.gone.iter().map(|went| *went.value() + LAST_REQUESTS);
        ends.min().map(|end| end.saturating_sub(now))
    }
}
