//! Kinds of nodes, and who gives them an agent.

use super::{healthy::*, of_pod};
use crate::{
    checks,
    finding::{Report, Status},
    snapshot::{Missing, NodeKind, Snapshot},
};

/// The healthy cluster on a node of this kind, on which no pod is an agent.
fn without_agent(kind: NodeKind) -> Snapshot {
    let mut snapshot = healthy();
    node(&mut snapshot).kind = kind;
    snapshot.agents = Ok(Vec::new());
    snapshot.agent_report = None;
    snapshot
}

fn of_cluster(snapshot: &Snapshot) -> Report {
    Report::new("cluster prod", checks::cluster(snapshot))
}

#[test]
fn auto_mode_serves_its_pods_without_an_agent_that_is_a_pod() {
    let mut snapshot = without_agent(NodeKind::Auto);
    let report = of_pod(&snapshot);
    assert_eq!(report.worst, Status::Pass, "{report:?}");
    let agent = report.checks.iter().find(|it| it.check == "agent").unwrap();
    assert_eq!(agent.seen, "EKS Auto Mode has an agent of its own");
    let report = of_cluster(&snapshot);
    assert_eq!(report.worst, Status::Pass, "{report:?}");
    // At the host's address, where a network policy counts.
    snapshot.network_policies = Ok(vec![policy(false)]);
    assert_eq!(of_pod(&snapshot).first_cause, Some("network"));
    // One of podcreds that somebody has put there is looked at.
    snapshot.network_policies = Ok(Vec::new());
    snapshot.agents = Ok(vec![agent_of("podcreds", false)]);
    assert_eq!(of_cluster(&snapshot).first_cause, Some("agent"));
}

#[test]
fn a_hybrid_node_needs_an_agent_that_the_chart_leaves_out() {
    let snapshot = without_agent(NodeKind::Hybrid);
    for report in [of_pod(&snapshot), of_cluster(&snapshot)] {
        assert_eq!(
            (report.worst, report.first_cause),
            (Status::Fail, Some("agent"))
        );
        let remedy = report.checks[0].remedy.as_deref().unwrap();
        assert!(remedy.contains("daemonsets.hybrid.create"), "{remedy}");
    }
}

#[test]
fn where_no_agent_can_be_the_node_alone_is_named() {
    for kind in [NodeKind::Fargate, NodeKind::Windows] {
        let report = of_pod(&without_agent(kind));
        let failed = report.checks.iter().filter(|it| it.status == Status::Fail);
        let failed: Vec<_> = failed.map(|it| it.check).collect();
        assert_eq!(failed, ["node"]);
    }
}

#[test]
fn where_nodes_must_not_be_listed_nothing_is_claimed_of_their_agents() {
    let mut snapshot = without_agent(NodeKind::Auto);
    snapshot.nodes = Err(Missing {
        what: text("nodes"),
        why: text("nodes is forbidden"),
        needs: Some(text("to list nodes")),
    });
    let report = of_pod(&snapshot);
    assert_eq!(
        (report.worst, report.first_cause),
        (Status::Warn, Some("agent"))
    );
}

#[test]
fn an_agent_with_the_name_of_awss_chart_is_ours() {
    let mut snapshot = healthy();
    let mut own = agent_of("podcreds", true);
    own.labels = agent_of("eks-pod-identity-agent", true).labels;
    snapshot.agents = Ok(vec![own]);
    snapshot.network_policies = Ok(vec![policy(false)]);
    // A network policy would keep pods from AWS's.
    let report = of_pod(&snapshot);
    assert_eq!(report.worst, Status::Pass, "{report:?}");
    let official = agent_of("eks-pod-identity-agent", true);
    snapshot.agents.as_mut().unwrap().push(official);
    let report = of_pod(&snapshot);
    assert!(
        report.checks[0].seen.ends_with("runs beside podcreds"),
        "{report:?}"
    );
}
