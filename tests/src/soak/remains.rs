//! What an agent has while there are no pods, and must have again once they have gone.

use std::time::Duration;

use crate::{
    agent::{Agent, Usage},
    wait::poll,
};

/// How long the agent may take to let go of what it had.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections to EKS Auth are kept for a while when they are idle.
const IDLE_CONNECTIONS: usize = 40;
/// What the allocator keeps of freed memory, and what a debug build has read of its program, in
/// bytes.
const KEPT_MEMORY: u64 = 24 << 20;

/// What is counted.
pub(super) struct Remains(Usage);

impl Remains {
    /// What an agent has that has not served anybody yet.
    pub(super) fn of(agent: &Agent) -> Self {
        Self(agent.usage())
    }

    /// Waits until an agent has no more than that.
    pub(super) fn wait_for(&self, agent: &Agent) -> Result<(), String> {
        let mut left = String::new();
        let met = poll(PATIENCE, || {
            left = self.left(agent);
            left.is_empty().then_some(())
        });
        match met {
            Some(()) => Ok(()),
            None => Err(format!("without pods the agent still has {left}")),
        }
    }

    fn left(&self, agent: &Agent) -> String {
        let metrics = agent.metrics();
        let now = agent.usage();
        let count = |name: &str| metrics.sum(name, &[]) as u64;
        let rows = [
            ("pods", count("podcreds_pods"), 0),
            ("namespaces", count("podcreds_network_namespaces"), 1),
            ("cached entries", count("podcreds_cache_entries"), 0),
            ("pods in the kernel", agent.map_entries("PODS") as u64, 0),
            ("threads", now.threads, self.0.threads),
            (
                "descriptors",
                now.descriptors as u64,
                (self.0.descriptors + IDLE_CONNECTIONS) as u64,
            ),
            (
                "bytes of memory",
                now.resident,
                self.0.resident + KEPT_MEMORY,
            ),
        ];
        let left = rows.iter().filter(|(_, has, most)| has > most);
        let left = left.map(|(what, has, most)| format!("{has} {what} (at most {most})"));
        left.collect::<Vec<_>>().join(", ")
    }
}
