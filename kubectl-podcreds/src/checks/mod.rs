//! The road from a pod to its credentials, judged on what was seen. A file for each part of it.
//!
//! Each check is a function from a [`Scene`] to findings; it says nothing where what it needs was
//! not seen. What could not be seen is a finding of its own ([`missing`]).

mod account;
mod agent;
mod injection;
mod network;
mod role;
mod settings;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeSet;

use podcreds_types::ServiceAccount;

use crate::{
    finding::Finding,
    kubernetes::CONTAINER,
    snapshot::{Association, Details, Missing, Pod, Snapshot},
};

/// The label selector for agents: podcreds' own, by this label, and AWS's.
pub(crate) fn agent_labels(label: &str) -> String {
    format!("{} in ({label},{})", agent::LABEL, agent::OF_AWS)
}

/// Whether an agent is AWS's own. With the values of AWS's chart podcreds has its label, and a
/// container of another name.
pub(crate) fn is_of_aws(agent: &Pod) -> bool {
    let name = agent.labels.get(agent::LABEL);
    let mut containers = agent.containers.iter();
    name.is_some_and(|name| name == agent::OF_AWS) && !containers.any(|it| it.name == CONTAINER)
}

/// The name of the check that says what could not be looked at. It is the cause of nothing.
pub(crate) const PERMISSIONS: &str = "permissions";

/// What a check looks at: a pod, or an association without one.
pub(crate) struct Scene<'a> {
    snapshot: &'a Snapshot,
    account: ServiceAccount,
    pod: Option<&'a Pod>,
}

impl Scene<'_> {
    fn association(&self) -> Option<&Association> {
        let associations = self.snapshot.associations.as_ref().ok()?;
        associations.get(&self.account)
    }

    fn details(&self) -> Option<&Details> {
        self.association()?.known()
    }
}

type Check = fn(&Scene<'_>) -> Vec<Finding>;

/// The checks of each pod, in the order of the road.
const OF_PODS: [Check; 9] = [
    account::exists,
    account::association,
    agent::node,
    injection::injected,
    token::token,
    settings::winners,
    settings::irsa,
    settings::proxy,
    network::policies,
];

/// What comes behind them where only one pod is looked at. In a cluster each node and each
/// association is looked at once.
const OF_ONE_POD: [Check; 3] = [agent::agents, role::role, agent::report];

/// The checks of an association, in the order of the road.
const OF_ASSOCIATION: [Check; 2] = [account::exists, role::role];

/// Everything about one pod.
pub(crate) fn pod(snapshot: &Snapshot, pod: &Pod) -> Vec<Finding> {
    let mut findings = of_pod(snapshot, pod, &OF_PODS);
    findings.extend(of_pod(snapshot, pod, &OF_ONE_POD));
    findings.extend(missing(snapshot));
    findings
}

/// Everything about a cluster: its associations, and the pods that have one or were told to ask.
pub(crate) fn cluster(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut judged = BTreeSet::new();
    for account in snapshot.associations.iter().flat_map(|all| all.keys()) {
        let scene = Scene {
            snapshot,
            account: account.clone(),
            pod: None,
        };
        let subject = format!("association {account}");
        let found = OF_ASSOCIATION.iter().flat_map(|check| check(&scene));
        findings.extend(found.map(|finding| finding.of(&subject)));
        judged.insert(account);
    }
    let pods = snapshot.pods.iter().flatten();
    for pod in pods.filter(|pod| pod.is_alive()) {
        if judged.contains(&pod.service_account()) || pod.is_injected() {
            findings.extend(of_pod(snapshot, pod, &OF_PODS));
        }
    }
    findings.extend(agent::nodes(snapshot));
    findings.extend(missing(snapshot));
    // Pods and associations were looked at one by one; the road goes check by check.
    findings.sort_by_key(|finding| place(finding.check));
    findings
}

fn of_pod(snapshot: &Snapshot, pod: &Pod, checks: &[Check]) -> Vec<Finding> {
    let scene = Scene {
        snapshot,
        account: pod.service_account(),
        pod: Some(pod),
    };
    let subject = format!("pod {}", pod.full_name());
    let found = checks.iter().flat_map(|check| check(&scene));
    found.map(|finding| finding.of(&subject)).collect()
}

/// Where a check stands on the road.
fn place(check: &str) -> usize {
    let road = [
        account::EXISTS,
        account::ASSOCIATION,
        agent::NODE,
        injection::NAME,
        token::NAME,
        settings::NAME,
        settings::IRSA,
        settings::PROXY,
        network::NAME,
        agent::NAME,
        role::NAME,
        role::TRUST,
        role::TARGET,
        role::BOUNDARY,
    ];
    let found = road.iter().position(|it| *it == check);
    found.unwrap_or(road.len())
}

/// What could not be looked at, and what would allow it.
pub(crate) fn missing(snapshot: &Snapshot) -> Vec<Finding> {
    let Snapshot {
        cluster,
        pods,
        agents,
        accounts,
        nodes,
        network_policies,
        associations,
        roles,
        agent_report,
    } = snapshot;
    let lists = [
        pods.as_ref().err(),
        agents.as_ref().err(),
        accounts.as_ref().err(),
        nodes.as_ref().err(),
        network_policies.as_ref().err(),
        associations.as_ref().err(),
        cluster.missing.as_ref(),
        agent_report.as_ref().and_then(|it| it.as_ref().err()),
    ];
    let details = associations.iter().flat_map(|all| all.values());
    let details = details.filter_map(|it| it.details.as_ref()?.as_ref().err());
    let roles = roles.values().filter_map(|role| role.as_ref().err());
    let all = lists.into_iter().flatten().chain(details).chain(roles);
    let mut said = BTreeSet::new();
    // One permission that lacks keeps many things from being seen, and is worth one line.
    let is_new =
        |missing: &&Missing| said.insert(missing.needs.clone().unwrap_or(missing.what.clone()));
    all.filter(is_new).map(could_not_see).collect()
}

fn could_not_see(missing: &Missing) -> Finding {
    let Missing { what, why, needs } = missing;
    let seen = format!("cannot be looked at: {why}");
    let remedy = match needs {
        Some(needs) => format!("needs the permission {needs}; the other checks go on without it"),
        None => "see that it can be reached; the other checks go on without it".to_owned(),
    };
    Finding::warn(PERMISSIONS, seen, remedy).of(what)
}
