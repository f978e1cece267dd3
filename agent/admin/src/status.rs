//! What an agent says about itself and its pods. The names in JSON are an interface.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{RefusalStatus, Timestamp};

/// An agent and the pods of its node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The agent.
    pub agent: AgentStatus,
    /// The pods, by namespace and name; those without a name last.
    pub pods: Vec<PodStatus>,
    /// Who was refused within the last hour without a call to EKS Auth, the latest first.
    #[serde(default)]
    pub refused: Vec<RefusalStatus>,
}

/// How an agent is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Its version.
    pub version: String,
    /// The revision that it was built from.
    pub revision: String,
    /// Its process ID, as itself sees it.
    pub process: u32,
    /// What it is to the others on its node: `leader`, `successor` or `waiting`.
    pub role: String,
    /// When it started.
    pub started: Timestamp,
    /// Whether it serves pods.
    pub ready: bool,
    /// Why it does not, or what it has to do without.
    pub remarks: Vec<String>,
    /// How pods can come.
    pub paths: PathsStatus,
    /// The rate limiter before EKS Auth.
    pub limiter: LimiterStatus,
    /// How EKS Auth is doing.
    pub upstream: UpstreamStatus,
    /// The cluster's keys; nothing where the agent knows no place to get them.
    pub keys: Option<KeysStatus>,
    /// How much it logs.
    pub log_level: String,
}

/// How pods can come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathsStatus {
    /// Whether the kernel sends pods to listeners in their own network namespaces.
    pub in_pod: bool,
    /// Addresses of the host that are listened on.
    pub node_addresses: u32,
}

/// The rate limiter before EKS Auth.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimiterStatus {
    /// Calls that it lets through in a second.
    pub calls_per_second: f64,
    /// Whether that is less than usual, because EKS Auth throttles.
    pub throttled: bool,
    /// Calls that have not ended.
    pub in_flight: usize,
    /// Calls that requests wait for, and that wait for their turn.
    pub waiting: usize,
    /// Renewals that wait for their turn.
    pub waiting_renewals: usize,
    /// Calls for tokens that have just been refused, which wait for their turn.
    pub waiting_doubtful: usize,
    /// For how many seconds EKS Auth still wants to be left alone.
    pub blocked_seconds: Option<f64>,
}

/// How EKS Auth is doing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStatus {
    /// Calls without a usable answer since the last one with.
    pub failures_in_a_row: u32,
    /// When it last gave an answer, if only a refusal.
    pub last_answer: Option<Timestamp>,
    /// Why a call last failed.
    pub last_failure: Option<TimedError>,
}

/// The cluster's keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeysStatus {
    /// How many are known.
    pub known: usize,
    /// Why the last fetch failed, if it did.
    pub failure: Option<String>,
}

/// An error and when it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimedError {
    /// When it was.
    pub at: Timestamp,
    /// In EKS Auth's words or the agent's.
    pub message: String,
}

/// A pod and its credentials.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// What the entry is of.
    #[serde(default)]
    pub subject: SubjectKind,
    /// Its UID, where a cgroup or a token tells it. A token that got nothing tells it as it tells
    /// the names: it may be another pod's.
    pub uid: Option<String>,
    /// Its namespace, as its token says.
    pub namespace: Option<String>,
    /// Its name, as its token says.
    pub name: Option<String>,
    /// Its service account, as its token says.
    pub service_account: Option<String>,
    /// Whether a token that got credentials has told the names. A refused one may say anything.
    pub names_verified: bool,
    /// What it has.
    pub state: PodState,
    /// The assumed role's ARN, without the session's name.
    pub role: Option<String>,
    /// When the credentials expire.
    pub expires: Option<Timestamp>,
    /// When they came.
    pub renewed: Option<Timestamp>,
    /// When they are renewed, if they are asked for.
    pub renewal_due: Option<Timestamp>,
    /// When the pod has last asked this agent and got them.
    pub last_asked: Option<Timestamp>,
    /// What says that they are this pod's.
    pub identified_by: Option<IdentifiedBy>,
    /// How the pod comes.
    pub path: Option<PathKind>,
    /// Whether the agent before this one renews them.
    pub renewed_by_leader: bool,
    /// Renewals in a row that failed.
    pub failed_renewals: u32,
    /// Why it last got no new ones.
    pub last_error: Option<TimedError>,
}

/// What an entry is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubjectKind {
    /// A pod that the kernel or one of the cluster's keys has named.
    #[default]
    Pod,
    /// A single token: nothing else says which pod it is.
    Token,
}

/// What a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodState {
    /// Credentials that are good.
    Valid,
    /// Credentials near their end, served where there are none newer.
    Stale,
    /// Credentials that have expired.
    Expired,
    /// None yet: they are being fetched.
    Fetching,
    /// None: the last try failed.
    Failed,
    /// None: it has not asked this agent.
    None,
}

/// What says whose credentials they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentifiedBy {
    /// The kernel's record of the caller, and the token.
    Kernel,
    /// The token, which one of the cluster's keys has signed.
    Key,
    /// The token, which EKS Auth has accepted.
    EksAuth,
}

/// How a pod comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// To a listener in its own network namespace.
    InPod,
    /// To an address of the host.
    Node,
}

// In tables they have the names that they have in JSON.

impl fmt::Display for PodState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for IdentifiedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl PodStatus {
    /// Whether something is wrong: its credentials are near their end or there are none, or the
    /// last try to get new ones failed.
    pub fn is_failing(&self) -> bool {
        let error = self.last_error.as_ref().map(|error| error.at);
        match self.state {
            PodState::Stale | PodState::Expired | PodState::Failed => true,
            PodState::Valid => self.failed_renewals > 0 || error > self.renewed,
            PodState::Fetching | PodState::None => error.is_some(),
        }
    }
}
