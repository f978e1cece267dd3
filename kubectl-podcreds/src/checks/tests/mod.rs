//! One mistake at a time is planted into a cluster where all is well, and must be the first cause.

mod healthy;
mod mistakes;
mod nodes;
mod role;

use podcreds_types::sdk::URI;
use serde_json::json;

use crate::{
    checks,
    finding::{Report, Status},
    snapshot::{Container, Missing, Node, NodeKind, Pod, Snapshot},
};
use healthy::*;
use mistakes::{AROUND_IT, OF_THE_POD};

/// What `doctor pod` says.
fn of_pod(snapshot: &Snapshot) -> Report {
    let pod = &snapshot.pods.as_ref().unwrap()[0];
    Report::new("pod shop/web-7f8d-x", checks::pod(snapshot, pod))
}

#[test]
fn each_planted_mistake_is_the_first_cause_and_has_its_remedy() {
    for (at, (plant, cause, remedy)) in OF_THE_POD.iter().chain(&AROUND_IT).enumerate() {
        let mut snapshot = healthy();
        plant(&mut snapshot);
        let report = of_pod(&snapshot);
        assert_eq!(report.first_cause, Some(*cause), "{at}: {report:?}");
        let said = report.checks[0].remedy.as_deref().unwrap();
        assert!(said.contains(remedy), "{at}: {said}");
    }
}

#[test]
fn where_all_is_well_nothing_is_found() {
    let mut snapshot = healthy();
    with_target(&mut snapshot);
    role_of(&mut snapshot, ROLE).boundary = Some(text("arn:aws:iam::1:policy/limit"));
    snapshot.network_policies = Ok(vec![policy(false)]);
    set(&mut snapshot, "HTTP_PROXY", "x");
    set(&mut snapshot, "NO_PROXY", "localhost,169.254.170.23");
    let report = of_pod(&snapshot);
    assert_eq!(report.worst, Status::Pass, "{report:?}");
    let seen = |check: &str| {
        let mut checks = report.checks.iter();
        let found = checks.find(|it| it.check == check);
        found.map(|it| it.seen.clone()).unwrap_or_default()
    };
    assert!(seen("network").contains("does not matter"), "{report:?}");
    assert!(seen("boundary").contains("limits"), "{report:?}");
    let cluster = Report::new("cluster prod", checks::cluster(&snapshot));
    assert_eq!(cluster.worst, Status::Pass, "{cluster:?}");
}

#[test]
fn a_cluster_has_the_mistakes_of_its_pods_nodes_and_associations() {
    for (plant, cause) in [
        (
            (|it| drop(it.accounts.as_mut().unwrap().pop_first())) as fn(&mut Snapshot),
            "account",
        ),
        (|it| it.associations = Ok([].into()), "association"),
        (|it| pod(it).containers[0].env.clear(), "injection"),
        (|it| it.agents = Ok(Vec::new()), "agent"),
        (|it| role_of(it, ROLE).trust = json!({}), "trust"),
    ] {
        let mut snapshot = healthy();
        plant(&mut snapshot);
        let report = Report::new("cluster prod", checks::cluster(&snapshot));
        assert_eq!(report.first_cause, Some(cause), "{report:?}");
        assert_eq!(report.worst, Status::Fail);
    }
}

#[test]
fn pods_that_have_ended_or_have_no_role_say_nothing_of_a_cluster() {
    let mut snapshot = healthy();
    let ended = Pod {
        phase: text("Succeeded"),
        containers: vec![Container::default()],
        ..web()
    };
    let other = Pod {
        account: text("default"),
        containers: vec![Container::default()],
        ..web()
    };
    // It has a server of its own for credentials.
    let mut apart = Pod {
        account: text("default"),
        ..web()
    };
    let elsewhere = Some(text("http://localhost:8080/credentials"));
    apart.containers[0].env.insert(text(URI), elsewhere);
    let all = snapshot.pods.as_mut().unwrap();
    all.extend([ended, other, apart]);
    let report = Report::new("cluster prod", checks::cluster(&snapshot));
    assert_eq!(report.worst, Status::Pass, "{report:?}");
}

#[test]
fn a_node_without_an_agent_fails_only_where_pods_need_one() {
    let mut snapshot = healthy();
    let ready = Node {
        ready: true,
        ..Node::default()
    };
    let nodes = snapshot.nodes.as_mut().unwrap();
    nodes.insert(text("n2"), ready);
    for (name, kind) in [
        ("n3", NodeKind::Fargate),
        ("n4", NodeKind::Auto),
        ("n5", NodeKind::Hybrid),
    ] {
        nodes.insert(text(name), Node { kind, ..ready });
    }
    let report = Report::new("cluster prod", checks::cluster(&snapshot));
    assert_eq!(
        (report.worst, report.first_cause),
        (Status::Warn, Some("agent"))
    );
    assert_eq!(report.checks[0].subject, "node n2");
    assert_eq!(report.checks[1].status, Status::Pass);
}

#[test]
fn what_must_not_be_looked_at_is_said_and_the_rest_goes_on() {
    let denied = || Missing {
        what: text("nodes"),
        why: text("nodes is forbidden"),
        needs: Some(text("to list nodes")),
    };
    let mut snapshot = healthy();
    snapshot.nodes = Err(denied());
    snapshot.network_policies = Err(denied());
    pod(&mut snapshot).containers[0].env.clear();
    let report = of_pod(&snapshot);
    assert_eq!(report.first_cause, Some("injection"));
    let missing: Vec<_> = report
        .checks
        .iter()
        .filter(|it| it.check == "permissions")
        .collect();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0].status, Status::Warn);
    let remedy = missing[0].remedy.as_deref().unwrap();
    assert!(remedy.contains("to list nodes"), "{remedy}");
    // Of a role that cannot be looked at, nothing is claimed.
    let mut snapshot = healthy();
    snapshot.roles = [(text(ROLE), Err(denied()))].into();
    let report = of_pod(&snapshot);
    assert!(report.checks.iter().all(|it| it.check != "trust"));
}

#[test]
fn irsa_without_an_association_is_no_mistake_of_pod_identity() {
    let mut snapshot = healthy();
    snapshot.associations = Ok([].into());
    let all = snapshot.accounts.as_mut().unwrap();
    all.values_mut().next().unwrap().irsa_role = Some(text(ROLE));
    pod(&mut snapshot).containers[0].env.clear();
    let report = of_pod(&snapshot);
    assert_eq!(
        (report.worst, report.first_cause),
        (Status::Warn, Some("association"))
    );
}
