//! What was seen of a cluster, as plain values. The adapters fill them, the checks judge them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use podcreds_types::{
    ServiceAccount,
    sdk::{URI, URIS},
};
use serde_json::Value;

/// Something that was looked at, or why it could not be.
pub(crate) type Seen<T> = Result<T, Missing>;

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// What: `pods`, `role X`.
    pub(crate) what: String,
    /// Why not, in the server's words.
    pub(crate) why: String,
    /// The permission that would allow it, if that is what lacks.
    pub(crate) needs: Option<String>,
}

/// Why not, and what would allow it.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why, needs, .. } = self;
        write!(f, "{why}")?;
        match needs {
            Some(needs) => write!(f, " (needs the permission {needs})"),
            None => Ok(()),
        }
    }
}

/// A cluster as it was seen at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) cluster: Cluster,
    pub(crate) pods: Seen<Vec<Pod>>,
    /// The pods of agents: podcreds and AWS's own.
    pub(crate) agents: Seen<Vec<Pod>>,
    pub(crate) accounts: Seen<BTreeMap<ServiceAccount, Account>>,
    pub(crate) nodes: Seen<BTreeMap<String, Node>>,
    pub(crate) network_policies: Seen<Vec<NetworkPolicy>>,
    pub(crate) associations: Seen<BTreeMap<ServiceAccount, Association>>,
    /// By ARN. Only those that associations name.
    pub(crate) roles: BTreeMap<String, Seen<Option<Role>>>,
    /// What the agent says about the pod that is looked at. Nothing where none was asked.
    pub(crate) agent_report: Option<Seen<AgentReport>>,
}

impl Snapshot {
    /// Who runs a node, if that was seen.
    pub(crate) fn kind_of(&self, node: &str) -> Option<NodeKind> {
        let nodes = self.nodes.as_ref().ok()?;
        nodes.get(node).map(|node| node.kind)
    }
}

/// The cluster itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Its name at EKS.
    pub(crate) name: String,
    /// Its ARN, if EKS has said it.
    pub(crate) arn: Option<String>,
    /// Its region.
    pub(crate) region: Option<String>,
    /// Why EKS has said nothing about it.
    pub(crate) missing: Option<Missing>,
}

impl Cluster {
    /// The account that it belongs to.
    pub(crate) fn account(&self) -> Option<&str> {
        self.arn.as_deref().and_then(account_of)
    }
}

/// The account in an ARN.
pub(crate) fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| !account.is_empty())
}

/// The name of a role in its ARN, without its path, which IAM takes nowhere.
pub(crate) fn role_name(arn: &str) -> Option<&str> {
    let resource = arn.splitn(6, ':').nth(5)?;
    let name = resource.strip_prefix("role/")?.rsplit('/').next()?;
    (!name.is_empty()).then_some(name)
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) account: String,
    /// The node that it was given to.
    pub(crate) node: Option<String>,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub(crate) phase: String,
    pub(crate) ready: bool,
    /// In seconds since 1970.
    pub(crate) created: i64,
    pub(crate) labels: BTreeMap<String, String>,
    /// Only those that are about roles.
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: Option<Owner>,
    pub(crate) containers: Vec<Container>,
    pub(crate) tokens: Vec<TokenVolume>,
}

impl Pod {
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    pub(crate) fn service_account(&self) -> ServiceAccount {
        ServiceAccount {
            namespace: self.namespace.clone(),
            name: self.account.clone(),
        }
    }

    /// Whether it may still ask for credentials.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether one of its containers is told to ask an agent. What is told to ask elsewhere has
    /// nothing to do with Pod Identity.
    pub(crate) fn is_injected(&self) -> bool {
        let mut uris = self.containers.iter().filter_map(|it| it.env.get(URI));
        uris.any(|uri| uri.as_deref().is_none_or(|uri| URIS.contains(&uri)))
    }
}

/// What has made a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) name: String,
    /// The variables that matter. Those that may hold a secret, or come from elsewhere, are without
    /// their value.
    pub(crate) env: BTreeMap<String, Option<String>>,
    /// Whether it has variables that the pod does not show.
    pub(crate) has_env_from: bool,
    /// Volumes by the path where they are mounted.
    pub(crate) mounts: BTreeMap<String, String>,
}

/// A service account's token that kubelet puts into a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenVolume {
    pub(crate) volume: String,
    /// The file's path in the volume.
    pub(crate) path: String,
    /// The API server's own where there is none.
    pub(crate) audience: Option<String>,
}

/// A service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// The role of `eks.amazonaws.com/role-arn`.
    pub(crate) irsa_role: Option<String>,
}

/// A node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) ready: bool,
    pub(crate) kind: NodeKind,
}

/// Who runs a node, as far as it decides about agents there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NodeKind {
    /// An instance of EC2. The chart puts an agent on each.
    #[default]
    Cloud,
    /// Of EKS Auto Mode, with an agent of AWS's that is no pod. The chart leaves it out.
    Auto,
    /// Outside of AWS. The chart puts an agent there only if it is told to.
    Hybrid,
    /// Of Fargate, where no agent can be.
    Fargate,
    /// With Windows, where no agent can be.
    Windows,
}

/// The nodes where an agent should be, given those where one is. Nobody says whether the chart was
/// told to put agents on hybrid nodes; where one of them has an agent, it was.
pub(crate) fn want_agents<'a>(
    nodes: &'a BTreeMap<String, Node>,
    with_agent: &BTreeSet<&str>,
) -> BTreeSet<&'a str> {
    let mut all = nodes.iter();
    let is_hybrid = |node: &Node| node.kind == NodeKind::Hybrid;
    let of_hybrid = all.any(|(name, node)| is_hybrid(node) && with_agent.contains(name.as_str()));
    let wanted = nodes.iter().filter(|(_, node)| match node.kind {
        NodeKind::Cloud => true,
        NodeKind::Hybrid => of_hybrid,
        NodeKind::Auto | NodeKind::Fargate | NodeKind::Windows => false,
    });
    wanted.map(|(name, _)| name.as_str()).collect()
}

/// A network policy, as far as it is about what pods may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkPolicy {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The labels of the pods that it is for. Nothing where it chooses in another way.
    pub(crate) selects: Option<BTreeMap<String, String>>,
    /// Whether it limits what these pods may reach.
    pub(crate) limits_egress: bool,
    /// Whether the agent's address is among what they may reach.
    pub(crate) allows_agent: bool,
}

/// An association of a service account with a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Association {
    pub(crate) id: String,
    /// What only a call of its own tells. Nothing where it was not needed.
    pub(crate) details: Option<Seen<Details>>,
}

impl Association {
    /// The details, if they are known.
    pub(crate) fn known(&self) -> Option<&Details> {
        self.details.as_ref()?.as_ref().ok()
    }
}

/// What an association says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) role: String,
    pub(crate) target_role: Option<String>,
    pub(crate) external_id: Option<String>,
    /// Whether EKS adds its session tags.
    pub(crate) session_tags: bool,
    /// Whether a policy limits the session.
    pub(crate) has_policy: bool,
    /// In seconds since 1970.
    pub(crate) created: Option<i64>,
}

/// A role of IAM.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Role {
    /// Who may assume it.
    pub(crate) trust: Value,
    /// The policy that limits it.
    pub(crate) boundary: Option<String>,
}

/// What the agent of a pod's node says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AgentReport {
    /// The checks of its `doctor pod` that are not passed.
    pub(crate) findings: Vec<AgentFinding>,
    /// The role that the pod has been given.
    pub(crate) role: Option<String>,
    /// Why it last got no credentials.
    pub(crate) last_error: Option<String>,
}

/// What a check of the agent's has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AgentFinding {
    pub(crate) check: String,
    /// Else it is a warning.
    pub(crate) has_failed: bool,
    pub(crate) seen: String,
    pub(crate) remedy: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_without_its_path() {
        let arn = "arn:aws:iam::111122223333:role/team/shop/reader";
        assert_eq!(role_name(arn), Some("reader"));
        assert_eq!(account_of(arn), Some("111122223333"));
        assert_eq!(role_name("arn:aws:iam::111122223333:user/x"), None);
    }
}
