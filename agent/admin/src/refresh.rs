//! Fetching credentials anew.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Whose credentials are to be fetched anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// Those of all pods of a service account.
    #[serde(rename_all = "camelCase")]
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Those of a pod, by name.
    #[serde(rename_all = "camelCase")]
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Those of a pod, by UID.
    Uid(String),
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    /// One for each pod.
    pub pods: Vec<RefreshedPod>,
}

/// What came of it for one pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefreshedPod {
    /// Its UID.
    pub uid: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What it had; nothing if it had none.
    pub before: Option<Granted>,
    /// What it has now; nothing where that failed.
    pub after: Option<Granted>,
    /// Why there is nothing new, in EKS Auth's words or the agent's.
    pub error: Option<String>,
}

/// A role, and for how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Granted {
    /// The assumed role's ARN, without the session's name.
    pub role: Option<String>,
    /// When its credentials expire.
    pub expires: Timestamp,
}
