//! What all agents of a node say, put together: in an update there are two, and a pod is one pod.

use std::cmp::Reverse;

use podcreds_admin::{
    AgentStatus, NodeStatus, PodState, PodStatus, RefusalStatus, SubjectKind, Timestamp,
};

/// The agents of a node, and its pods.
pub(super) struct Node {
    /// Those that answer, the leader first.
    pub(super) agents: Vec<AgentStatus>,
    /// By namespace and name; those without a name last.
    pub(super) pods: Vec<NodePod>,
    /// Who was refused, the latest first.
    pub(super) refused: Vec<RefusalStatus>,
}

/// A pod, as the agent sees it that the pod has asked last.
pub(super) struct NodePod {
    /// That agent's role. Where the pod has asked none, the leader's.
    pub(super) agent: String,
    pub(super) pod: PodStatus,
}

impl Node {
    /// Puts the answers of all agents together, the leader's first.
    pub(super) fn of(answers: Vec<NodeStatus>) -> Self {
        let (mut agents, mut pods, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for status in answers {
            add(&mut pods, &status.agent.role, status.pods);
            add_refused(&mut refused, status.refused);
            agents.push(status.agent);
        }
        refused.sort_by_key(|it| Reverse(it.last));
        pods.sort_by_cached_key(|NodePod { pod, .. }| {
            let names = (pod.namespace.clone(), pod.name.clone());
            (pod.namespace.is_none(), names, pod.uid.clone())
        });
        Self {
            agents,
            pods,
            refused,
        }
    }
}

/// Adds what one more agent says of pods.
fn add(pods: &mut Vec<NodePod>, role: &str, theirs: Vec<PodStatus>) {
    let known = pods.len();
    let mut is_taken = vec![false; known];
    for pod in theirs {
        let agent = role.to_owned();
        let is_twin = |at: &usize| !is_taken[*at] && is_same(&pods[*at].pod, &pod);
        match (0..known).find(is_twin) {
            Some(at) => {
                is_taken[at] = true;
                pods[at].learn(NodePod { agent, pod });
            }
            None => pods.push(NodePod { agent, pod }),
        }
    }
}

/// Adds what one more agent has refused. Each has counted by itself.
fn add_refused(refused: &mut Vec<RefusalStatus>, theirs: Vec<RefusalStatus>) {
    for new in theirs {
        let is_same = |known: &&mut RefusalStatus| {
            let who = |it: &RefusalStatus| (it.uid.clone(), it.address.clone(), it.process);
            known.reason == new.reason && who(known) == who(&new)
        };
        match refused.iter_mut().find(is_same) {
            Some(known) => {
                let count = known.count + new.count;
                if new.last > known.last {
                    *known = new;
                }
                known.count = count;
            }
            None => refused.push(new),
        }
    }
}

/// Whether two agents speak of the same pod. What a single token says of a pod that nobody has
/// verified is not mixed with what is known.
fn is_same(one: &PodStatus, other: &PodStatus) -> bool {
    let of_pods = one.subject == SubjectKind::Pod;
    let is_token = || {
        let names = |pod: &PodStatus| {
            let service_account = pod.service_account.clone();
            (pod.namespace.clone(), pod.name.clone(), service_account)
        };
        one.names_verified == other.names_verified && names(one) == names(other)
    };
    one.subject == other.subject && one.uid == other.uid && (of_pods || is_token())
}

impl NodePod {
    /// Takes what another agent says of this pod, where that is newer.
    fn learn(&mut self, mut other: Self) {
        if activity(&other.pod) > activity(&self.pod) {
            std::mem::swap(self, &mut other);
        }
        let (pod, other) = (&mut self.pod, other.pod);
        let at = |pod: &PodStatus| pod.last_error.as_ref().map(|error| error.at);
        if at(&other) > at(pod) {
            pod.last_error = other.last_error;
        }
        // An agent knows the names once it has served the pod.
        if !pod.names_verified && other.names_verified || pod.namespace.is_none() {
            pod.namespace = other.namespace;
            pod.name = other.name;
            pod.service_account = other.service_account;
            pod.names_verified = other.names_verified;
        }
    }
}

/// What tells the agent that a pod deals with from one that has only heard of it.
fn activity(pod: &PodStatus) -> (bool, Option<Timestamp>) {
    let failed = pod.last_error.as_ref().map(|error| error.at);
    let times = [pod.last_asked, failed, pod.renewed];
    let last = times.into_iter().max().flatten();
    (pod.state != PodState::None, last)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        (SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).into()
    }

    fn pod(uid: &str, state: PodState, asked: Option<u64>) -> PodStatus {
        PodStatus {
            subject: SubjectKind::Pod,
            uid: Some(uid.to_owned()),
            namespace: Some("shop".to_owned()),
            name: Some(uid.to_owned()),
            service_account: Some("reader".to_owned()),
            names_verified: true,
            state,
            role: None,
            expires: None,
            renewed: None,
            renewal_due: None,
            last_asked: asked.map(at),
            identified_by: None,
            path: None,
            renewed_by_leader: false,
            failed_renewals: 0,
            last_error: None,
        }
    }

    fn says(role: &str, pods: Vec<PodStatus>) -> NodeStatus {
        let agent = json!({
            "version": "1", "revision": "2", "process": 3, "role": role,
            "started": "1970-01-01T00:00:00Z", "ready": true, "remarks": [],
            "paths": { "inPod": true, "nodeAddresses": 0 },
            "limiter": {
                "callsPerSecond": 1.0, "throttled": false, "inFlight": 0, "waiting": 0,
                "waitingRenewals": 0, "waitingDoubtful": 0, "blockedSeconds": null,
            },
            "upstream": { "failuresInARow": 0, "lastAnswer": null, "lastFailure": null },
            "keys": null, "logLevel": "info",
        });
        let agent = serde_json::from_value(agent).unwrap();
        NodeStatus {
            agent,
            pods,
            refused: Vec::new(),
        }
    }

    fn shown(node: &Node) -> Vec<(&str, &str)> {
        let pods = node.pods.iter();
        let shown = pods.map(|it| (it.pod.uid.as_deref().unwrap_or("-"), it.agent.as_str()));
        shown.collect()
    }

    #[test]
    fn a_pod_that_two_agents_know_is_listed_once_with_the_agent_that_it_has_asked_last() {
        let node = Node::of(vec![
            says(
                "leader",
                vec![
                    pod("a", PodState::Valid, Some(5)),
                    pod("b", PodState::Valid, Some(5)),
                    pod("c", PodState::None, None),
                    pod("d", PodState::None, None),
                ],
            ),
            says(
                "successor",
                vec![
                    pod("a", PodState::Valid, Some(9)),
                    pod("b", PodState::Valid, None),
                    pod("d", PodState::None, None),
                ],
            ),
        ]);
        let expected = [
            ("a", "successor"),
            ("b", "leader"),
            ("c", "leader"),
            ("d", "leader"),
        ];
        assert_eq!(shown(&node), expected);
    }

    #[test]
    fn a_first_call_at_one_agent_is_shown_and_the_names_that_the_other_one_knows() {
        let quiet = pod("a", PodState::None, None);
        let mut fetching = pod("a", PodState::Fetching, None);
        (fetching.namespace, fetching.names_verified) = (None, false);
        let node = Node::of(vec![
            says("leader", vec![quiet]),
            says("successor", vec![fetching]),
        ]);
        assert_eq!(shown(&node), [("a", "successor")]);
        let pod = &node.pods[0].pod;
        assert_eq!(pod.state, PodState::Fetching);
        assert_eq!(pod.namespace.as_deref(), Some("shop"));
        assert!(pod.names_verified);
    }

    #[test]
    fn what_an_unverified_token_says_is_not_mixed_with_what_is_known() {
        let mut forged = pod("a", PodState::Failed, Some(9));
        (forged.subject, forged.names_verified) = (SubjectKind::Token, false);
        let known = pod("a", PodState::Valid, Some(5));
        let node = Node::of(vec![
            says("leader", vec![known]),
            says("successor", vec![forged.clone(), forged]),
        ]);
        assert_eq!(node.pods.len(), 3);
    }

    #[test]
    fn what_two_agents_have_refused_one_caller_is_counted_together() {
        let refused = |address: &str, count, last| RefusalStatus {
            uid: None,
            namespace: None,
            name: None,
            address: Some(address.to_owned()),
            process: None,
            about: None,
            reason: "detour".to_owned(),
            token_uid: None,
            token_pod: None,
            count,
            last: at(last),
        };
        let mut leader = says("leader", Vec::new());
        leader.refused = vec![refused("10.0.0.1", 3, 5), refused("10.0.0.2", 1, 4)];
        let mut successor = says("successor", Vec::new());
        successor.refused = vec![refused("10.0.0.1", 2, 3)];
        let node = Node::of(vec![leader, successor]);
        let all = [refused("10.0.0.1", 5, 5), refused("10.0.0.2", 1, 4)];
        assert_eq!(node.refused, all);
    }
}
