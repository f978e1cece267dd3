//! The node of a pod, the agents there, and what they say about the pod.

use std::collections::BTreeSet;

use super::{Scene, agent_labels, is_of_aws};
use crate::{
    commands::{self, quoted},
    finding::Finding,
    snapshot::{AgentReport, Node, NodeKind, Pod, Snapshot, role_name, want_agents},
};

pub(super) const NODE: &str = "node";
pub(super) const NAME: &str = "agent";
const REPORT: &str = "agent-report";
const SERVED: &str = "served-role";
const LAST_ERROR: &str = "last-error";

/// The label by which agents are found.
pub(super) const LABEL: &str = "app.kubernetes.io/name";
/// What AWS's own agent has there.
pub(super) const OF_AWS: &str = "eks-pod-identity-agent";

/// Whether the pod is on a node where Pod Identity works.
pub(super) fn node(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(pod) = scene.pod else {
        return Vec::new();
    };
    let Some(name) = &pod.node else {
        let describe = format!(
            "kubectl -n {} describe pod {}",
            quoted(&pod.namespace),
            quoted(&pod.name)
        );
        return vec![Finding::fail(NODE, "it is on no node yet", describe)];
    };
    let Some(node) = scene
        .snapshot
        .nodes
        .as_ref()
        .ok()
        .and_then(|all| all.get(name))
    else {
        return Vec::new();
    };
    vec![match node {
        Node {
            kind: NodeKind::Fargate,
            ..
        } => Finding::fail(
            NODE,
            format!("{name} is one of Fargate's, where Pod Identity does not work"),
            "take it out of the Fargate profile, or give its service account a role by IAM roles \
             for service accounts",
        ),
        Node {
            kind: NodeKind::Windows,
            ..
        } => Finding::fail(
            NODE,
            format!("{name} runs Windows, where Pod Identity does not work"),
            "give its service account a role by IAM roles for service accounts",
        ),
        Node { ready: false, .. } => Finding::fail(
            NODE,
            format!("{name} is not ready"),
            format!("kubectl describe node {}", quoted(name)),
        ),
        _ => Finding::pass(NODE, format!("{name} is ready")),
    }]
}

/// Whether an agent is ready on the pod's node.
pub(super) fn agents(scene: &Scene<'_>) -> Vec<Finding> {
    let node = scene.pod.and_then(|pod| pod.node.as_deref());
    let (Ok(agents), Some(node)) = (&scene.snapshot.agents, node) else {
        return Vec::new();
    };
    // That none can be there is said by another check.
    if scene.snapshot.kind_of(node).is_some_and(has_no_agents) {
        return Vec::new();
    }
    vec![judge(scene.snapshot, agents, node)]
}

fn has_no_agents(kind: NodeKind) -> bool {
    matches!(kind, NodeKind::Fargate | NodeKind::Windows)
}

/// The same for all nodes of a cluster. One without an agent fails where pods with an association
/// are on it.
pub(super) fn nodes(snapshot: &Snapshot) -> Vec<Finding> {
    let (Ok(agents), Ok(nodes)) = (&snapshot.agents, &snapshot.nodes) else {
        return Vec::new();
    };
    let associations = snapshot.associations.as_ref().ok();
    let is_associated = |pod: &&Pod| {
        let account = pod.service_account();
        pod.is_alive() && associations.is_some_and(|all| all.contains_key(&account))
    };
    let pods = snapshot.pods.iter().flatten().filter(is_associated);
    let needed: BTreeSet<&str> = pods.filter_map(|pod| pod.node.as_deref()).collect();
    let with_agent: BTreeSet<&str> = agents.iter().filter_map(|it| it.node.as_deref()).collect();
    let wanted = want_agents(nodes, &with_agent);
    let matters = |name: &str| {
        let mut reasons = [&wanted, &with_agent, &needed].into_iter();
        reasons.any(|all| all.contains(name))
    };
    let judged = nodes
        .iter()
        .filter(|(name, node)| matters(name) && !has_no_agents(node.kind));
    let findings = judged.map(|(name, node)| {
        let mut finding = judge(snapshot, agents, name);
        if !needed.contains(name.as_str()) || !node.ready {
            finding.status = finding.status.min(crate::finding::Status::Warn);
        }
        finding.of(&format!("node {name}"))
    });
    findings.collect()
}

fn judge(snapshot: &Snapshot, agents: &[Pod], node: &str) -> Finding {
    let here = agents.iter().filter(|it| it.node.as_deref() == Some(node));
    let (of_aws, ours): (Vec<&Pod>, Vec<&Pod>) = here.partition(|it| is_of_aws(it));
    let ready = ours.iter().chain(&of_aws).find(|it| it.ready);
    // One of ours that is ready, if there is one.
    let own = ours.iter().find(|it| it.ready).or(ours.first());
    match (ready, own, of_aws.first()) {
        (_, Some(own), Some(other)) if own.ready => Finding::warn(
            NAME,
            format!("{} runs beside podcreds", other.full_name()),
            commands::delete_addon(&snapshot.cluster, OF_AWS),
        ),
        (_, Some(agent), Some(other)) if other.ready => Finding::fail(
            NAME,
            format!(
                "podcreds is not ready, and {} serves its node still",
                other.full_name()
            ),
            format!(
                "kubectl -n {} logs {}, and describe pod",
                quoted(&agent.namespace),
                quoted(&agent.name)
            ),
        ),
        (Some(agent), _, _) => Finding::pass(NAME, format!("{} is ready", agent.full_name())),
        (None, Some(agent), _) | (None, None, Some(agent)) => Finding::fail(
            NAME,
            "the agent on its node is not ready",
            format!(
                "kubectl -n {} logs {}, and describe pod",
                quoted(&agent.namespace),
                quoted(&agent.name)
            ),
        ),
        (None, None, None) => without_agent(snapshot.kind_of(node)),
    }
}

/// What it means that no pod of an agent is on a node of this kind.
fn without_agent(kind: Option<NodeKind>) -> Finding {
    const NONE: &str = "no agent is on the node";
    let daemonset = || {
        let labels = agent_labels("podcreds");
        let labels = quoted(&labels);
        format!("what the DaemonSet says: kubectl get daemonset -A -l {labels}")
    };
    match kind {
        Some(NodeKind::Auto) => Finding::pass(NAME, "EKS Auto Mode has an agent of its own"),
        Some(NodeKind::Hybrid) => Finding::fail(
            NAME,
            format!("{NONE}, which is a hybrid one"),
            format!(
                "set the chart's daemonsets.hybrid.create (or hybrid-bottlerocket), without which \
                 it leaves such nodes out, and see {}",
                daemonset()
            ),
        ),
        Some(_) => Finding::fail(
            NAME,
            NONE,
            format!("see the taints of the node, and {}", daemonset()),
        ),
        // It may be one of Auto Mode's.
        None => Finding::warn(
            NAME,
            format!("{NONE} as a pod"),
            format!(
                "see whether EKS Auto Mode runs the node, which has an agent of its own; else see \
                 {}",
                daemonset()
            ),
        ),
    }
}

/// What the agent itself says.
pub(super) fn report(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(Ok(AgentReport {
        findings,
        role,
        last_error,
    })) = &scene.snapshot.agent_report
    else {
        return Vec::new();
    };
    let mut all: Vec<_> = findings
        .iter()
        .map(|it| {
            let seen = format!("{}: {}", it.check, it.seen);
            match it.has_failed {
                true => Finding::fail(REPORT, seen, &it.remedy),
                false => Finding::warn(REPORT, seen, &it.remedy),
            }
        })
        .collect();
    if all.is_empty() {
        all.push(Finding::pass(REPORT, "the agent finds nothing wrong"));
    }
    if let Some(error) = last_error {
        all.push(Finding::warn(
            LAST_ERROR,
            error,
            "it may be mended already: kubectl podcreds refresh asks EKS Auth again",
        ));
    }
    all.extend(served(scene, role.as_deref()));
    all
}

/// Whether the role that the pod has been given is the association's.
fn served(scene: &Scene<'_>, role: Option<&str>) -> Option<Finding> {
    let details = scene.details()?;
    let wanted = details.target_role.as_ref().unwrap_or(&details.role);
    // An assumed role is named without the role's path.
    let served = role?.rsplit('/').next()?;
    let wanted = role_name(wanted)?;
    Some(match served == wanted {
        true => Finding::pass(SERVED, format!("it has been given {wanted}")),
        false => Finding::fail(
            SERVED,
            format!("it still has {served}, and the association says {wanted}"),
            format!(
                "kubectl podcreds refresh {}",
                quoted(&scene.account.to_string())
            ),
        ),
    })
}
