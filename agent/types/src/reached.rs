//! Which in-pod listeners an agent reaches, as two agents of one node say it to each other.

use serde::{Deserialize, Serialize};

/// The listeners to which the calls of one pod from one network namespace are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReachedListeners {
    /// The pod's cgroup id; 0 for all pods in the host's network namespace that have no listeners
    /// of their own there.
    pub pod: u64,
    /// The cookie of the network namespace.
    pub netns: u64,
    /// Whether there is one that is reached over IPv4.
    pub v4: bool,
    /// Whether there is one that is reached over IPv6.
    pub v6: bool,
    /// Where the namespace is not the pod's own but one inside of it: a process of the pod's that
    /// is there.
    pub process: Option<u32>,
}

impl ReachedListeners {
    /// The same listeners, whichever process is in their namespace.
    #[must_use]
    pub fn without_process(self) -> Self {
        Self {
            process: None,
            ..self
        }
    }
}
