//! Who was refused without a call to EKS Auth.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Somebody who was refused for one reason. One of `uid`, `address` and `process` says who, or none
/// where nothing is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalStatus {
    /// The UID of the pod, where the kernel has named one.
    pub uid: Option<String>,
    /// That pod's namespace, as a token has said that got credentials.
    pub namespace: Option<String>,
    /// Its name, from there too.
    pub name: Option<String>,
    /// The address that it came from, on the node path.
    pub address: Option<String>,
    /// The process, where it is in no pod that is known.
    pub process: Option<u32>,
    /// That process's program and cgroup, where they are known.
    pub about: Option<String>,
    /// The reason, as `podcreds_refusals_total` or `podcreds_kernel_connects_total` names it.
    pub reason: String,
    /// The pod that the refused token names, where the refusal is about a token. Nobody may have
    /// verified that.
    pub token_uid: Option<String>,
    /// What that pod is called, `NAMESPACE/NAME`, where it is known on this node.
    pub token_pod: Option<String>,
    /// How often.
    pub count: u64,
    /// When last.
    pub last: Timestamp,
}
