//! Network policies, which the node path needs and the in-pod path does not.

use super::{Scene, is_of_aws};
use crate::{commands::quoted, finding::Finding, snapshot::NodeKind};

pub(super) const NAME: &str = "network";

pub(super) fn policies(scene: &Scene<'_>) -> Vec<Finding> {
    let (Ok(policies), Some(pod)) = (&scene.snapshot.network_policies, scene.pod) else {
        return Vec::new();
    };
    let chosen = policies.iter().filter(|policy| {
        let selects = policy.selects.as_ref();
        let fits = |labels: &std::collections::BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(key, value)| pod.labels.get(key) == Some(value))
        };
        policy.namespace == pod.namespace && policy.limits_egress && selects.is_some_and(fits)
    });
    let chosen: Vec<_> = chosen.collect();
    let Some(first) = chosen.first() else {
        return Vec::new();
    };
    // What one policy allows, the others do not take away.
    if chosen.iter().any(|policy| policy.allows_agent) {
        return vec![Finding::pass(
            NAME,
            "a network policy lets it reach the agent",
        )];
    }
    let node = pod.node.as_deref();
    let is_auto = node.and_then(|it| scene.snapshot.kind_of(it)) == Some(NodeKind::Auto);
    let Ok(agents) = &scene.snapshot.agents else {
        return Vec::new();
    };
    let here: Vec<_> = agents
        .iter()
        .filter(|it| it.node.as_deref() == node)
        .collect();
    // That no agent is there is said by another check. Auto Mode's is at the host's address, and no
    // pod.
    if here.is_empty() && !is_auto {
        return Vec::new();
    }
    if here.iter().any(|agent| !is_of_aws(agent)) {
        let seen = format!(
            "{} forbids 169.254.170.23, which does not matter: podcreds listens inside the pod",
            first.name
        );
        return vec![Finding::pass(NAME, seen)];
    }
    vec![Finding::fail(
        NAME,
        format!("the network policy {} keeps it from the agent", first.name),
        format!(
            "allow egress to 169.254.170.23/32, port 80: kubectl -n {} edit networkpolicy {}",
            quoted(&first.namespace),
            quoted(&first.name)
        ),
    )]
}
