//! A cluster where all is well, and how it is changed.

use podcreds_types::sdk::{AUDIENCE, TOKEN_FILE, URI, URIS};
use serde_json::json;

use crate::snapshot::{
    Account, AgentReport, Association, Cluster, Container, Details, NetworkPolicy, Node, Owner,
    Pod, Role, Snapshot, TokenVolume,
};

pub(super) const ROLE: &str = "arn:aws:iam::111122223333:role/shop/reader";
pub(super) const TARGET: &str = "arn:aws:iam::111122223333:role/data";
/// When the association was made.
pub(super) const THEN: i64 = 1_000_000;

pub(super) fn text(text: &str) -> String {
    text.to_owned()
}

pub(super) fn trust() -> serde_json::Value {
    json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": { "Service": "pods.eks.amazonaws.com" },
        "Action": ["sts:AssumeRole", "sts:TagSession"],
    }]})
}

pub(super) fn container() -> Container {
    let file = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";
    let variables = [(URI, URIS[0]), (TOKEN_FILE, file)];
    Container {
        name: text("app"),
        env: variables
            .map(|(name, value)| (text(name), Some(text(value))))
            .into(),
        mounts: [(
            text("/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"),
            text("token"),
        )]
        .into(),
        ..Container::default()
    }
}

pub(super) fn web() -> Pod {
    Pod {
        namespace: text("shop"),
        name: text("web-7f8d-x"),
        account: text("reader"),
        node: Some(text("n1")),
        phase: text("Running"),
        ready: true,
        created: THEN + 3600,
        labels: [
            (text("pod-template-hash"), text("7f8d")),
            (text("app"), text("web")),
        ]
        .into(),
        owner: Some(Owner {
            kind: text("ReplicaSet"),
            name: text("web-7f8d"),
        }),
        containers: vec![container()],
        tokens: vec![TokenVolume {
            volume: text("token"),
            path: text("eks-pod-identity-token"),
            audience: Some(text(AUDIENCE)),
        }],
        ..Pod::default()
    }
}

pub(super) fn agent_of(name: &str, ready: bool) -> Pod {
    Pod {
        namespace: text("kube-system"),
        name: text(name),
        node: Some(text("n1")),
        phase: text("Running"),
        ready,
        labels: [(text("app.kubernetes.io/name"), text(name))].into(),
        containers: vec![Container {
            name: text(if name == "podcreds" { "agent" } else { name }),
            ..Container::default()
        }],
        ..Pod::default()
    }
}

pub(super) fn details() -> Details {
    Details {
        role: text(ROLE),
        session_tags: true,
        created: Some(THEN),
        ..Details::default()
    }
}

/// A cluster where all is well.
pub(super) fn healthy() -> Snapshot {
    let account = "shop/reader".parse().unwrap();
    let association = Association {
        id: text("a-1"),
        details: Some(Ok(details())),
    };
    let role = Role {
        trust: trust(),
        boundary: None,
    };
    let ready = Node {
        ready: true,
        ..Node::default()
    };
    Snapshot {
        cluster: Cluster {
            name: text("prod"),
            arn: Some(text("arn:aws:eks:eu-central-1:111122223333:cluster/prod")),
            region: Some(text("eu-central-1")),
            missing: None,
        },
        pods: Ok(vec![web()]),
        agents: Ok(vec![agent_of("podcreds", true)]),
        accounts: Ok([(account, Account::default())].into()),
        nodes: Ok([(text("n1"), ready)].into()),
        network_policies: Ok(Vec::new()),
        associations: Ok([("shop/reader".parse().unwrap(), association)].into()),
        roles: [(text(ROLE), Ok(Some(role)))].into(),
        agent_report: Some(Ok(AgentReport::default())),
    }
}

pub(super) fn pod(snapshot: &mut Snapshot) -> &mut Pod {
    &mut snapshot.pods.as_mut().unwrap()[0]
}

pub(super) fn set(snapshot: &mut Snapshot, name: &str, value: &str) {
    let env = &mut pod(snapshot).containers[0].env;
    env.insert(text(name), Some(text(value)));
}

pub(super) fn details_of(snapshot: &mut Snapshot) -> &mut Details {
    let all = snapshot.associations.as_mut().unwrap();
    let first = all.values_mut().next().unwrap();
    first.details.as_mut().unwrap().as_mut().unwrap()
}

pub(super) fn role_of<'a>(snapshot: &'a mut Snapshot, arn: &str) -> &'a mut Role {
    let role = snapshot.roles.get_mut(arn).unwrap();
    role.as_mut().unwrap().as_mut().unwrap()
}

pub(super) fn rename_association(snapshot: &mut Snapshot, to: &str) {
    let all = snapshot.associations.as_mut().unwrap();
    let (_, association) = all.pop_first().unwrap();
    all.insert(to.parse().unwrap(), association);
}

pub(super) fn node(snapshot: &mut Snapshot) -> &mut Node {
    snapshot.nodes.as_mut().unwrap().get_mut("n1").unwrap()
}

/// A second role that the first one assumes.
pub(super) fn with_target(snapshot: &mut Snapshot) {
    let details = details_of(snapshot);
    details.target_role = Some(text(TARGET));
    details.external_id = Some(text("region/eu-central-1/prod/shop/reader"));
    let trust = json!({ "Statement": [{
        "Effect": "Allow", "Principal": { "AWS": ROLE },
        "Action": ["sts:AssumeRole", "sts:TagSession"],
        "Condition": { "StringEquals": { "sts:ExternalId": "region/eu-central-1/prod/shop/reader" } },
    }]});
    let role = Role {
        trust,
        boundary: None,
    };
    snapshot.roles.insert(text(TARGET), Ok(Some(role)));
}

pub(super) fn policy(allows_agent: bool) -> NetworkPolicy {
    NetworkPolicy {
        namespace: text("shop"),
        name: text("no-egress"),
        selects: Some([(text("app"), text("web"))].into()),
        limits_egress: true,
        allows_agent,
    }
}
