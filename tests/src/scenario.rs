//! The usual scene: EKS Auth, a node, and the agent on it.

use serde_json::Value;

use crate::{
    agent::{Agent, AgentBuilder},
    aws::Owner,
    eks_auth::EksAuth,
    node::Node,
    pod::{Pod, PodBuilder},
    wait::until,
};

/// The namespace and service account of a scenario's pods, unless a test says otherwise.
pub const ACCOUNT: (&str, &str) = ("shop", "reader");
/// The role that goes with it.
pub const ROLE: &str = "shop-reader";

/// How pods reach the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// Redirected by eBPF.
    InPod,
    /// At the host's addresses.
    Node,
}

impl Road {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::InPod, Self::Node];
}

/// A node with the agent running on it, and a role for its pods.
pub struct Scenario {
    /// The agent.
    pub agent: Agent,
    /// The node that it serves.
    pub node: Node,
    /// Where it gets credentials.
    pub eks_auth: EksAuth,
}

impl Scenario {
    /// Starts everything, and waits until the agent is ready.
    pub fn start() -> Self {
        Self::with_args([])
    }

    /// The same, on one of two roads.
    pub fn on(road: Road) -> Self {
        match road {
            Road::InPod => Self::start(),
            Road::Node => Self::on_network("node", []),
        }
    }

    /// The same on a node with a network of its own, in which the agent's node path may be.
    pub fn on_network<'a>(datapath: &str, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let node = Node::with_network();
        let eks_auth = node.enter(EksAuth::start);
        let set = |agent: AgentBuilder| agent.set("--datapath", datapath).args(arguments);
        Self::run(node, eks_auth, set)
    }

    /// The same, with further arguments for the agent.
    pub fn with_args<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        Self::run(Node::new(), EksAuth::start(), |agent| agent.args(arguments))
    }

    /// The same, with an agent that is told something and an EKS Auth that is there already.
    pub fn run(
        node: Node,
        eks_auth: EksAuth,
        tell: impl FnOnce(AgentBuilder) -> AgentBuilder,
    ) -> Self {
        eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
        let agent = tell(Agent::on(&node, &eks_auth)).start();
        Self {
            agent,
            node,
            eks_auth,
        }
    }

    /// Describes a pod with the usual service account.
    pub fn pod(&self, name: &str) -> PodBuilder {
        self.node.pod(name).account(ACCOUNT.0, ACCOUNT.1)
    }

    /// Starts a pod, and waits until the agent knows it. Nothing has been fetched for it yet.
    pub fn known_pod(&self, name: &str) -> Pod {
        let pod = self.pod(name).start();
        wait_known([&pod]);
        pod
    }

    /// Starts a pod, and waits until what it connects to over IPv4 is redirected: where there is a
    /// node path too, its first requests may come by that. Nothing has been fetched for it yet.
    pub fn redirected_pod(&self, name: &str) -> Pod {
        let pod = self.pod(name).start();
        until(&format!("pod {name} is redirected"), || {
            let answer = pod.run(["get", "--no-token"]);
            let local = answer["local"].as_str().unwrap_or_default();
            local.starts_with("127.")
        });
        pod
    }

    /// Starts a pod, and waits until it gets its credentials over IPv4.
    pub fn served_pod(&self, name: &str) -> Pod {
        let pod = self.pod(name).start();
        wait_served(&pod, []);
        pod
    }
}

/// Waits until `pod-client get` with these arguments brings the pod its own credentials.
///
/// # Panics
///
/// When it does not in time, with the last answer; at once when it brings another pod's.
pub fn wait_served<'a>(pod: &Pod, arguments: impl IntoIterator<Item = &'a str>) -> Value {
    let mut command = vec!["get", "--timeout-ms", "2000"];
    command.extend(arguments);
    let mut answer = Value::Null;
    until(
        &format!("pod {} is served: {command:?}", pod.name()),
        || {
            answer = pod.run(command.iter().copied());
            let served = answer["status"] == 200;
            if served {
                assert_owned(&answer, pod);
            }
            served
        },
    );
    answer
}

/// Waits until the agent answers these pods, which ask for nothing meanwhile.
///
/// # Panics
///
/// When it does not in time.
pub fn wait_known<'a>(pods: impl IntoIterator<Item = &'a Pod>) {
    for pod in pods {
        until(&format!("the agent knows pod {}", pod.name()), || {
            pod.run(["get", "--no-token"])["status"] == 400
        });
    }
}

/// Checks that an answer holds this pod's credentials.
///
/// # Panics
///
/// When it does not.
#[track_caller]
pub fn assert_owned(answer: &Value, pod: &Pod) {
    assert_eq!(answer["status"], 200, "{answer}");
    let token = answer["body"]["Token"].as_str().unwrap_or_default();
    let owner = token.parse::<Owner>().map(|owner| owner.uid);
    assert_eq!(owner.as_deref(), Ok(pod.uid()), "{answer}");
}
