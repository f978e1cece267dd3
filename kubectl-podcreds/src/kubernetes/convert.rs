//! Kubernetes' objects as what the checks want to know of them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{self as core, ProjectedVolumeSource},
        networking::v1 as networking,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use podcreds_types::ServiceAccount;

use crate::{
    snapshot::{Account, Container, NetworkPolicy, Node, NodeKind, Owner, Pod, TokenVolume},
    variables,
};

/// What annotations about roles begin with.
const ANNOTATIONS: [&str; 2] = ["eks.amazonaws.com/", "iam.amazonaws.com/"];
const IRSA_ROLE: &str = "eks.amazonaws.com/role-arn";
const COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";
const OS: &str = "kubernetes.io/os";

pub(super) fn pod(pod: core::Pod) -> Pod {
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let ready = status.conditions.iter().flatten();
    let ready = ready
        .clone()
        .any(|it| it.type_ == "Ready" && it.status == "True");
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let created = created(&pod.metadata);
    let annotations = pod.metadata.annotations.unwrap_or_default();
    let is_about_roles = |name: &String| ANNOTATIONS.iter().any(|start| name.starts_with(start));
    Pod {
        namespace: pod.metadata.namespace.unwrap_or_default(),
        name: pod.metadata.name.unwrap_or_default(),
        account: spec
            .service_account_name
            .clone()
            .unwrap_or_else(|| "default".to_owned()),
        node: spec.node_name.clone(),
        phase: status.phase.unwrap_or_default(),
        ready,
        created,
        labels: pod.metadata.labels.unwrap_or_default(),
        annotations: annotations
            .into_iter()
            .filter(|(name, _)| is_about_roles(name))
            .collect(),
        owner: pod
            .metadata
            .owner_references
            .into_iter()
            .flatten()
            .find(|owner| owner.controller == Some(true))
            .map(|owner| Owner {
                kind: owner.kind,
                name: owner.name,
            }),
        containers: all.map(container).collect(),
        tokens: spec.volumes.iter().flatten().flat_map(tokens).collect(),
    }
}

/// When an object was made, in seconds since 1970.
fn created(metadata: &ObjectMeta) -> i64 {
    let time = metadata.creation_timestamp.as_ref();
    time.map(|time| time.0.as_second()).unwrap_or_default()
}

fn container(container: &core::Container) -> Container {
    let mut env = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let Some(is_shown) = variables::matters(&variable.name) else {
            continue;
        };
        let is_empty = variable.value_from.is_none() && variable.value.as_deref() == Some("");
        if !is_empty {
            let value = variable.value.clone().filter(|_| is_shown);
            env.insert(variable.name.clone(), value);
        }
    }
    let mounts = container.volume_mounts.iter().flatten();
    Container {
        name: container.name.clone(),
        env,
        has_env_from: container.env_from.as_ref().is_some_and(|it| !it.is_empty()),
        mounts: mounts
            .map(|mount| (mount.mount_path.clone(), mount.name.clone()))
            .collect(),
    }
}

fn tokens(volume: &core::Volume) -> Vec<TokenVolume> {
    let Some(ProjectedVolumeSource {
        sources: Some(sources),
        ..
    }) = &volume.projected
    else {
        return Vec::new();
    };
    let tokens = sources
        .iter()
        .filter_map(|source| source.service_account_token.as_ref());
    tokens
        .map(|token| TokenVolume {
            volume: volume.name.clone(),
            path: token.path.clone(),
            audience: token.audience.clone().filter(|it| !it.is_empty()),
        })
        .collect()
}

pub(super) fn account(account: core::ServiceAccount) -> (ServiceAccount, Account) {
    let metadata = account.metadata;
    let annotations = metadata.annotations.unwrap_or_default();
    let name = ServiceAccount {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
    };
    let irsa_role = annotations.get(IRSA_ROLE).cloned();
    (name, Account { irsa_role })
}

pub(super) fn node(node: core::Node) -> (String, Node) {
    let status = node.status.unwrap_or_default();
    let mut conditions = status.conditions.iter().flatten();
    let labels = node.metadata.labels.unwrap_or_default();
    let label = |name: &str| labels.get(name).map(String::as_str);
    let kind = match (label(OS), label(COMPUTE_TYPE)) {
        (Some("windows"), _) => NodeKind::Windows,
        (_, Some("fargate")) => NodeKind::Fargate,
        (_, Some("auto")) => NodeKind::Auto,
        (_, Some("hybrid")) => NodeKind::Hybrid,
        _ => NodeKind::Cloud,
    };
    let of = Node {
        ready: conditions.any(|it| it.type_ == "Ready" && it.status == "True"),
        kind,
    };
    (node.metadata.name.unwrap_or_default(), of)
}

pub(super) fn network_policy(policy: networking::NetworkPolicy) -> NetworkPolicy {
    let spec = policy.spec.unwrap_or_default();
    let selector = spec.pod_selector.unwrap_or_default();
    let by_labels = selector.match_expressions.is_none_or(|it| it.is_empty());
    let types = spec.policy_types.unwrap_or_default();
    let egress = spec.egress;
    let limits_egress = types.iter().any(|it| it == "Egress") || egress.is_some();
    NetworkPolicy {
        namespace: policy.metadata.namespace.unwrap_or_default(),
        name: policy.metadata.name.unwrap_or_default(),
        selects: by_labels.then(|| selector.match_labels.unwrap_or_default()),
        limits_egress,
        allows_agent: egress.iter().flatten().any(allows_agent),
    }
}

/// Whether a rule lets a pod reach the agent's address: it names no peer, or a block of addresses
/// with the agent's in it.
fn allows_agent(rule: &networking::NetworkPolicyEgressRule) -> bool {
    let mut ports = rule.ports.iter().flatten();
    let has_port = rule.ports.is_none()
        || ports.any(|port| match &port.port {
            None => true,
            Some(IntOrString::Int(first)) => {
                let last = port.end_port.unwrap_or(*first);
                (*first..=last).contains(&80)
            }
            Some(IntOrString::String(_)) => false,
        });
    let peers = rule.to.as_deref().unwrap_or_default();
    let blocks = peers.iter().filter_map(|peer| peer.ip_block.as_ref());
    let has_peer = peers.is_empty()
        || blocks.into_iter().any(|block| {
            let mut except = block.except.iter().flatten();
            contains_agent(&block.cidr) && !except.any(|cidr| contains_agent(cidr))
        });
    has_port && has_peer
}

/// Whether 169.254.170.23 is in a block of addresses.
fn contains_agent(cidr: &str) -> bool {
    let agent = u32::from(std::net::Ipv4Addr::new(169, 254, 170, 23));
    let parsed = cidr.split_once('/').and_then(|(address, length)| {
        let address: std::net::Ipv4Addr = address.parse().ok()?;
        let length: u32 = length.parse().ok().filter(|length| *length <= 32)?;
        Some((u32::from(address), length))
    });
    parsed.is_some_and(|(block, length)| {
        let shift = 32 - length;
        agent.checked_shr(shift).unwrap_or(0) == block.checked_shr(shift).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use podcreds_types::sdk::{URI, URIS};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_keeps_what_the_checks_want_and_no_secret() {
        let of = pod(serde_json::from_value(json!({
            "metadata": {
                "namespace": "shop", "name": "web-1", "creationTimestamp": "2026-01-02T03:04:05Z",
                "annotations": { "iam.amazonaws.com/role": "app", "other": "x" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                                      "uid": "u", "controller": true }],
            },
            "spec": {
                "nodeName": "n1",
                "containers": [{
                    "name": "app",
                    "env": [
                        { "name": URI, "value": URIS[0] },
                        { "name": "AWS_ACCESS_KEY_ID", "value": "AKIASECRET" },
                        { "name": "AWS_PROFILE", "value": "" },
                        { "name": "HTTPS_PROXY", "value": "x" },
                        { "name": "HTTP_PROXY", "value": "http://me:s3cret@proxy" },
                    ],
                    "volumeMounts": [{ "name": "t", "mountPath": "/var/run/t" }],
                }],
                "volumes": [{ "name": "t", "projected": { "sources": [
                    { "serviceAccountToken": { "audience": "pods.eks.amazonaws.com", "path": "p" } },
                ] } }],
            },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
        }))
        .unwrap());
        assert_eq!(of.account, "default");
        assert!(of.ready && of.is_injected());
        assert_eq!(of.created, 1_767_323_045);
        assert_eq!(of.annotations.len(), 1);
        assert_eq!(
            of.tokens[0].audience.as_deref(),
            Some("pods.eks.amazonaws.com")
        );
        let env = &of.containers[0].env;
        let names: Vec<_> = env.keys().map(String::as_str).collect();
        assert_eq!(names, ["AWS_ACCESS_KEY_ID", URI, "HTTP_PROXY"]);
        let shown = format!("{of:?}");
        assert!(
            !shown.contains("AKIASECRET") && !shown.contains("s3cret"),
            "{shown}"
        );
    }

    #[test]
    fn a_policy_allows_the_agent_by_its_address_or_by_naming_none() {
        let allows = |rule: serde_json::Value| {
            network_policy(
                serde_json::from_value(json!({
                    "spec": { "podSelector": {}, "policyTypes": ["Egress"], "egress": [rule] },
                }))
                .unwrap(),
            )
            .allows_agent
        };
        for good in [
            json!({}),
            json!({ "to": [{ "ipBlock": { "cidr": "169.254.170.23/32" } }] }),
            json!({ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }], "ports": [{ "port": 80 }] }),
            json!({ "ports": [{ "port": 1, "endPort": 1024 }] }),
        ] {
            assert!(allows(good.clone()), "{good}");
        }
        for bad in [
            json!({ "to": [{ "podSelector": {} }] }),
            json!({ "to": [{ "ipBlock": { "cidr": "10.0.0.0/8" } }] }),
            json!({ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"] } }] }),
            json!({ "ports": [{ "port": 443 }] }),
        ] {
            assert!(!allows(bad.clone()), "{bad}");
        }
    }

    #[test]
    fn who_runs_a_node_is_known_by_its_labels() {
        let labelled = |labels: serde_json::Value| {
            node(
                serde_json::from_value(json!({
                    "metadata": { "name": "n1", "labels": labels },
                    "status": { "conditions": [{ "type": "Ready", "status": "False" }] },
                }))
                .unwrap(),
            )
        };
        for (os, compute_type, kind) in [
            ("linux", "", NodeKind::Cloud),
            ("linux", "ec2", NodeKind::Cloud),
            ("linux", "auto", NodeKind::Auto),
            ("linux", "hybrid", NodeKind::Hybrid),
            ("linux", "fargate", NodeKind::Fargate),
            ("windows", "", NodeKind::Windows),
        ] {
            let found = labelled(json!({ OS: os, COMPUTE_TYPE: compute_type }));
            let ready = false;
            assert_eq!(found, ("n1".to_owned(), Node { ready, kind }));
        }
    }
}
