//! What agents say, by commands that run in their containers.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use kube::Client;
use podcreds_admin::NodeStatus;
use serde::{Deserialize, Serialize};

use crate::{
    checks::is_of_aws,
    kubernetes::{Answer, ExecError, exec},
    snapshot::{AgentFinding, AgentReport, Missing, Pod, Seen},
};

/// Agents that are asked at once.
const AT_ONCE: usize = 32;
/// For what an agent knows.
pub(crate) const QUICK: Duration = Duration::from_secs(10);
/// For what it has to find out, from EKS Auth among others.
pub(crate) const SLOW: Duration = Duration::from_secs(60);

/// What `podcreds status` prints for programs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Agents {
    pub(crate) agents: Vec<NodeStatus>,
}

/// What `podcreds doctor` prints for programs.
#[derive(Debug, Deserialize)]
struct Report {
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    check: String,
    status: String,
    seen: String,
    remedy: Option<String>,
}

/// The agents of podcreds by node: those that are ready first.
pub(crate) fn by_node(agents: &[Pod]) -> BTreeMap<&str, Vec<&Pod>> {
    let mut nodes: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for agent in agents.iter().filter(|agent| !is_of_aws(agent)) {
        if let Some(node) = agent.node.as_deref().filter(|_| agent.is_alive()) {
            nodes.entry(node).or_default().push(agent);
        }
    }
    for agents in nodes.values_mut() {
        agents.sort_by_key(|agent| !agent.ready);
    }
    nodes
}

/// Asks on each node the first agent that answers, and returns what it said with its name. Two of
/// them on one node, as in an update, know of each other.
pub(crate) async fn ask(
    client: &Client,
    nodes: BTreeMap<&str, Vec<&Pod>>,
    words: &[&str],
    limit: Duration,
) -> BTreeMap<String, (String, Result<Answer, ExecError>)> {
    let calls = nodes.into_iter().map(|(node, agents)| async move {
        let mut last = None;
        for agent in agents {
            let said = exec(client, (&agent.namespace, &agent.name), words, limit).await;
            let has_answered = said.is_ok();
            last = Some((agent.full_name(), said));
            if has_answered {
                break;
            }
        }
        Some((node.to_owned(), last?))
    });
    let calls = stream::iter(calls).buffer_unordered(AT_ONCE);
    calls.filter_map(std::future::ready).collect().await
}

/// What the agent of a pod's node says about the pod. Nothing where none of podcreds is there.
pub(crate) async fn report(
    client: &Client,
    agents: &Seen<Vec<Pod>>,
    pod: &Pod,
) -> Option<Seen<AgentReport>> {
    let nodes = by_node(agents.as_ref().ok()?);
    let node = pod.node.as_deref()?;
    let agent = nodes.get(node)?.first()?;
    let place = (agent.namespace.as_str(), agent.name.as_str());
    let name = pod.full_name();
    let (doctor, status) = (
        ["doctor", "pod", &name, "--output", "json"],
        ["status", "--pod", &name, "--output", "json"],
    );
    let (doctor, status) = tokio::join!(
        exec(client, place, &doctor, SLOW),
        exec(client, place, &status, QUICK),
    );
    Some(match doctor {
        Ok(doctor) => Ok(read(&doctor.said, status.ok().map(|it| it.said).as_deref())),
        Err(error) => Err(missing(&agent.full_name(), &error)),
    })
}

/// Why an agent could not be asked.
pub(crate) fn missing(agent: &str, error: &ExecError) -> Missing {
    let is_denied = matches!(error, ExecError::Denied(_));
    Missing {
        what: format!("agent {agent}"),
        why: error.to_string(),
        needs: is_denied.then(|| "to create pods/exec in the agents' namespace".to_owned()),
    }
}

fn read(doctor: &str, status: Option<&str>) -> AgentReport {
    let report: Report = match serde_json::from_str(doctor) {
        Ok(report) => report,
        Err(_) => {
            // An agent of another version, or one that could not look.
            let first = doctor.lines().next().unwrap_or_default();
            let none = AgentFinding {
                check: "doctor".to_owned(),
                has_failed: false,
                seen: format!("no report: {first}"),
                remedy: "see that agents and this command are of one version".to_owned(),
            };
            return AgentReport {
                findings: vec![none],
                ..AgentReport::default()
            };
        }
    };
    let noteworthy = report.checks.into_iter().filter(|it| it.status != "pass");
    let findings = noteworthy.map(|it| AgentFinding {
        check: it.check,
        has_failed: it.status == "fail",
        seen: it.seen,
        remedy: it.remedy.unwrap_or_default(),
    });
    let agents: Agents = status
        .and_then(|status| serde_json::from_str(status).ok())
        .unwrap_or_default();
    let pods = agents.agents.iter().flat_map(|agent| &agent.pods);
    // A name that nobody has verified may be another pod's.
    let pod = pods.clone().find(|pod| pod.names_verified);
    let pod = pod.or_else(|| pods.clone().next());
    AgentReport {
        findings: findings.collect(),
        role: pod.and_then(|pod| pod.role.clone()),
        last_error: pod
            .filter(|pod| pod.is_failing())
            .and_then(|pod| pod.last_error.as_ref())
            .map(|error| error.message.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Container;

    #[test]
    fn what_an_agent_finds_wrong_is_read() {
        let doctor = r#"{"subject":"pod shop/web","worst":"fail","checks":[
            {"check":"known","status":"pass","seen":"it is"},
            {"check":"eks-auth","status":"fail","seen":"AccessDenied","remedy":"trust it"}]}"#;
        let report = read(doctor, None);
        let expected = AgentFinding {
            check: "eks-auth".to_owned(),
            has_failed: true,
            seen: "AccessDenied".to_owned(),
            remedy: "trust it".to_owned(),
        };
        assert_eq!(report.findings, [expected]);
        assert_eq!(read("not JSON", None).findings.len(), 1);
    }

    #[test]
    fn of_two_agents_on_a_node_the_ready_one_is_asked_first() {
        let agent = |name: &str, ready| Pod {
            name: name.to_owned(),
            node: Some("n1".to_owned()),
            ready,
            ..Pod::default()
        };
        let agents = [agent("old", false), agent("new", true)];
        let nodes = by_node(&agents);
        let names: Vec<_> = nodes["n1"].iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["new", "old"]);
    }

    #[test]
    fn with_the_label_of_aws_only_a_container_of_podcreds_is_asked() {
        let agent = |container: &str| Pod {
            name: container.to_owned(),
            node: Some("n1".to_owned()),
            labels: [("app.kubernetes.io/name", "eks-pod-identity-agent")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            containers: vec![Container {
                name: container.to_owned(),
                ..Container::default()
            }],
            ..Pod::default()
        };
        let agents = [agent("eks-pod-identity-agent"), agent("agent")];
        let nodes = by_node(&agents);
        let names: Vec<_> = nodes["n1"].iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["agent"]);
    }
}
