//! `kubectl podcreds status`: the agents of all nodes, and their pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use podcreds_admin::{AgentStatus, NodeStatus, PodState, PodStatus};
use podcreds_output::{Column, duration, harmless, role, table_of};
use serde::Serialize;

use crate::{
    agents::{self, Agents, QUICK},
    cli::StatusArgs,
    collect::World,
    kubernetes::{Answer, ExecError},
    show::Shown,
    snapshot::{Missing, Node, NodeKind, want_agents},
};

/// In a narrow terminal, the ones with the highest numbers are left out first. What is left of a
/// node's name has the address in it by which EC2 calls it.
const OF_AGENTS: [Column; 10] = [
    Column::new("NODE").cut_to(36),
    Column::new("VERSION").cut_to(8).goes(5),
    Column::new("ROLE").goes(6),
    Column::new("READY"),
    Column::new("UP").goes(4),
    Column::new("PODS"),
    Column::new("VALID").goes(2),
    Column::new("STALE").goes(3),
    Column::new("FAILED").goes(1),
    Column::new("OTHER").goes(7),
];
const OF_PODS: [Column; 5] = [
    Column::new("POD").cut_to(16),
    Column::new("NODE").cut_to(20).goes(2),
    Column::new("ROLE").cut_to(12).goes(1),
    Column::new("STATE"),
    Column::new("LAST ERROR").cut_to(24),
];

/// All nodes. The names in JSON are an interface; those of agents and pods are the agent's.
#[derive(Debug, Serialize)]
pub(crate) struct Nodes {
    nodes: Vec<OneNode>,
    /// Why nodes without an agent are not among them, if nobody says which nodes there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<String>,
}

/// One node.
#[derive(Debug, Serialize)]
struct OneNode {
    node: String,
    /// The agent's pod that was asked.
    pod: Option<String>,
    /// Why there is no answer.
    error: Option<String>,
    agents: Vec<NodeStatus>,
}

/// Asks all agents.
///
/// # Errors
///
/// When nobody says where agents are.
pub(crate) async fn status(world: &World, args: &StatusArgs) -> Result<Nodes, Missing> {
    let (agents, nodes) = tokio::join!(world.agents(), world.kubernetes.nodes());
    let agents = agents?;
    let mut by_node = agents::by_node(&agents);
    let with_agent: BTreeSet<&str> = by_node.keys().copied().collect();
    if let Some(wanted) = &args.node {
        by_node.retain(|node, _| node == wanted);
    }
    let mut words = vec!["status", "--output", "json"];
    if let Some(namespace) = world.only_namespace() {
        words.extend(["--namespace", namespace]);
    }
    if let Some(account) = &args.service_account {
        words.extend(["--service-account", account]);
    }
    let client = world.kubernetes.client();
    let answers = agents::ask(client, by_node, &words, QUICK).await;
    let unseen = nodes.as_ref().err();
    let incomplete = unseen.map(|why| format!("nodes without an agent are not shown: {why}"));
    let bare = nodes.map(|all| without_agent(&all, &with_agent, args));
    let mut nodes = Nodes::new(answers, bare.unwrap_or_default());
    nodes.incomplete = incomplete;
    Ok(nodes)
}

/// The nodes without an agent: those where one should be, or the one that is asked for.
fn without_agent(
    nodes: &BTreeMap<String, Node>,
    with_agent: &BTreeSet<&str>,
    args: &StatusArgs,
) -> BTreeMap<String, NodeKind> {
    let wanted = want_agents(nodes, with_agent);
    let is_asked_for = |name: &str| match &args.node {
        Some(asked) => asked == name,
        None => wanted.contains(name),
    };
    let bare = nodes.iter().filter(|(name, _)| {
        let name = name.as_str();
        is_asked_for(name) && !with_agent.contains(name)
    });
    bare.map(|(name, node)| (name.clone(), node.kind)).collect()
}

/// What it means that there is no agent on a node of this kind.
fn why_without(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Cloud | NodeKind::Hybrid => "no agent",
        NodeKind::Auto => "no agent of podcreds: EKS Auto Mode has one of its own",
        NodeKind::Fargate => "no agent can be on Fargate",
        NodeKind::Windows => "no agent can be on Windows",
    }
}

impl Nodes {
    fn new(
        answers: BTreeMap<String, (String, Result<Answer, ExecError>)>,
        bare: BTreeMap<String, NodeKind>,
    ) -> Self {
        let asked = answers.into_iter().map(|(node, (pod, answer))| {
            let (agents, error) = match answer {
                Err(error) => (Vec::new(), Some(error.to_string())),
                Ok(answer) => match serde_json::from_str::<Agents>(&answer.said) {
                    Ok(agents) => (agents.agents, None),
                    Err(error) => (Vec::new(), Some(format!("cannot be understood: {error}"))),
                },
            };
            OneNode {
                node,
                pod: Some(pod),
                error,
                agents,
            }
        });
        let bare = bare.into_iter().map(|(node, kind)| OneNode {
            node,
            pod: None,
            error: Some(why_without(kind).to_owned()),
            agents: Vec::new(),
        });
        let mut nodes: Vec<_> = asked.chain(bare).collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        Self {
            nodes,
            incomplete: None,
        }
    }

    /// Whether an agent is ready on each node.
    pub(crate) fn are_ready(&self) -> bool {
        let mut nodes = self.nodes.iter();
        !self.nodes.is_empty()
            && nodes.all(|node| node.agents.iter().any(|status| status.agent.ready))
    }

    fn told(&self, width: Option<usize>, now: SystemTime) -> String {
        let rows: Vec<_> = self.nodes.iter().flat_map(|it| it.rows(now)).collect();
        let mut text = match rows.is_empty() {
            true => "no node where an agent is expected\n".to_owned(),
            false => table_of(&OF_AGENTS, &rows, width),
        };
        text.push_str(&self.failing(width, now));
        for node in &self.nodes {
            if let Some(error) = &node.error {
                text.push_str(&format!("\n{}: {}", harmless(&node.node), harmless(error)));
            }
            for remark in node.agents.iter().flat_map(|it| &it.agent.remarks) {
                text.push_str(&format!("\n{}: {}", harmless(&node.node), harmless(remark)));
            }
        }
        if let Some(incomplete) = &self.incomplete {
            text.push_str(&format!("\n{}", harmless(incomplete)));
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    /// The pods that something is wrong with.
    fn failing(&self, width: Option<usize>, now: SystemTime) -> String {
        let pods = self.nodes.iter().flat_map(|node| {
            let pods = node.agents.iter().flat_map(|status| &status.pods);
            pods.map(move |pod| (node, pod))
        });
        let failing = pods.filter(|(_, pod)| pod.is_failing());
        let rows: Vec<_> = failing
            .map(|(node, pod)| {
                let error = pod.last_error.as_ref();
                let error = error.map(|it| {
                    let ago = duration(it.at.ago(now));
                    format!("{ago} ago: {}", harmless(&it.message))
                });
                vec![
                    name(pod),
                    harmless(&node.node),
                    pod.role
                        .as_deref()
                        .map_or_else(dash, |it| harmless(&role(it))),
                    pod.state.to_string(),
                    error.unwrap_or_else(dash),
                ]
            })
            .collect();
        match rows.is_empty() {
            true => String::new(),
            false => format!("\n{}", table_of(&OF_PODS, &rows, width)),
        }
    }
}

impl Shown for Nodes {
    fn text(&self, width: Option<usize>) -> String {
        self.told(width, SystemTime::now())
    }
}

impl OneNode {
    /// A row for each agent, or one that says that there is none.
    fn rows(&self, now: SystemTime) -> Vec<Vec<String>> {
        let node = harmless(&self.node);
        if self.agents.is_empty() {
            let [not_ready, unknown] = ["no", "-"].map(str::to_owned);
            let mut row = vec![node, unknown.clone(), unknown.clone(), not_ready];
            row.resize(OF_AGENTS.len(), unknown);
            return vec![row];
        }
        let rows = self.agents.iter().map(|NodeStatus { agent, pods, .. }| {
            let AgentStatus {
                version,
                role,
                ready,
                started,
                ..
            } = agent;
            let count = |wanted: &[PodState]| {
                let is_wanted = |pod: &&PodStatus| wanted.contains(&pod.state);
                pods.iter().filter(is_wanted).count().to_string()
            };
            vec![
                node.clone(),
                harmless(version),
                harmless(role),
                if *ready { "yes" } else { "no" }.to_owned(),
                duration(started.ago(now)),
                pods.len().to_string(),
                count(&[PodState::Valid]),
                count(&[PodState::Stale]),
                count(&[PodState::Failed, PodState::Expired]),
                count(&[PodState::Fetching, PodState::None]),
            ]
        });
        rows.collect()
    }
}

fn name(pod: &PodStatus) -> String {
    match (&pod.namespace, &pod.name, &pod.uid) {
        (Some(namespace), Some(name), _) => harmless(&format!("{namespace}/{name}")),
        (_, _, Some(uid)) => harmless(uid),
        _ => dash(),
    }
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// An agent's own words.
    const SAID: &str = r#"{"agents":[{
        "agent": { "version": "0.1.0", "revision": "r", "process": 1, "role": "leader",
            "started": "2026-01-01T00:00:00Z", "ready": true, "remarks": [],
            "paths": { "inPod": true, "nodeAddresses": 0 },
            "limiter": { "callsPerSecond": 1.0, "throttled": false, "inFlight": 0, "waiting": 0,
                "waitingRenewals": 0, "waitingDoubtful": 0, "blockedSeconds": null },
            "upstream": { "failuresInARow": 0, "lastAnswer": null, "lastFailure": null },
            "keys": null, "logLevel": "info" },
        "pods": [{ "uid": "u", "namespace": "shop", "name": "web", "serviceAccount": "reader",
            "namesVerified": true, "state": "failed", "role": null, "expires": null,
            "renewed": null, "renewalDue": null, "lastAsked": null, "identifiedBy": null,
            "path": "in-pod", "renewedByLeader": false, "failedRenewals": 0,
            "lastError": { "at": "2026-01-01T00:00:00Z", "message": "AccessDenied\u001b" } }]
    }]}"#;

    fn nodes() -> Nodes {
        let answer = |said: &str| Answer {
            said: said.to_owned(),
            has_succeeded: true,
        };
        let late = ExecError::Late(QUICK);
        let answers = [
            ("n1", Ok(answer(SAID))),
            ("n2", Err(late)),
            ("n3", Ok(answer("?"))),
        ];
        let answers = answers.map(|(node, it)| (node.to_owned(), (format!("x/{node}"), it)));
        Nodes::new(answers.into(), [("n4".to_owned(), NodeKind::Cloud)].into())
    }

    #[test]
    fn a_node_that_does_not_answer_has_its_row_and_its_reason() {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let text = nodes().told(None, started + Duration::from_secs(60));
        let expected = "\
NODE  VERSION  ROLE    READY  UP     PODS  VALID  STALE  FAILED  OTHER
n1    0.1.0    leader  yes    1m00s  1     0      0      1       0
n2    -        -       no     -      -     -      -      -       -
n3    -        -       no     -      -     -      -      -       -
n4    -        -       no     -      -     -      -      -       -

POD       NODE  ROLE  STATE   LAST ERROR
shop/web  n1    -     failed  1m00s ago: AccessDenied?

n2: no answer in 10 s
n3: cannot be understood: expected value at line 1 column 1
n4: no agent
";
        assert_eq!(text, expected);
        assert!(!nodes().are_ready());
        let none = Nodes::new(BTreeMap::new(), BTreeMap::new());
        assert!(!none.are_ready(), "nobody has looked at an agent");
    }

    #[test]
    fn tables_fit_a_narrow_terminal_and_nodes_can_be_told_apart() {
        let answer = Answer {
            said: SAID.replace(
                "AccessDenied",
                "AccessDeniedException: EKS does not have permissions to assume the role",
            ),
            has_succeeded: true,
        };
        let node = |number| format!("ip-100-100-100-{number}.ap-southeast-1.compute.internal");
        let answers = [101, 102].map(|it| (node(it), ("x/y".to_owned(), Ok(answer.clone()))));
        let nodes = Nodes::new(answers.into(), BTreeMap::new());
        for width in [60, 80, 100, 120] {
            let text = nodes.told(Some(width), SystemTime::now());
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            for wanted in ["-101", "-102", "READY", "FAILED", "LAST ERROR", "shop/web"] {
                assert!(text.contains(wanted), "{width}: {text}");
            }
        }
        let whole = nodes.told(None, SystemTime::now());
        assert!(!whole.contains('…'), "{whole}");
    }

    #[test]
    fn an_agent_is_missed_where_the_chart_puts_one() {
        let node = |kind| Node { ready: true, kind };
        let nodes = [
            ("cloud", NodeKind::Cloud),
            ("auto", NodeKind::Auto),
            ("fargate", NodeKind::Fargate),
            ("windows", NodeKind::Windows),
            ("hybrid-1", NodeKind::Hybrid),
            ("hybrid-2", NodeKind::Hybrid),
        ];
        let nodes = nodes.map(|(name, kind)| (name.to_owned(), node(kind)));
        let missed = |with_agent: &[&str], wanted: Option<&str>| {
            let args = StatusArgs {
                node: wanted.map(str::to_owned),
                ..StatusArgs::default()
            };
            let with_agent = with_agent.iter().copied().collect();
            let missed = without_agent(&nodes.clone().into(), &with_agent, &args);
            missed.into_keys().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(missed(&[], None), "cloud");
        assert_eq!(missed(&["cloud"], None), "");
        // Somebody has told the chart to have one there.
        assert_eq!(missed(&["cloud", "hybrid-1"], None), "hybrid-2");
        assert_eq!(missed(&["hybrid-1"], Some("hybrid-2")), "hybrid-2");
        // Who asks for a node is told of it, whatever it is.
        assert_eq!(missed(&["hybrid-1"], Some("auto")), "auto");
        assert!(why_without(NodeKind::Auto).contains("of its own"));
        assert_eq!(missed(&["hybrid-1"], Some("hybrid-1")), "");
    }

    #[test]
    fn programs_read_what_the_agents_have_said() {
        let json = serde_json::to_value(nodes()).unwrap();
        assert_eq!(json["nodes"][0]["agents"][0]["pods"][0]["state"], "failed");
        assert_eq!(json["nodes"][3]["error"], "no agent");
    }
}
